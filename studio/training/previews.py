"""Previews: what the adapter draws as it is now, through the very code that draws everywhere else."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from studio.basemodels import Family
from studio.generation import Recipe, draw, save_image
from studio.generation.recipe import SIDES
from studio.training.config import RunConfig
from studio.training.events import Preview
from studio.training.preview_prompts import read_preview
from studio.training.train_step import TrainStep


def draw_previews(
    step: int, base: Family, train_step: TrainStep, config: RunConfig, folder: Path
) -> Iterator[tuple[Preview, int, Image.Image]]:
    """(event, number, image) for each prompt, saved with its recipe inside."""
    for number, line in enumerate(line for line in config.preview.prompts if line.strip()):
        recipe, strength = recipe_of(line, base, config, folder)
        train_step.strength = strength
        try:
            image = draw(base, recipe)
        finally:
            train_step.strength = 1.0
        file = save_image(image, recipe, folder / "previews", f"{step:06d}-{number}.png")
        yield Preview(step, line.strip(), file.relative_to(folder).as_posix()), number, image


def recipe_of(line: str, base: Family, config: RunConfig, folder: Path) -> tuple[Recipe, float]:
    """(what a line of `preview.prompts` draws, the adapter's strength). Sizes are cut to what the denoiser allows."""
    wanted, asked, side = config.preview, read_preview(line), side_of(base)
    width, height = (side if size is None else fitting(size, base) for size in (asked.width, asked.height))
    usual = {"seed": wanted.seed, "steps": wanted.steps, "guidance": wanted.guidance}
    recipe = Recipe(
        prompt=asked.prompt,
        width=width,
        height=height,
        guidance_rescale=wanted.guidance_rescale,
        clip_skip=config.data.clip_skip,
        base=config.base,
        adapters=((folder / "adapter.safetensors", asked.strength),),
        **usual | asked.fields(),
    )
    return recipe, asked.strength


def fitting(size: int, base: Family) -> int:
    """The side in pixels nearest below `size` that a recipe and the denoiser allow."""
    least, most = SIDES
    return max(least, min(most, size) // base.multiple * base.multiple)


def side_of(base: Family) -> int:
    """Side in pixels of what a run draws: that of the base, as far as a recipe and the denoiser allow it."""
    return fitting(base.resolution, base)
