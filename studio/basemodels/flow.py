"""Flow matching (arXiv:2210.02747, arXiv:2209.03003): straight paths from images to noise; the model predicts
the velocity.

s is the share of noise, 0 to 1; schedulers count t = 1000 s.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from studio.basemodels.clip_prompts import Parts
from studio.basemodels.family import Conditioning, Family


def between(latents: Tensor, noise: Tensor, s: Tensor) -> Tensor:
    """x_s = (1 - s) x + s e. s: (B,)."""
    s = s.reshape(-1, *(1 for _ in latents.shape[1:])).to(latents)
    return (1 - s) * latents + s * noise


def shifted(s: Tensor, shift: float) -> Tensor:
    """shift s / (1 + (shift - 1) s): the same noise, as larger images feel it (arXiv:2403.03206, eq. 23)."""
    return shift * s / (1 + (shift - 1) * s)


def shift_for(tokens: float, config: Any) -> float:
    """mu, the logarithm of the shift, at an image's size in patches: a line between the two sizes that the
    scheduler's config names (FLUX's `calculate_shift`)."""
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (many - few)
    return tokens * slope + (least - slope * few)


def own_shift(config: Any) -> float:
    """The fixed shift of a scheduler's config; 1 where it goes by the resolution."""
    return 1.0 if config.get("use_dynamic_shifting") else float(config.get("shift", 1.0))


def shift_at_size(config: Any, tokens: float, native: float) -> float:
    """The shift at an image's size in patches: by FLUX's line where the scheduler has one, else the fixed shift times
    the root of how much larger the image is than the base's own (arXiv:2403.03206, eq. 23). native: that in patches.
    """
    if config.get("use_dynamic_shifting"):
        return math.exp(shift_for(tokens, config))
    return own_shift(config) * math.sqrt(tokens / native)


class Flow(Family):
    """A transformer that predicts e - x: the velocity from the image to the noise."""

    denoiser = "transformer"
    prediction_type = "flow"
    usual_timesteps: ClassVar[str] = "logit-normal"
    patch: ClassVar[int] = 2  # side of what the transformer reads as one, in latents
    own_sigmas: ClassVar[bool] = False  # whether the pipeline spreads the steps itself, from 1 to 1 / steps

    @classmethod
    def size_multiple(cls, config: Mapping[str, Any], scale: int) -> tuple[int, int]:
        return scale * cls.patch, scale * cls.patch

    def encode_parts(
        self, prompts: Sequence[Parts], negative: bool = False, clip_skip: int = 1, chunks: int = 1, most: int = 0
    ) -> Conditioning:
        texts = [" ".join("".join(text for text, weight in parts if weight >= 0).split()) for parts in prompts]
        return self.encode_texts(texts)

    @abstractmethod
    def encode_texts(self, texts: list[str]) -> Conditioning:
        """The conditioning of texts, each cut and padded to `text_length` tokens. Keeps gradients where enabled."""

    def times(self, shares: Tensor, shift: float | None = None) -> Tensor:
        """1000 s, float32. The base's own shift is its scheduler's where that is a fixed one, as in the public training
        scripts: those of SD 3 draw from the shifted schedule, those of FLUX from the plain one.
        """
        own = own_shift(self.pipeline.scheduler.config)
        return 1000 * shifted(shares.float(), own if shift is None else shift)

    def shift_at(self, width: int, height: int) -> float:
        return shift_at_size(self.pipeline.scheduler.config, width * height / self.multiple**2, self._native_tokens)

    @property
    def _native_tokens(self) -> float:
        return (self.resolution / self.multiple) ** 2

    def shares(self, t: Tensor) -> Tensor:
        return t / 1000

    def noise_to_signal(self, t: Tensor) -> Tensor:
        s = (t / 1000).clamp(max=1 - 1e-6)
        return s / (1 - s)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return between(latents, noise, t / 1000)

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """e - x, the same everywhere on the way."""
        return noise - latents

    def pred_x0(self, noisy: Tensor, model_output: Tensor, t: Tensor) -> Tensor:
        s = torch.as_tensor(t, device=noisy.device).reshape(-1, *(1 for _ in noisy.shape[1:])) / 1000
        return noisy - s * model_output

    def set_steps(self, scheduler: Any, steps: int, width: int, height: int) -> None:
        config = scheduler.config
        more: dict[str, Any] = {}
        if config.get("use_dynamic_shifting"):
            more["mu"] = shift_for(width * height // self.multiple**2, config)
        if self.own_sigmas and not config.get("use_flow_sigmas"):
            more["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, device=self.device, **more)

    def _times_of(self, t: Tensor, rows: int) -> Tensor:
        """(B,) of t, which may be one number."""
        return torch.as_tensor(t, device=self.device).expand(rows)
