"""Previews: what the adapter draws as it is now, through the very code that draws everywhere else."""

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from studio.basemodels import Family
from studio.generation import Recipe, draw, save_image
from studio.generation.recipe import SIDES
from studio.training.config import RunConfig
from studio.training.events import Preview
from studio.training.preview_prompts import prompt_and_strength
from studio.training.train_step import TrainStep


def draw_previews(
    step: int, base: Family, train_step: TrainStep, config: RunConfig, folder: Path
) -> Iterator[tuple[Preview, int, Image.Image]]:
    """(event, number, image) for each prompt, saved with its recipe inside."""
    wanted, side = config.preview, side_of(base)
    for number, line in enumerate(line for line in wanted.prompts if line.strip()):
        prompt, strength = prompt_and_strength(line)
        recipe = Recipe(
            prompt=prompt,
            seed=wanted.seed,
            steps=wanted.steps,
            guidance=wanted.guidance,
            width=side,
            height=side,
            guidance_rescale=wanted.guidance_rescale,
            clip_skip=config.data.clip_skip,
            base=config.base,
            adapters=((folder / "adapter.safetensors", strength),),
        )
        train_step.strength = strength
        try:
            image = draw(base, recipe)
        finally:
            train_step.strength = 1.0
        file = save_image(image, recipe, folder / "previews", f"{step:06d}-{number}.png")
        yield Preview(step, line.strip(), file.relative_to(folder).as_posix()), number, image


def side_of(base: Family) -> int:
    """Side in pixels of what a run draws: that of the base, as far as a recipe and the denoiser allow it."""
    least, most = SIDES
    return max(least, min(most, base.resolution) // base.multiple * base.multiple)
