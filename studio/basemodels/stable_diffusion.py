"""Stable Diffusion 1.x, 2.x and their kin (the starter is one): a CLIP text encoder, a UNet, an image VAE.

Conditions are {"states": (B, 77 chunks, width)}; see `Diffusion.join` for rows of different lengths. Version 2 differs
in its text encoder and, at 768 pixels, in saying v; both stand in its folder. Distilled ones (Turbo, Lightning, LCM)
draw in few steps with their own scheduler.
"""

from collections.abc import Sequence

from torch import Tensor

from studio.basemodels.clip_prompts import Parts, clip_states
from studio.basemodels.diffusion import Diffusion
from studio.basemodels.family import Conditioning


class StableDiffusion(Diffusion):
    """Latents are (B, 4, h, w)."""

    title = "Stable Diffusion"
    pipeline_class = "StableDiffusionPipeline"
    pipeline_kwargs = {"safety_checker": None, "requires_safety_checker": False}

    def encode_parts(
        self, prompts: Sequence[Parts], negative: bool = False, clip_skip: int = 1, chunks: int = 1, most: int = 0
    ) -> Conditioning:
        tokenizer, encoder = self.pipeline.tokenizer, self.pipeline.text_encoder
        layer = -min(clip_skip, encoder.config.num_hidden_layers)
        return {"states": clip_states(tokenizer, encoder, prompts, chunks, layer, most=most)[0]}

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        guidance = self._guidance_embedding(conditions, len(noisy))
        with self.arithmetic():
            output = self.model(
                noisy,
                t,
                encoder_hidden_states=conditions["states"],
                timestep_cond=guidance,
                encoder_attention_mask=conditions.get("mask"),
            )
        return output.sample.float()
