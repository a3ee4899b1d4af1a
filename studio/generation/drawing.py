"""Making pictures: a recipe becomes what hangs on the base, what the denoiser is told, noise, and pixels."""

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
from studio.basemodels.family import Conditions
from studio.datasets import open_picture
from studio.errors import DatasetError, GenerationError
from studio.generation import pace
from studio.generation.prompts import parse
from studio.generation.rack import rack_of
from studio.generation.recipe import Recipe
from studio.generation.sampling import sample
from studio.generation.schedulers import make_scheduler
from studio.server import zero_gpu

Progress = Callable[[int, int], None]
Look = Callable[[Tensor], None]  # (1, C, h, w): the clean latents that the denoiser has in mind
KEPT = 8  # encoded prompts of a base
SEAM = 2.0  # pixels over which a filled hole and the picture around it run into each other


def generate(recipe: Recipe, stop: threading.Event | None = None, progress: Progress | None = None) -> Image.Image:
    """The first picture of a recipe, on the shared base. See `generate_all`."""
    return next(generate_all(recipe.model_copy(update={"count": 1}), stop, progress))


def generate_all(
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
) -> Iterator[Image.Image]:
    """The recipe's pictures, one after the other: the first with its seed, the next with the seed above.

    progress  told (timesteps done, timesteps in all) of the picture that is drawn
    look      told the clean latents that the denoiser has in mind, after each timestep
    stop      breaks off within a picture

    Raises GenerationError when stopped, AdapterError when a file doesn't fit.
    """
    if zero_gpu.away():
        from studio.generation.lent import drawn

        yield from drawn(recipe)
        return
    base = load_base(recipe.base)
    for one in singles(recipe):
        with rack_of(base).showing(recipe.adapters) as step:
            picture = draw(base, one, stop, progress, look, step)
        yield picture  # outside, so that a run on the same base may go on between two pictures


def singles(recipe: Recipe) -> list[Recipe]:
    """A recipe of one picture for each of the recipe's pictures, which draws the very same pixels."""
    return [recipe.model_copy(update={"seed": recipe.seed + number, "count": 1}) for number in range(recipe.count)]


def draw(
    base: Family,
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
    before: Progress | None = None,
) -> Image.Image:
    """The recipe's first picture on `base` as it is, with whatever hangs on it: the pixels of diffusers' pipelines.

    before: told (timesteps done, in all) before each. Previews of a run and `generate` share this.
    """
    return draw_rows(base, recipe, 1, stop, progress, look, before)[0]


@torch.no_grad()
def draw_rows(
    base: Family,
    recipe: Recipe,
    rows: int,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    look: Look | None = None,
    before: Progress | None = None,
) -> list[Image.Image]:
    """The same picture in each of `rows` rows of one batch, for what hangs on the base to treat apart. As `draw`."""
    began = time.perf_counter()
    base.fetch()
    generators = [devices.generator(recipe.seed) for _ in range(rows)]
    wanted, unwanted = conditions(base, recipe, rows)
    scheduler = make_scheduler(base.scheduler(), recipe.scheduler)
    base.set_steps(scheduler, recipe.steps, recipe.width, recipe.height)
    total, skipped = len(scheduler.timesteps), 0
    source = _opened(recipe.source, recipe, "RGB") if recipe.source else None
    mask = _opened(recipe.mask, recipe, "L") if source and recipe.mask else None
    clean = None if source is None else torch.cat([_encoded(base, source, generator) for generator in generators])
    noise = base.noise(generators, recipe.width, recipe.height)
    if source is not None:
        skipped = _skipped(scheduler, recipe)
    if clean is not None and (skipped or mask is None):
        latents = _noised(scheduler, clean, noise, skipped)
    else:
        latents = noise * getattr(scheduler, "init_noise_sigma", 1.0)

    def on_step(done: int, mind: Tensor) -> None:
        if stop is not None and stop.is_set():
            raise GenerationError("Stopped.")
        if progress:
            progress(done - skipped, total - skipped)
        if look:
            look(mind)

    def step_begins(done: int) -> None:
        if before:
            before(done - skipped, total - skipped)

    latents = sample(
        base, scheduler, latents, wanted, unwanted, recipe.guidance, generators, on_step, skipped=skipped,
        before=step_begins, hold=None if clean is None or mask is None else _holding(scheduler, clean, noise, mask),
    )  # fmt: skip
    pictures = base.decode(latents)
    pace.learn(recipe, (time.perf_counter() - began) / rows)
    if source is None or mask is None:
        return pictures
    return [_pasted(source, picture, mask) for picture in pictures]


Told = tuple[Conditions, Conditions | None]
_told: "WeakKeyDictionary[Family, OrderedDict[tuple, Told]]" = WeakKeyDictionary()  # the latest of each base


def conditions(base: Family, recipe: Recipe, rows: int = 1) -> Told:
    """What the denoiser is told of a recipe's prompts: (wanted, unwanted), `rows` rows each and equally long.

    The words are not read again while they and what acts on the text encoders stay the same.
    """
    by = [active_state(part) for name, part in base.modules().items() if name != base.denoiser]
    if None in by:
        return _encoded_words(base, recipe, rows)
    key = (recipe.prompt, recipe.negative_prompt, recipe.guidance > 1, recipe.clip_skip, rows, *by)
    kept = _told.setdefault(base, OrderedDict())
    if key not in kept:
        kept[key] = _encoded_words(base, recipe, rows)
    kept.move_to_end(key)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return kept[key]


def _encoded_words(base: Family, recipe: Recipe, rows: int) -> Told:
    wanted = parse(recipe.prompt)
    if recipe.guidance <= 1 or base.guides_itself:
        return base.encode_parts([wanted] * rows, clip_skip=recipe.clip_skip, chunks=base.chunks(wanted)), None
    unwanted = parse(recipe.negative_prompt)
    chunks = max(base.chunks(wanted), base.chunks(unwanted))
    return (
        base.encode_parts([wanted] * rows, clip_skip=recipe.clip_skip, chunks=chunks),
        base.encode_parts([unwanted] * rows, True, recipe.clip_skip, chunks),
    )


# From a picture -----------------------------------------------------------------------------------------------------


def _opened(path: Path, recipe: Recipe, mode: str) -> Image.Image:
    """The picture cut to the recipe's shape and resized to its size."""
    try:
        picture = open_picture(path)
    except DatasetError as error:
        raise GenerationError(str(error)) from error
    return ImageOps.fit(picture.convert(mode), (recipe.width, recipe.height), Image.Resampling.LANCZOS)


def _skipped(scheduler: Any, recipe: Recipe) -> int:
    """Timesteps that are left out: all but the last `denoising` share, as diffusers' pipelines count."""
    kept = min(int(recipe.steps * recipe.denoising), recipe.steps)
    if not kept:
        raise GenerationError("Nothing would be drawn: raise the denoising or the steps.")
    return max(recipe.steps - kept, 0) * scheduler.order


def _encoded(base: Family, picture: Image.Image, generator: torch.Generator) -> Tensor:
    mean, spread = base.encode_image([picture])
    if spread is None:
        return mean
    return mean + spread * torch.randn(spread.shape, generator=generator).to(spread)


def _noised(scheduler: Any, clean: Tensor, noise: Tensor, index: int) -> Tensor:
    """As noisy as the timestep at `index` is; clean behind the last one."""
    if index >= len(scheduler.timesteps):
        return clean
    t = scheduler.timesteps[index : index + 1]
    return (
        scheduler.add_noise(clean, noise, t)
        if hasattr(scheduler, "add_noise")
        else scheduler.scale_noise(clean, t, noise)
    )


def _holding(scheduler: Any, clean: Tensor, noise: Tensor, mask: Image.Image) -> Callable[[Tensor, int], Tensor]:
    """Around the hole, the latents of the source at the same noise: as diffusers fills holes with an ordinary UNet."""
    hole = torch.from_numpy(np.asarray(mask, np.float32) / 255 >= 0.5).float()[None, None]
    hole = torch.nn.functional.interpolate(hole, clean.shape[2:]).to(clean)

    def hold(latents: Tensor, index: int) -> Tensor:
        return (1 - hole) * _noised(scheduler, clean, noise, index) + hole * latents

    return hold


def _pasted(source: Image.Image, drawn: Image.Image, mask: Image.Image) -> Image.Image:
    """The drawn hole in the untouched source; the codec would change the rest a little."""
    hole = mask.point(lambda value: 255 * (value >= 128)).filter(ImageFilter.GaussianBlur(SEAM))
    return Image.composite(drawn, source, hole)
