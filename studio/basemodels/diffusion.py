"""Noise as Stable Diffusion 1, 2 and XL have it: a schedule of whole timesteps, the UNet predicts the noise or v."""

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from studio.basemodels.choice import BaseChoice
from studio.basemodels.clip_prompts import Parts, chunks_in
from studio.basemodels.family import Conditioning, Family
from studio.errors import BaseModelError
from studio.libraries.diffusers import DDPMScheduler, diffusers

# Zero terminal SNR (arXiv:2305.08891): the betas are rescaled so that the last timestep is noise alone, and drawing
# begins there, which only trailing timesteps do.
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}


def _as_chosen(own: Any, choice: BaseChoice) -> Any:
    """The base's scheduler with the overrides of the choice; Euler where its own kind does not know them."""
    changes: dict[str, Any] = {"prediction_type": choice.prediction_type} if choice.prediction_type else {}
    if choice.zero_terminal_snr:
        changes |= ZERO_SNR
    if not changes:
        return own
    knows = "rescale_betas_zero_snr" in inspect.signature(type(own).__init__).parameters
    kind = type(own) if knows or not choice.zero_terminal_snr else diffusers.EulerDiscreteScheduler
    return kind.from_config(own.config, **changes)


class Diffusion(Family):
    """A UNet with a schedule of variances (DDPM, arXiv:2006.11239)."""

    reads_on = True

    def __init__(
        self,
        folder: Path,
        precision: str = "fp32",
        device: torch.device | None = None,
        choice: BaseChoice | None = None,
    ):
        super().__init__(folder, precision, device, choice)
        self.pipeline.scheduler = _as_chosen(self.pipeline.scheduler, self.choice)
        noise = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.prediction_type = noise.config.prediction_type
        if self.choice.zero_terminal_snr and self.prediction_type == "epsilon":
            raise BaseModelError(
                f"{self.title} predicts the noise, which shows nothing at zero SNR: leave zero_terminal_snr out, or "
                "add prediction_type=v_prediction."
            )
        self.alphas = noise.alphas_cumprod.to(self.device)  # (T,), the share of signal's variance at each timestep
        self.timesteps = len(self.alphas)

    def chunks(self, parts: Parts, most: int = 0) -> int:
        return chunks_in(self.pipeline.tokenizer, parts, most)

    def join(self, rows: Sequence[Conditioning]) -> Conditioning:
        """Shorter states are filled up with zeros, which "mask" (B, 77 chunks), 1 where a state is, hides from the
        attention: each row means what it means alone, whatever stands beside it. (kohya's scripts fill captions up with
        empty chunks to the longest allowed, and attend to those.) Without "mask" all are equally long.
        """
        most = max(row["states"].shape[1] for row in rows)
        if all(row["states"].shape[1] == most for row in rows):
            return super().join(rows)
        out = []
        for row in rows:
            states = row["states"]
            fill = most - states.shape[1]
            mask = torch.ones(states.shape[:2], device=states.device)
            out.append(
                {
                    **row,
                    "states": torch.nn.functional.pad(states, (0, 0, 0, fill)),
                    "mask": torch.nn.functional.pad(mask, (0, fill)),
                }
            )
        return super().join(out)

    @classmethod
    def size_multiple(cls, config: Mapping[str, Any], scale: int) -> tuple[int, int]:
        """A UNet halves its input level by level; where that leaves a remainder, it draws all the same."""
        return scale * 2 ** (len(config["block_out_channels"]) - 1), scale

    def compile(self) -> None:
        unet = self.model
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            block.compile(dynamic=False)

    def times(self, shares: Tensor, shift: float | None = None) -> Tensor:
        """Whole timesteps; there is no shift."""
        return (shares * self.timesteps).long().clamp(max=self.timesteps - 1)

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(a) x + sqrt(1 - a) e (DDPM, arXiv:2006.11239, eq. 4). t: (B,) whole timesteps."""
        a = self.alphas[t][:, None, None, None]
        return a.sqrt() * latents + (1 - a).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """The noise, or v = sqrt(a) e - sqrt(1 - a) x (arXiv:2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        a = self.alphas[t][:, None, None, None]
        return a.sqrt() * noise - (1 - a).sqrt() * latents

    def pred_x0(self, noisy: Tensor, model_output: Tensor, t: Tensor) -> Tensor:
        a = self.alphas[torch.as_tensor(t).round().long().clamp(0, self.timesteps - 1).to(self.device)]
        a = a.reshape(-1, 1, 1, 1)
        if self.prediction_type == "epsilon":
            return (noisy - (1 - a).sqrt() * model_output) / a.sqrt()
        return a.sqrt() * noisy - (1 - a).sqrt() * model_output

    def snr(self, t: Tensor) -> Tensor:
        """(B,) signal-to-noise ratio a / (1 - a)."""
        return self.alphas[t] / (1 - self.alphas[t])

    def shares(self, t: Tensor) -> Tensor:
        return t.float() / self.timesteps

    def noise_to_signal(self, t: Tensor) -> Tensor:
        a = self.alphas[t].clamp(min=1e-8)
        return ((1 - a) / a).sqrt()

    @classmethod
    def embeds_guidance(cls, config: Mapping[str, Any]) -> bool:
        """Latent consistency models do (arXiv:2310.04378)."""
        return config.get("time_cond_proj_dim") is not None

    def guided(self, conditions: Conditioning, guidance: float) -> Conditioning:
        """LCM: {"guidance": (B, 1)}, as the pipeline counts it, from 1 for none."""
        first = next(iter(conditions.values()))
        return {**conditions, "guidance": torch.full((len(first), 1), float(guidance), device=first.device)}

    def _guidance_embedding(self, conditions: Conditioning, rows: int) -> Tensor | None:
        """(B, width) of a latent consistency model's guidance; 1 where none is given."""
        if not self.guidance_embedded:
            return None
        value = conditions.get("guidance")
        scale = torch.zeros(rows) if value is None else value[:, 0].cpu() - 1
        width = self.model.config.time_cond_proj_dim
        return self.pipeline.get_guidance_scale_embedding(scale, embedding_dim=width).to(self.device)
