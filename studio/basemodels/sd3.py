"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): two CLIP encoders and T5, a transformer of two streams, flow matching.

Conditions, for B images: "states" (B, 77 + `text_length`, 4096), both CLIPs side by side, then T5; "pooled" (B, 2048)
of both CLIPs. Without T5 (its folder left out) its states are zeros, as the model was trained to bear.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from studio.basemodels.family import Conditioning
from studio.basemodels.flow import Flow
from studio.basemodels.token_counter import TokenCounter


class StableDiffusion3(Flow):
    """Latents are (B, 16, h, w)."""

    title = "Stable Diffusion 3"
    pipeline_class = "StableDiffusion3Pipeline"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    trained_encoders = ("text_encoder", "text_encoder_2")
    half_precision_encoders = ("text_encoder_3",)
    text_lengths = (256, 512)  # of T5, as the pipeline has them
    optional = ("text_encoder_3", "tokenizer_3")

    @classmethod
    def counter(cls, tokenizers: Callable[[str], Any], length: int | None = None) -> TokenCounter:
        """By T5, which reads on where the CLIPs end, if it is there."""
        t5 = tokenizers("tokenizer_3")
        if not t5:
            return super().counter(tokenizers)
        return TokenCounter(t5, (length or cls.text_lengths[0]) - t5.num_special_tokens_to_add())

    def encode_texts(self, texts: list[str]) -> Conditioning:
        states, _, pooled, _ = self.pipeline.encode_prompt(
            texts,
            texts,
            texts,
            device=self.device,
            do_classifier_free_guidance=False,
            max_sequence_length=self.text_length,
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
