"""Stable Diffusion 1.x and its kin (the starter is one): a CLIP text encoder, a UNet, a picture codec.

Latents are (B, 4, h, w) float32 as the UNet sees them (scaled). Conditions are what the UNet is told besides, each
with B rows: here {"states": (B, 77, width)}.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
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


Conditions = dict[str, Tensor]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class StableDiffusion:
    """One loaded base model on the best device at hand, or on `device`.

    precision  "fp32", "bf16" or "fp16" of the frozen UNet and of its arithmetic; the codec stays in fp32 (in fp16 many
               give black pictures)
    """

    def __init__(self, folder: Path, precision: str = "fp32", device: torch.device | None = None):
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
        self.folder, self.dtype = folder, DTYPES[precision]
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.pipeline.to(self.device)
        self.pipeline.unet.to(self.dtype)
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

    @property
    def multiple(self) -> int:
        """What both sides of a training picture divide by, in pixels, so that the UNet halves them evenly."""
        return self.pipeline.vae_scale_factor * 2 ** (len(self.pipeline.unet.config.block_out_channels) - 1)

    def identity(self, *components: str) -> str:
        """Names these components' weights by file, size and time of change: another model, another identity."""
        files = sorted(file for part in components for file in (self.folder / part).glob("*") if file.is_file())
        facts = [f"{f.resolve()} {f.stat().st_size} {f.stat().st_mtime_ns}" for f in files]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    def arithmetic(self) -> AbstractContextManager:
        """Where the UNet runs: autocast to its precision, so that adapters and latents may stay in fp32."""
        return nullcontext() if self.dtype == torch.float32 else torch.autocast(self.device.type, self.dtype)

    def tokens(self, prompt: str) -> tuple[int, str]:
        """(tokens the text encoder is given, what is cut off because it reads no more)."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(prompt, add_special_tokens=False, truncation=False, verbose=False).input_ids
        room = tokenizer.model_max_length - 2  # the first and the last are taken
        return len(ids), tokenizer.decode(ids[room:]).strip()

    def encode_prompt(self, prompts: list[str]) -> Conditions:
        """What the UNet is told, cut and padded as the pipeline does. Keeps gradients where they are asked for."""
        tokenizer = self.pipeline.tokenizer
        ids = tokenizer(
            prompts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        ).input_ids
        return {"states": self.pipeline.text_encoder(ids.to(self.device))[0]}

    @torch.no_grad()
    def encode_image(self, pictures: list[Image.Image]) -> tuple[Tensor, Tensor | None]:
        """(B, 4, h, w) mean of the scaled latents, and their spread where the codec gives a distribution.

        pictures: RGB, of one size, whose sides divide by `multiple`. A latent is mean + spread x normal noise.
        """
        pixels = np.stack([np.asarray(picture.convert("RGB"), dtype=np.float32) for picture in pictures])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device) / 127.5 - 1
        encoded, scale = self.pipeline.vae.encode(x), self.pipeline.vae.config.scaling_factor
        if hasattr(encoded, "latent_dist"):
            return encoded.latent_dist.mean * scale, encoded.latent_dist.std * scale
        return encoded.latents * scale, None

    @torch.no_grad()
    def embed_pictures(self, pictures: list[Image.Image]) -> Tensor | None:
        """(N, width) unit vectors of the family's own image encoder; None when this base came without one."""
        encoder = getattr(self.pipeline, "image_encoder", None)
        if encoder is None or self.pipeline.feature_extractor is None:
            return None
        pixels = self.pipeline.feature_extractor(images=pictures, return_tensors="pt").pixel_values
        return torch.nn.functional.normalize(encoder(pixels.to(encoder.device)).image_embeds, dim=-1)

    def compile(self) -> None:
        """Compile the UNet block by block: the shapes of buckets come again and again, and each is compiled once."""
        unet = self.pipeline.unet
        for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
            block.compile(dynamic=False)

    def release(self, text: bool = True) -> None:
        """Send the codec, and the text encoder unless `text` is False, off the accelerator; drawing fetches them."""
        for module in (self.pipeline.vae, self.pipeline.text_encoder if text else None):
            if module is not None:
                module.to("cpu")
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def discard(self) -> None:
        """Give all memory back; nothing can be done with this copy any more."""
        for module in (*self.modules().values(), self.pipeline.vae):
            module.to("meta")

    def fetch(self) -> None:
        """Bring everything back to the device."""
        for module in (self.pipeline.vae, self.pipeline.text_encoder):
            module.to(self.device)

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

    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditions) -> Tensor:
        """(B, 4, h, w) float32: what the UNet says of noisy latents."""
        with self.arithmetic():
            return self.pipeline.unet(noisy, t, encoder_hidden_states=conditions["states"]).sample.float()

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

        self.fetch()
        with self.arithmetic():
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
