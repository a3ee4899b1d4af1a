"""FLUX.1 dev and schnell: CLIP's summary and T5's states, a transformer over latents packed two by two, flow matching.

Conditions, for B images: "states" (B, `text_length`, 4096) of T5, "pooled" (B, 768) of CLIP; "guidance" (B, 1) for
dev, which is guidance-distilled. Training gives it a guidance of 1, as the public script advises, so that the adapter
leaves the distilled guidance alone.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from studio.basemodels.family import Conditioning
from studio.basemodels.flow import Flow
from studio.basemodels.token_counter import TokenCounter


class Flux(Flow):
    """Latents are (B, 16, h, w); the transformer gets them packed."""

    title = "FLUX.1"
    pipeline_class = "FluxPipeline"
    text_encoders = ("text_encoder", "text_encoder_2")
    trained_encoders = ("text_encoder",)
    half_precision_encoders = ("text_encoder_2",)
    text_lengths = (512, 512)  # of T5, as the pipeline has them for dev and schnell alike
    own_sigmas = True

    @property
    def native_resolution(self) -> int:
        return self.pipeline.vae.config.sample_size

    @property
    def channels(self) -> int:
        return self.model.config.in_channels // self.patch**2

    @classmethod
    def embeds_guidance(cls, config: Mapping[str, Any]) -> bool:
        """Dev takes its guidance as an input, schnell has a fixed one."""
        return True

    def guided(self, conditions: Conditioning, guidance: float) -> Conditioning:
        if not self.model.config.guidance_embeds:
            return conditions
        pooled = conditions["pooled"]
        return {**conditions, "guidance": torch.full((len(pooled), 1), float(guidance), device=pooled.device)}

    def encode_texts(self, texts: list[str]) -> Conditioning:
        states, pooled, _ = self.pipeline.encode_prompt(
            texts, texts, device=self.device, max_sequence_length=self.text_length
        )
        return {"states": states, "pooled": pooled}

    @classmethod
    def counter(cls, tokenizers: Callable[[str], Any], length: int | None = None) -> TokenCounter:
        """By T5, which reads on where CLIP ends."""
        t5 = tokenizers("tokenizer_2")
        if not t5:
            return super().counter(tokenizers)
        return TokenCounter(t5, (length or cls.text_lengths[0]) - t5.num_special_tokens_to_add())

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        rows, _, height, width = noisy.shape
        states = conditions["states"]
        guidance = None
        if self.model.config.guidance_embeds:
            value = conditions.get("guidance")
            guidance = torch.ones(rows, device=self.device) if value is None else value[:, 0]
        image_ids = self.pipeline._prepare_latent_image_ids(rows, height // 2, width // 2, self.device, noisy.dtype)
        with self.arithmetic():
            output = self.model(
                hidden_states=pack(noisy),
                timestep=self._times_of(t, rows).to(noisy.dtype) / 1000,
                guidance=guidance,
                pooled_projections=conditions["pooled"],
                encoder_hidden_states=states,
                txt_ids=torch.zeros(states.shape[1], 3, device=self.device, dtype=noisy.dtype),
                img_ids=image_ids,
            )
        return unpack(output.sample.float(), height, width)


def pack(latents: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h/2 · w/2, 4 C): each token a square of two by two."""
    rows, channels, height, width = latents.shape
    squares = latents.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 1, 3, 5)
    return squares.reshape(rows, (height // 2) * (width // 2), 4 * channels)


def unpack(tokens: Tensor, height: int, width: int) -> Tensor:
    """Back to (B, C, height, width)."""
    rows, _, wide = tokens.shape
    squares = tokens.reshape(rows, height // 2, width // 2, wide // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return squares.reshape(rows, wide // 4, height, width)
