"""Stable Diffusion XL (arXiv:2307.01952): two CLIP text encoders, and a UNet conditioned on how its image was cropped.

Conditions, for B images: "states" (B, 77 chunks, 2048), the last hidden layer but one of both encoders side by side,
rows of different lengths as `Diffusion.join` has them; "pooled" (B, 1280) of the second, of its first chunk; "time_ids"
(B, 6), height and width before scaling, top and left of the crop, height and width after it. Without "time_ids" an
image is taken to be uncropped, as the pipeline does.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.basemodels.clip_prompts import Parts, clip_states
from studio.basemodels.diffusion import Diffusion
from studio.basemodels.family import Conditioning, Size


class StableDiffusionXL(Diffusion):
    """Latents are (B, 4, h, w)."""

    title = "SDXL"
    pipeline_class = "StableDiffusionXLPipeline"
    text_encoders = ("text_encoder", "text_encoder_2")
    trained_encoders = ("text_encoder", "text_encoder_2")
    pipeline_kwargs = {"add_watermarker": False}

    def encode_parts(
        self, prompts: Sequence[Parts], negative: bool = False, clip_skip: int = 1, chunks: int = 1, most: int = 0
    ) -> Conditioning:
        """clip_skip 1 is SDXL's own: the last hidden layer but one, without the final norm.

        An empty negative prompt is zeros where the base says so (`force_zeros_for_empty_prompt`), as in its pipeline.
        """
        pairs = (
            (self.pipeline.tokenizer, self.pipeline.text_encoder),
            (self.pipeline.tokenizer_2, self.pipeline.text_encoder_2),
        )
        found = []
        for tokenizer, encoder in pairs:
            layer = -min(clip_skip + 1, encoder.config.num_hidden_layers)
            found.append(clip_states(tokenizer, encoder, prompts, chunks, layer, norm=False, most=most))
        pooled = found[1][1]
        assert pooled is not None  # the second encoder has a projection
        conditions = {"states": torch.cat([states for states, _ in found], -1), "pooled": pooled}
        if negative and self.pipeline.config.force_zeros_for_empty_prompt:
            not_empty = [any(text.strip() for text, _ in parts) for parts in prompts]
            kept = torch.tensor(not_empty, dtype=torch.float32).to(self.device)
            return {name: value * kept.reshape(-1, *(1 for _ in value.shape[1:])) for name, value in conditions.items()}
        return conditions

    def size_conditioning(self, frames: list[tuple[Size, Size, Size]]) -> Conditioning:
        rows = [[size[1], size[0], corner[1], corner[0], cut[1], cut[0]] for size, corner, cut in frames]
        return {"time_ids": torch.tensor(rows, dtype=torch.float32).to(self.device)}

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        guidance = self._guidance_embedding(conditions, len(noisy))
        time_ids = conditions.get("time_ids")
        if time_ids is None:
            height, width = (side * self.pipeline.vae_scale_factor for side in noisy.shape[2:])
            time_ids = self.size_conditioning([((width, height), (0, 0), (width, height))] * len(noisy))["time_ids"]
        added = {"text_embeds": conditions["pooled"], "time_ids": time_ids}
        with self.arithmetic():
            output = self.model(
                noisy,
                t,
                encoder_hidden_states=conditions["states"],
                added_cond_kwargs=added,
                timestep_cond=guidance,
                encoder_attention_mask=conditions.get("mask"),
            )
        return output.sample.float()
