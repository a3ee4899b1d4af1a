"""Each family draws the very pixels of diffusers' own pipeline."""

import itertools

import diffusers
import pytest
import torch
from PIL import ImageChops

from studio.generation import Recipe, draw
from tests import tiers
from tests.basemodels.tiny import MAKERS, SIDE


def plain(folder, recipe):
    """The image that diffusers draws of a recipe."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **without(folder))
    pipeline.set_progress_bar_config(disable=True)
    return drawn_by(pipeline, recipe)


def without(folder):
    return {"safety_checker": None} if folder.name.startswith("sd1") or folder.name.startswith("sd2") else {}


def drawn_by(pipeline, recipe):
    own = type(pipeline).__name__
    more = {} if own == "FluxPipeline" else {"negative_prompt": recipe.negative_prompt or None}
    guidance = recipe.guidance
    if own == "ZImagePipeline":  # counts guidance from 0
        guidance -= 1
    return pipeline(
        recipe.prompt,
        num_inference_steps=recipe.steps,
        guidance_scale=guidance,
        width=recipe.width,
        height=recipe.height,
        generator=torch.Generator("cpu").manual_seed(recipe.seed),
        **more,
    ).images[0]


@pytest.mark.parametrize(
    "more, name",
    tiers.default(
        list(itertools.product([{"negative_prompt": "green", "height": 96}, {}, {"guidance": 1.0}], MAKERS)),
        *(({"negative_prompt": "green", "height": 96}, name) for name in ("sd1", "sdxl", "flux-dev", "z-image")),
    ),
)
def test_same_pixels_as_the_familys_own_pipeline(bases, folders, name, more):
    recipe = Recipe(
        **{"prompt": "red apple", "seed": 3, "steps": 3, "width": SIDE, "height": SIDE, "guidance": 3.0} | more
    )
    ours = draw(bases(name), recipe)
    assert ours.getextrema() != ((0, 0),) * 3
    assert ImageChops.difference(ours, plain(folders(name), recipe)).getbbox() is None
