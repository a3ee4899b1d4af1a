"""Previews: what the adapter draws as it is now, through the very code that draws everywhere else."""

import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from studio.basemodels import Family
from studio.generation import Recipe, draw, save_image
from studio.generation.recipe import SIDES
from studio.training.config import RunConfig
from studio.training.events import Preview
from studio.training.learner import Learner


def draw_previews(
    step: int, base: Family, learner: Learner, config: RunConfig, folder: Path
) -> Iterator[tuple[Preview, int, Image.Image]]:
    """(event, number, picture) for each prompt, saved with its recipe inside."""
    wanted, side = config.preview, side_of(base)
    for number, line in enumerate(line for line in wanted.prompts if line.strip()):
        prompt, strength = prompt_and_strength(line)
        recipe = Recipe(
            prompt=prompt, seed=wanted.seed, steps=wanted.steps, guidance=wanted.guidance, width=side, height=side,
            base=config.base, adapters=((folder / "adapter.safetensors", strength),),
        )  # fmt: skip
        learner.strength = strength
        try:
            picture = draw(base, recipe)
        finally:
            learner.strength = 1.0
        file = save_image(picture, recipe, folder / "previews", f"{step:06d}-{number}.png")
        yield Preview(step, line.strip(), file.relative_to(folder).as_posix()), number, picture


def side_of(base: Family) -> int:
    """Side in pixels of what a run draws: that of the base, as far as a recipe and the denoiser allow it."""
    least, most = SIDES
    return max(least, min(most, base.resolution) // base.multiple * base.multiple)


def prompt_and_strength(line: str) -> tuple[str, float]:
    """("red apple", 0.5) of "red apple @0.5"; strength 1 where none is said."""
    found = re.fullmatch(r"(.*\S)\s*@\s*(-?\d{1,2}(?:\.\d+)?)\s*", line.strip())
    if found and -10 <= float(found[2]) <= 10:
        return found[1], float(found[2])
    return line.strip(), 1.0
