"""Drawing a recipe on a loaded base: conditioning, noise, denoising, decoding."""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image, ImageFilter, ImageOps
from torch import Tensor

from studio import devices
from studio.adapters.layer_adapters import active_state
from studio.basemodels import Family, load_base
from studio.basemodels.family import Conditioning
from studio.basemodels.token_counter import MAX_CHUNKS
from studio.datasets import open_image
from studio.errors import DatasetError, GenerationError
from studio.generation import timing
from studio.generation.adapter_cache import cache_of
from studio.generation.prompts import Part, parse, too_many_chunks
from studio.generation.recipe import Recipe
from studio.generation.sampling import sample
from studio.generation.schedulers import make_scheduler
from studio.server.owners import owner

Progress = Callable[[int, int], None]
PreviewCallback = Callable[[Tensor], None]  # called with (1, C, h, w): the predicted clean latents
KEPT = 8  # encoded prompts of a base
SEAM = 2.0  # pixels over which a filled hole and the image around it run into each other


def draw_all(
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    preview: PreviewCallback | None = None,
) -> Iterator[Image.Image]:
    """The recipe's images on the shared base in this process; see `dispatch.generate_all`."""
    base = load_base(recipe.base)
    for one in singles(recipe):
        with cache_of(base).active(recipe.adapters) as step:
            image = draw(base, one, stop, progress, preview, step)
        yield image  # outside, so that a run on the same base may go on between two images


def singles(recipe: Recipe) -> list[Recipe]:
    """A recipe of one image for each of the recipe's images, which draws the very same pixels."""
    return [recipe.model_copy(update={"seed": recipe.seed + number, "count": 1}) for number in range(recipe.count)]


def draw(
    base: Family,
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    preview: PreviewCallback | None = None,
    before: Progress | None = None,
) -> Image.Image:
    """The recipe's first image on `base` with the adapters that are active on it: the pixels of diffusers' pipelines.

    before: called with (timesteps done, in all) before each. Previews of a run and `generate` share this.
    """
    return draw_rows(base, recipe, 1, stop, progress, preview, before)[0]


@torch.no_grad()
def draw_rows(
    base: Family,
    recipe: Recipe,
    rows: int,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    preview: PreviewCallback | None = None,
    before: Progress | None = None,
) -> list[Image.Image]:
    """The same image in each of `rows` rows of one batch, for adapters that act per row. As `draw`."""
    began = time.perf_counter()
    base.onload()
    generators = [devices.generator(recipe.seed) for _ in range(rows)]
    cond, uncond = encode_prompts(base, recipe, rows)
    scheduler = make_scheduler(base.scheduler(), recipe.scheduler)
    base.set_steps(scheduler, recipe.steps, recipe.width, recipe.height)
    total, skipped = len(scheduler.timesteps), 0
    source = _opened(recipe.source, recipe, "RGB") if recipe.source else None
    mask = _opened(recipe.mask, recipe, "L") if source and recipe.mask else None
    source_latents = (
        None if source is None else torch.cat([_encode_image(base, source, generator) for generator in generators])
    )
    noise = base.noise(generators, recipe.width, recipe.height)
    if source is not None:
        skipped = _skipped(scheduler, recipe)
    if source_latents is not None and (skipped or mask is None):
        latents = _noised(scheduler, source_latents, noise, skipped)
    else:
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)

    def on_step(done: int, pred_x0: Tensor) -> None:
        if stop is not None and stop.is_set():
            raise GenerationError("Stopped.")
        if progress:
            progress(done - skipped, total - skipped)
        if preview:
            preview(pred_x0)

    def step_begins(done: int) -> None:
        if before:
            before(done - skipped, total - skipped)

    blend = None if source_latents is None or mask is None else _blending(scheduler, source_latents, noise, mask)
    latents = sample(
        base,
        scheduler,
        latents,
        cond,
        uncond,
        recipe.guidance,
        generators,
        on_step,
        rescale=recipe.guidance_rescale,
        skipped=skipped,
        before=step_begins,
        blend_callback=blend,
    )
    images = base.decode(latents)
    timing.record(recipe, (time.perf_counter() - began) / rows)
    if source is None or mask is None:
        return images
    return [_pasted(source, image, mask) for image in images]


PromptPair = tuple[Conditioning, Conditioning | None]  # (cond, uncond)
_encoded: "WeakKeyDictionary[Family, OrderedDict[tuple, PromptPair]]" = WeakKeyDictionary()  # the latest of each base


@torch.no_grad()
def encode_prompts(base: Family, recipe: Recipe, rows: int = 1) -> PromptPair:
    """The conditioning of a recipe's prompts: (cond, uncond), `rows` rows each and equally long.

    It is cached while the prompts and the adapters on the text encoders stay the same, for each visitor alone: time
    would tell whether somebody else drew the same.
    """
    by = [active_state(part) for name, part in base.modules().items() if name != base.denoiser]
    if None in by:
        return _encode(base, recipe, rows)
    key = (recipe.prompt, recipe.negative_prompt, recipe.guidance > 1, recipe.clip_skip, rows, owner(), *by)
    kept = _encoded.setdefault(base, OrderedDict())
    if key not in kept:
        kept[key] = _encode(base, recipe, rows)
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return kept[key]


def _encode(base: Family, recipe: Recipe, rows: int) -> PromptPair:
    prompt = parse(recipe.prompt)
    if recipe.guidance <= 1 or base.guidance_embedded:
        return base.encode_parts([prompt] * rows, clip_skip=recipe.clip_skip, chunks=_chunks(base, prompt)), None
    negative = parse(recipe.negative_prompt)
    chunks = max(_chunks(base, prompt), _chunks(base, negative))
    return (
        base.encode_parts([prompt] * rows, clip_skip=recipe.clip_skip, chunks=chunks),
        base.encode_parts([negative] * rows, True, recipe.clip_skip, chunks),
    )


def _chunks(base: Family, parts: list[Part]) -> int:
    """How many chunks of tokens a prompt makes. Raises GenerationError for more than MAX_CHUNKS."""
    count = base.chunks(parts)
    if count > MAX_CHUNKS:
        raise GenerationError(too_many_chunks(count))
    return count


# From an image ------------------------------------------------------------------------------------------------------


def _opened(path: Path, recipe: Recipe, mode: str) -> Image.Image:
    """The image cut to the recipe's shape and resized to its size."""
    try:
        image = open_image(path)
    except DatasetError as error:
        raise GenerationError(str(error)) from error
    return ImageOps.fit(image.convert(mode), (recipe.width, recipe.height), Image.Resampling.LANCZOS)


def _skipped(scheduler: Any, recipe: Recipe) -> int:
    """Timesteps that are left out: all but the last `denoising` share, as diffusers' pipelines count."""
    kept = min(int(recipe.steps * recipe.denoising), recipe.steps)
    if not kept:
        raise GenerationError("Nothing would change: raise the denoising or the steps.")
    return max(recipe.steps - kept, 0) * scheduler.order


def _encode_image(base: Family, image: Image.Image, generator: torch.Generator) -> Tensor:
    mean, spread = base.encode_image([image])
    if spread is None:
        return mean
    return mean + spread * torch.randn(spread.shape, generator=generator).to(spread)


def _noised(scheduler: Any, source_latents: Tensor, noise: Tensor, index: int) -> Tensor:
    """As noisy as the timestep at `index` is; clean behind the last one."""
    if index >= len(scheduler.timesteps):
        return source_latents
    t = scheduler.timesteps[index : index + 1]
    return (
        scheduler.add_noise(source_latents, noise, t)
        if hasattr(scheduler, "add_noise")
        else scheduler.scale_noise(source_latents, t, noise)
    )


def _blending(
    scheduler: Any, source_latents: Tensor, noise: Tensor, mask: Image.Image
) -> Callable[[Tensor, int], Tensor]:
    """Around the hole, the latents of the source at the same noise: as diffusers fills holes with an ordinary UNet."""
    hole = torch.from_numpy(np.asarray(mask, np.float32) / 255 >= 0.5).float()[None, None]
    hole = torch.nn.functional.interpolate(hole, source_latents.shape[2:]).to(source_latents)

    def blend(latents: Tensor, index: int) -> Tensor:
        return (1 - hole) * _noised(scheduler, source_latents, noise, index) + hole * latents

    return blend


def _pasted(source: Image.Image, drawn: Image.Image, mask: Image.Image) -> Image.Image:
    """The drawn hole in the untouched source; the VAE would change the rest a little."""
    hole = mask.point(lambda value: 255 * (value >= 128)).filter(ImageFilter.GaussianBlur(SEAM))
    return Image.composite(drawn, source, hole)
