"""Stable Diffusion 1.x and its kin (the starter is one): a CLIP text encoder, a UNet, a picture codec.

Latents are (B, 4, h, w) float32 as the UNet sees them (scaled). Text states are (B, 77, width).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import DDPMScheduler, StableDiffusionPipeline
from diffusers.utils import logging as diffusers_logging
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from studio.errors import BaseModelError

for chatty in (diffusers_logging, transformers_logging):
    chatty.disable_progress_bar()


class StableDiffusion:
    """One loaded base model, in fp32 on the best device at hand."""

    def __init__(self, folder: Path):
        try:
            self.pipeline = StableDiffusionPipeline.from_pretrained(
                folder,
                local_files_only=True,
                safety_checker=None,
                requires_safety_checker=False,
                dtype=torch.float32,
            )
        except (OSError, ValueError, SafetensorError) as error:
            raise BaseModelError(f"The base model in {folder.name} can't be loaded: {error}".splitlines()[0]) from error
        self.pipeline.set_progress_bar_config(disable=True)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipeline.to(self.device)
        for module in self.modules().values():
            module.requires_grad_(False).eval()
        self.pipeline.vae.requires_grad_(False).eval()
        noise = DDPMScheduler.from_config(self.pipeline.scheduler.config)
        self.prediction_type: str = noise.config.prediction_type
        self.alphas = noise.alphas_cumprod.to(self.device)  # (T,), the share of signal's variance at each timestep

    @property
    def timesteps(self) -> int:
        return len(self.alphas)

    @property
    def resolution(self) -> int:
        """Side in pixels that the base was trained at."""
        return self.pipeline.unet.config.sample_size * self.pipeline.vae_scale_factor

    def modules(self) -> dict[str, nn.Module]:
        """What an adapter can hang on, by the component names that files use."""
        return {"unet": self.pipeline.unet, "text_encoder": self.pipeline.text_encoder}

    @torch.no_grad()
    def encode_prompt(self, prompts: list[str]) -> Tensor:
        """(B, 77, width) text states, cut and padded as the pipeline does."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(
            prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        return self.pipeline.text_encoder(ids.to(self.device))[0]

    @torch.no_grad()
    def encode_image(self, pictures: list[Image.Image]) -> Tensor:
        """(B, 4, h, w) scaled latents of RGB pictures of one size, whose sides divide by 8."""
        pixels = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device) / 127.5 - 1
        encoded = self.pipeline.vae.encode(x)
        # An autoencoder with a distribution gives its mean; the tiny codec gives the latents themselves.
        latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        return latents * self.pipeline.vae.config.scaling_factor

    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """sqrt(a) x + sqrt(1 - a) e (DDPM, arXiv:2006.11239, eq. 4). t: (B,) whole timesteps."""
        a = self.alphas[t][:, None, None, None]
        return a.sqrt() * latents + (1 - a).sqrt() * noise

    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the UNet should say: the noise, or v = sqrt(a) e - sqrt(1 - a) x (arXiv:2202.00512)."""
        if self.prediction_type == "epsilon":
            return noise
        a = self.alphas[t][:, None, None, None]
        return a.sqrt() * noise - (1 - a).sqrt() * latents

    def snr(self, t: Tensor) -> Tensor:
        """(B,) signal-to-noise ratio a / (1 - a)."""
        return self.alphas[t] / (1 - self.alphas[t])

    def predict(self, noisy: Tensor, t: Tensor, states: Tensor) -> Tensor:
        return self.pipeline.unet(noisy, t, encoder_hidden_states=states).sample

    def draw(
        self,
        prompt: str,
        negative_prompt: str,
        seed: int,
        steps: int,
        guidance: float,
        width: int,
        height: int,
        on_step: Callable[[int], None] | None = None,
    ) -> Image.Image:
        """One picture, the very pixels of `StableDiffusionPipeline` with a CPU generator of that seed.

        on_step is told the number of steps done and may raise to break off.
        """

        def after(pipeline, index, t, values):
            if on_step:
                on_step(index + 1)
            return values

        return self.pipeline(
            prompt,
            negative_prompt=negative_prompt or None,
            generator=torch.Generator("cpu").manual_seed(seed),
            num_inference_steps=steps,
            guidance_scale=guidance,
            width=width,
            height=height,
            callback_on_step_end=after,
        ).images[0]
