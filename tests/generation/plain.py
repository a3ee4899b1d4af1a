"""The starter in diffusers' own pipeline: what images are compared with."""

import copy
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageChops

from studio.basemodels import base_folder
from studio.generation import Recipe


@cache
def _loaded(folder: Path):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(folder)


def pipeline():
    """One of its own, to hang things on."""
    pipe = copy.deepcopy(_loaded(base_folder("starter")))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def theirs(pipe, recipe: Recipe) -> Image.Image:
    """The recipe's image, without its adapters and its scheduler: these are the pipeline's."""
    return pipe(
        recipe.prompt,
        negative_prompt=recipe.negative_prompt or None,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        generator=torch.Generator("cpu").manual_seed(recipe.seed),
        width=recipe.width,
        height=recipe.height,
    ).images[0]


def disturb(parameters, seed: int = 0, spread: float = 0.05) -> None:
    """Random numbers large enough to change an image."""
    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(torch.randn(parameter.shape, generator=chance) * spread)


def apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference, of 255."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


def same(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is None
