"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206): two CLIP encoders and T5, a transformer of two streams, flow matching.

Conditions, for B pictures: "states" (B, 77 + 256, 4096), both CLIPs side by side, then T5; "pooled" (B, 2048) of both
CLIPs. Without T5 (its folder left out) its states are zeros, as the model was trained to bear.
"""

from torch import Tensor

from studio.basemodels.family import Conditions
from studio.basemodels.flow import Flow


class StableDiffusion3(Flow):
    """Latents are (B, 16, h, w)."""

    title = "Stable Diffusion 3"
    pipeline_class = "StableDiffusion3Pipeline"
    text_encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    trained_text = ("text_encoder", "text_encoder_2")
    halved_text = ("text_encoder_3",)
    optional = ("text_encoder_3", "tokenizer_3")

    def encode_prompt(self, prompts: list[str]) -> Conditions:
        words = list(prompts)
        states, _, pooled, _ = self.pipeline.encode_prompt(
            words, words, words, device=self.device, do_classifier_free_guidance=False
        )
        return {"states": states, "pooled": pooled}

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        with self.arithmetic():
            said = self.model(
                hidden_states=noisy,
                timestep=self._times_of(t, len(noisy)),
                encoder_hidden_states=conditions["states"],
                pooled_projections=conditions["pooled"],
            )
        return said.sample.float()
