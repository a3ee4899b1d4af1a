"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): two CLIP encoders and T5, a transformer of two streams, flow matching.

Conditions, for B images: "states" (B, 77 + 256, 4096), both CLIPs side by side, then T5; "pooled" (B, 2048) of both
CLIPs. Without T5 (its folder left out) its states are zeros, as the model was trained to bear.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from studio.basemodels.family import Conditioning
from studio.basemodels.flow import Flow
from studio.basemodels.token_counter import TokenCounter

LENGTH = 256  # tokens that T5 is given, as the pipeline has it


class StableDiffusion3(Flow):
    """Latents are (B, 16, h, w)."""

    title = "Stable Diffusion 3"
    pipeline_class = "StableDiffusion3Pipeline"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    trained_encoders = ("text_encoder", "text_encoder_2")
    half_precision_encoders = ("text_encoder_3",)
    optional = ("text_encoder_3", "tokenizer_3")

    @classmethod
    def counter(cls, tokenizers: Callable[[str], Any]) -> TokenCounter:
        """By T5, which reads on where the CLIPs end, if it is there."""
        t5 = tokenizers("tokenizer_3")
        return TokenCounter(t5, LENGTH - t5.num_special_tokens_to_add()) if t5 else super().counter(tokenizers)

    def encode_prompt(self, prompts: list[str]) -> Conditioning:
        words = list(prompts)
        states, _, pooled, _ = self.pipeline.encode_prompt(
            words, words, words, device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        with self.arithmetic():
            output = self.model(
                hidden_states=noisy,
                timestep=self._times_of(t, len(noisy)),
                encoder_hidden_states=conditions["states"],
                pooled_projections=conditions["pooled"],
            )
        return output.sample.float()
