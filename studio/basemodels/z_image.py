"""Z-Image (arXiv:2511.22699): 6 billion parameters, one stream of words and image, flow matching, Apache licence.

It is the small flow model here because it is the one that people train adapters for today: it fits into 16 GB, its text
encoder is one language model (Qwen3) instead of three, its VAE is FLUX.1's, and diffusers carries its adapters.

Conditions, for B images: "states" (B, `text_length`, width), the last hidden layer but one, zeros after the words' end;
"mask" (B, `text_length`), 1 where there is a word. The transformer counts time from noise to image and predicts the
velocity in that direction; here both are reversed. Guidance of 1 is none, as everywhere here: Z-Image's own pipeline
calls that 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studio.basemodels.family import Conditioning
from studio.basemodels.flow import Flow
from studio.basemodels.token_counter import TokenCounter


class ZImage(Flow):
    """Latents are (B, 16, h, w)."""

    title = "Z-Image"
    pipeline_class = "ZImagePipeline"
    trained_encoders = ()  # nobody adapts its language model, and no file has names for that
    half_precision_encoders = ("text_encoder",)
    text_lengths = (512, 1024)  # tokens that are read of a prompt, its frame included: the pipeline's, and what fits
    own_sigmas = True

    @property
    def native_resolution(self) -> int:
        return self.pipeline.vae.config.sample_size

    @classmethod
    def counter(cls, tokenizers: Callable[[str], Any], length: int | None = None) -> TokenCounter:
        tokenizer = tokenizers("tokenizer")
        most = length or cls.text_lengths[0]
        return TokenCounter(tokenizer, most - len(tokenizer(chat_prompt(tokenizer, "")).input_ids))

    def encode_texts(self, texts: list[str]) -> Conditioning:
        tokenizer = self.pipeline.tokenizer
        found = tokenizer(
            [chat_prompt(tokenizer, prompt) for prompt in texts],
            padding="max_length",
            max_length=self.text_length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        mask = found.attention_mask.bool()
        states = self.pipeline.text_encoder(found.input_ids, attention_mask=mask, output_hidden_states=True)
        return {"states": states.hidden_states[-2] * mask[..., None], "mask": mask.float()}

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        rows = len(noisy)
        said = conditions["states"].float() if self.dtype == torch.float16 else conditions["states"]
        words = [states[mask > 0] for states, mask in zip(said, conditions["mask"])]  # bf16 can't be joined as fp16
        with self.arithmetic():
            output = self.model(list(noisy[:, :, None]), 1 - self._times_of(t, rows) / 1000, words, return_dict=False)[
                0
            ]
        return -torch.stack([one.float() for one in output])[:, :, 0]


def chat_prompt(tokenizer: Any, prompt: str) -> str:
    """The prompt as the language model's user would say it."""
    messages = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=True)
