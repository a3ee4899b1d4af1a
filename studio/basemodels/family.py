"""What every family of base models can do: the interface that training, generation and captioning see.

Shapes, for B images: latents and noise are (B, C, h, w) float32 on the device, scaled as the denoiser sees them, the
same whether the denoiser works on them as they are or cut into patches. Conditioning is what the denoiser gets
besides, a dict of tensors with B rows each. t is the noise level in the units of the family's scheduler, (B,) or one
number: whole timesteps, or the share of noise times 1000 for flow matching.

A new family is one file: a class that names `pipeline_class` and its parts, and defines `encode_parts` and `predict`
(`encode_texts` for flows); its noise comes from `Diffusion` or `Flow`.
"""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn

from studio import devices
from studio.adapters.layer_adapters import move
from studio.basemodels.choice import BaseChoice
from studio.basemodels.clip_prompts import Parts
from studio.basemodels.offloading import offload_blocks
from studio.basemodels.open_pipeline import open_pipeline
from studio.basemodels.quantising import in_one_precision, quantisation
from studio.basemodels.sizes import refuse_size
from studio.basemodels.token_counter import TokenCounter
from studio.basemodels.vae import vae_files
from studio.basemodels.vram import estimate, placement
from studio.basemodels.weights import file_hash
from studio.errors import BaseModelError, lacking, out_of_memory

Conditioning = dict[str, Tensor]
Size = tuple[int, int]  # width, height in pixels
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Family(ABC):
    """One loaded base model on the best device at hand, or on `device`.

    precision  "fp32", "bf16" or "fp16" of the frozen denoiser and of its arithmetic; the VAE stays in fp32 (in fp16
               many give black images)

    Raises BaseModelError when the folder can't be loaded.
    """

    title: ClassVar[str]  # as people call the family
    pipeline_class: ClassVar[str]  # diffusers' own
    denoiser: ClassVar[str] = "unet"  # its component
    text_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)
    trained_encoders: ClassVar[tuple[str, ...]] = ("text_encoder",)  # those that adapters are usually trained on
    half_precision_encoders: ClassVar[
        tuple[str, ...]
    ] = ()  # those too large for fp32: bf16 when the denoiser is not in fp32
    pipeline_kwargs: ClassVar[dict[str, Any]] = {}  # further arguments of the pipeline
    optional: ClassVar[tuple[str, ...]] = ()  # components that a folder may lack
    timesteps: int = 1000
    prediction_type: str  # "epsilon", "v_prediction" or "flow"

    def __init__(
        self,
        folder: Path,
        precision: str = "fp32",
        device: torch.device | None = None,
        choice: BaseChoice | None = None,
    ):
        self.folder, self.dtype = folder, DTYPES[precision]
        self.choice = choice or BaseChoice(name=str(folder))
        self.device = device or devices.best_device()
        if self.choice.prediction_type and getattr(type(self), "prediction_type", "") == "flow":
            raise BaseModelError(
                f"{self.title} uses flow matching and predicts nothing else: leave prediction_type out."
            )
        self._refuse_text_length()
        half = torch.bfloat16 if self.dtype != torch.float32 else torch.float32
        dtypes = {
            "default": torch.float32,
            self.denoiser: self.dtype,
            **dict.fromkeys(self.half_precision_encoders, half),
        }
        try:
            self.pipeline = self._opened(folder, dtypes)
        except (OSError, ValueError, SafetensorError) as error:
            if lacking(error):
                raise
            raise BaseModelError(f"The base model in {folder.name} can't be loaded: {error}".splitlines()[0]) from error
        self.pipeline.set_progress_bar_config(disable=True)
        self._place()
        for module in (*self.modules().values(), self.pipeline.vae):
            module.requires_grad_(False).eval()
        if self.choice.quantise:
            in_one_precision(self.model, self.dtype)

    def _place(self) -> None:
        """Everything to the device; a denoiser that is fetched block by block stays behind."""
        if not self.choice.offload:
            self.pipeline.to(self.device)
            return
        for module in self._beside():
            module.to(self.device)
        offload_blocks(self.model, self.device)

    def _opened(self, place: Path, dtypes: dict[str, torch.dtype]) -> Any:
        """The pipeline of diffusers."""
        packing = quantisation(self.choice.quantise, self.device, self.dtype) if self.choice.quantise else None
        return open_pipeline(type(self), place, self.choice, dtypes, packing)

    # What it is made of ----------------------------------------------------------------------------------------------

    @property
    def model(self) -> Any:
        """The denoiser, a module of diffusers."""
        return getattr(self.pipeline, self.denoiser)

    def modules(self) -> dict[str, nn.Module]:
        """The modules that an adapter can be attached to, by the component names that files use; the denoiser first."""
        parts = {name: getattr(self.pipeline, name, None) for name in (self.denoiser, *self.text_encoders)}
        return {name: part for name, part in parts.items() if part is not None}

    @property
    def resolution(self) -> int:
        """Side in pixels that the base was trained at, or that the choice sets."""
        return self.choice.resolution or self.native_resolution

    @property
    def native_resolution(self) -> int:
        """By the base's own settings."""
        return self.model.config.sample_size * self.pipeline.vae_scale_factor

    @classmethod
    @abstractmethod
    def size_multiple(cls, config: Mapping[str, Any], scale: int) -> tuple[int, int]:
        """What both sides of an image divide by, in pixels: (so that the denoiser divides them evenly, as in training;
        at the least, as in drawing). config: the denoiser's. scale: pixels along a latent.
        """

    @property
    def multiple(self) -> int:
        """What both sides of a training image divide by, in pixels, so that the denoiser divides them evenly."""
        return self.size_multiple(self.model.config, self.pipeline.vae_scale_factor)[0]

    @property
    def channels(self) -> int:
        """C of the latents."""
        return self.model.config.in_channels

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, h, w) of an image of so many pixels. Raises BaseModelError where the denoiser can't have that size."""
        scale = self.pipeline.vae_scale_factor
        refuse_size(self.title, self.size_multiple(self.model.config, scale)[1], width, height)
        return self.channels, height // scale, width // scale

    def identity(self, *components: str) -> str:
        """Names these components' files by their content: another model, another identity, wherever it lies."""
        inside = sorted(file for part in components for file in (self.folder / part).glob("*") if file.is_file())
        files = inside if self.folder.is_dir() else [self.folder]
        if "vae" in components:
            files = [*files, *vae_files(self.choice.vae)]
        facts = [f"{f.parent.name}/{f.name} {file_hash(f)}" for f in files]
        return hashlib.sha256("\n".join(facts).encode()).hexdigest()

    @property
    def text_parts(self) -> tuple[str, ...]:
        """The components that decide what a prompt becomes, for `identity`."""
        return (*self.text_encoders, *(name.replace("text_encoder", "tokenizer") for name in self.text_encoders))

    # Memory ----------------------------------------------------------------------------------------------------------

    def arithmetic(self) -> AbstractContextManager:
        """Where the denoiser runs: autocast to its precision, so that adapters and latents may stay in fp32."""
        return devices.autocast(self.device, self.dtype)

    def compile(self) -> None:
        """Compile the denoiser block by block: the shapes of buckets come again and again, each is compiled once."""
        for part in self.model.children():
            for block in part if isinstance(part, nn.ModuleList) else ():
                block.compile(dynamic=False)

    def checkpoint_gradients(self, wanted: bool = True) -> None:
        """Whether to keep less for the backward pass and compute it again there."""
        if wanted:
            self.model.enable_gradient_checkpointing()
        else:
            self.model.disable_gradient_checkpointing()

    def placed(self) -> str:
        """Where it runs, in which precision, and how large it is: one line."""
        precision = next(name for name, dtype in DTYPES.items() if dtype == self.dtype)
        size = estimate(self.folder, precision, self.choice.quantise)
        return f"{self.title}. {placement(self.device, precision, self.choice)} {size}"

    def _tiled(self, work: Callable[[], Any]) -> Any:
        """Work of the VAE; when memory runs out, again one image at a time and in tiles."""
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        devices.empty_cache()  # after the except block: the error's frames hold the memory
        self.pipeline.vae.enable_slicing()
        self.pipeline.vae.enable_tiling()
        return work()

    def _beside(self, text: bool = True) -> list[nn.Module]:
        """The VAE, and the text encoders unless `text` is False."""
        texts = [part for name, part in self.modules().items() if name != self.denoiser] if text else []
        return [self.pipeline.vae, *texts]

    def offload_encoders(self, text: bool = True) -> None:
        """Move the VAE, and the text encoders unless `text` is False, to the CPU; `onload` brings them back."""
        for module in self._beside(text):
            move(module, "cpu")
        devices.empty_cache()

    def offload(self) -> None:
        """Move all that can be moved to the CPU, to make room for another model; `onload` brings it back."""
        if self._moves:
            move(self.model, "cpu")
        self.offload_encoders()

    def onload(self) -> None:
        """Move everything back to the device."""
        for module in (*([self.model] if self._moves else []), *self._beside()):
            if next(module.parameters()).device.type != self.device.type:  # asking each layer takes milliseconds
                move(module, self.device)

    @property
    def _moves(self) -> bool:
        """A denoiser in few bits stays where it was packed; one that is fetched block by block is away already."""
        return not (self.choice.quantise or self.choice.offload)

    # Words -----------------------------------------------------------------------------------------------------------

    reads_on: ClassVar[bool] = False  # whether a long text is read in chunks, each as long as the encoder reads at once
    text_lengths: ClassVar[tuple[int, int]] = (0, 0)  # (usual, most) tokens of an encoder that pads to a length

    @property
    def text_length(self) -> int:
        """Tokens that a text is padded or cut to, by the choice or as the pipeline has it; 0 for CLIPs alone."""
        return self.choice.max_sequence_length or self.text_lengths[0]

    def _refuse_text_length(self) -> None:
        wanted, (_, most) = self.choice.max_sequence_length, self.text_lengths
        if wanted and not most:
            raise BaseModelError(f"{self.title} reads texts in chunks of 75 tokens: leave max_sequence_length out.")
        if wanted and wanted > most:
            raise BaseModelError(
                f"{self.title} reads at most {most} tokens: set max_sequence_length to {most} or less."
            )

    @classmethod
    def counter(cls, tokenizers: Callable[[str], Any], length: int | None = None) -> TokenCounter:
        """Of the tokens that a caption is read in, by the encoder that reads most of it.

        tokenizers: gives the one of a component, None where there is none. length: as `BaseChoice` sets it.
        """
        clip = tokenizers("tokenizer")
        return TokenCounter(clip, clip.model_max_length - 2, cls.reads_on)  # the first and the last are taken

    def tokens(self, prompt: str, most: int = 0) -> tuple[int, str]:
        """(tokens the text encoder is given, what is cut off because no more is read). most: as in `encode_parts`."""
        return self._counter()(prompt, most)

    def _counter(self) -> TokenCounter:
        return self.counter(lambda name: getattr(self.pipeline, name, None), self.choice.max_sequence_length)

    def chunks(self, parts: Parts, most: int = 0) -> int:
        """How many times the text encoder's length a weighted prompt takes; 1 where it is cut at one."""
        return 1

    @abstractmethod
    def encode_parts(
        self, prompts: Sequence[Parts], negative: bool = False, clip_skip: int = 1, chunks: int = 1, most: int = 0
    ) -> Conditioning:
        """The conditioning of weighted prompts, padded to `chunks`; training, validation, previews and images share it.

        Keeps gradients where they are enabled.

        negative: they are negative prompts, which some pipelines encode differently where they are empty.
        clip_skip: 1 is the encoder's own output, 2 that of the layer before, as A1111 counts. most: tokens that are
        read of each, 0 for all. Weights and both are left out of account where the encoder is not a CLIP.
        """

    def encode_prompt(self, prompts: Sequence[str], clip_skip: int = 1, most: int = 0) -> Conditioning:
        """The conditioning of texts as they are written, without weights, each in as many chunks as it takes."""
        parts, most = [[(prompt, 1.0)] for prompt in prompts], self._counter().limit(most)
        counts = [self.chunks(one, most) for one in parts]
        rows: list[Conditioning] = [{} for _ in parts]
        for chunks in sorted(set(counts)):
            places = [place for place, count in enumerate(counts) if count == chunks]
            found = self.encode_parts([parts[place] for place in places], False, clip_skip, chunks, most)
            if len(places) == len(parts):
                return found
            for row, place in enumerate(places):
                rows[place] = {name: value[row : row + 1] for name, value in found.items()}
        return self.join(rows)

    def join(self, rows: Sequence[Conditioning]) -> Conditioning:
        """One conditioning of several, whose rows stand one below the other."""
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def size_conditioning(self, frames: list[tuple[Size, Size, Size]]) -> Conditioning:
        """SDXL's conditioning on how each image was cropped: (size before, left and top of the crop, size after).

        Empty for families without it; where it is missing, SDXL takes each image to be uncropped.
        """
        return {}

    @classmethod
    def embeds_guidance(cls, config: Mapping[str, Any]) -> bool:
        """Whether guidance is an input of the denoiser (distilled), in one prediction without a negative prompt.

        config: the denoiser's.
        """
        return False

    @property
    def guidance_embedded(self) -> bool:
        """See `embeds_guidance`."""
        return self.embeds_guidance(self.model.config)

    def guided(self, conditions: Conditioning, guidance: float) -> Conditioning:
        """The conditions with the guidance among them, for families with embedded guidance."""
        return conditions

    # Images --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def encode_image(self, images: list[Image.Image]) -> tuple[Tensor, Tensor | None]:
        """(B, C, h, w) mean of the scaled latents, and their spread where the VAE gives a distribution.

        images: RGB, of one size, whose sides divide by `multiple`. A latent is mean + spread x normal noise.
        """
        pixels = np.stack([np.asarray(image.convert("RGB"), dtype=np.float32) for image in images])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device) / 127.5 - 1
        scale, shift = self._scaling
        encoded = self._tiled(lambda: self.pipeline.vae.encode(x))
        if hasattr(encoded, "latent_dist"):
            return (encoded.latent_dist.mean - shift) * scale, encoded.latent_dist.std * scale
        return (encoded.latents - shift) * scale, None

    @torch.no_grad()
    def decode(self, latents: Tensor) -> list[Image.Image]:
        """The images of scaled latents (B, C, h, w)."""
        scale, shift = self._scaling
        pixels = self._tiled(lambda: self.pipeline.vae.decode(latents / scale + shift).sample)
        return self.pipeline.image_processor.postprocess(pixels, output_type="pil")

    @property
    def _scaling(self) -> tuple[float, float]:
        config = self.pipeline.vae.config
        return config.scaling_factor, getattr(config, "shift_factor", None) or 0.0

    @torch.no_grad()
    def embed_images(self, images: list[Image.Image]) -> Tensor | None:
        """(N, width) unit vectors of the family's own image encoder; None when this base came without one."""
        encoder = getattr(self.pipeline, "image_encoder", None)
        if encoder is None or self.pipeline.feature_extractor is None:
            return None
        pixels = self.pipeline.feature_extractor(images=images, return_tensors="pt").pixel_values
        return torch.nn.functional.normalize(encoder(pixels.to(encoder.device)).image_embeds, dim=-1)

    # Noise -----------------------------------------------------------------------------------------------------------

    usual_timesteps: ClassVar[str] = "uniform"  # the distribution of shares that the family is trained with

    @abstractmethod
    def times(self, shares: Tensor, shift: float | None = None) -> Tensor:
        """(B,) t at these shares of the noise schedule, 0 (no noise) to 1 (noise alone).

        shift: more than 1 puts more of the schedule into much noise, where flows are followed; None is the base's own.
        """

    def shift_at(self, width: int, height: int) -> float | None:
        """The shift at an image's size in pixels; None where there is no shift."""
        return None

    @abstractmethod
    def shares(self, t: Tensor) -> Tensor:
        """(B,) t as shares of the noise schedule, after any shift: `times` the other way round."""

    @abstractmethod
    def noise_to_signal(self, t: Tensor) -> Tensor:
        """(B,) amplitude of the noise over that of the image."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Latents as noisy as t says."""

    @abstractmethod
    def target(self, latents: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the denoiser should predict for them."""

    def snr(self, t: Tensor) -> Tensor | None:
        """(B,) signal-to-noise ratio of variances, None where loss weights by it make no sense."""
        return None

    @abstractmethod
    def predict(self, noisy: Tensor, t: Tensor, conditions: Conditioning) -> Tensor:
        """(B, C, h, w) float32: the denoiser's output for noisy latents."""

    @abstractmethod
    def pred_x0(self, noisy: Tensor, model_output: Tensor, t: Tensor) -> Tensor:
        """The clean latents (x0) that this output predicts from the noisy ones."""

    # Drawing, in steps that `generation` takes one by one ------------------------------------------------------------

    def scheduler(self) -> Any:
        """A fresh one of the kind that this base came with."""
        return copy.deepcopy(self.pipeline.scheduler)

    def set_steps(self, scheduler: Any, steps: int, width: int, height: int) -> None:
        """Spread `steps` over the noise; families that shift it by the image's size do that here."""
        scheduler.set_timesteps(steps, device=self.device)

    def noise(self, generators: list[torch.Generator], width: int, height: int) -> Tensor:
        """(B, C, h, w) normal noise, an image from each generator."""
        shape = (1, *self.latent_shape(width, height))
        return torch.cat([torch.randn(shape, generator=g, device=g.device) for g in generators]).to(self.device)
