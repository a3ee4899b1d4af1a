"""Distilled bases draw in few steps, with their own schedulers, the very pixels of diffusers."""

import itertools

import diffusers
import pytest
import torch
from PIL import ImageChops

from studio.basemodels import load_base
from studio.generation import Recipe, draw
from tests import tiers
from tests.basemodels import tiny
from tests.basemodels.tiny import SIDE

FEW = {"prompt": "red apple", "seed": 3, "steps": 4, "width": SIDE, "height": SIDE}


def lcm():
    return diffusers.LatentConsistencyModelPipeline(
        vae=tiny.vae(),
        text_encoder=tiny.clip(),
        tokenizer=tiny.clip_tokenizer(),
        safety_checker=None,
        unet=tiny.unet(16, time_cond_proj_dim=32),
        scheduler=diffusers.LCMScheduler(**tiny.SCHEDULE),
        feature_extractor=None,
        requires_safety_checker=False,
    )


def lcm_xl():
    pipeline = tiny.sdxl()
    config = dict(pipeline.unet.config) | {"time_cond_proj_dim": 32}
    parts = pipeline.components | {
        "unet": diffusers.UNet2DConditionModel.from_config(config),
        "scheduler": diffusers.LCMScheduler(**tiny.SCHEDULE),
    }
    return diffusers.StableDiffusionXLPipeline(**parts)


def turbo():
    """SD Turbo and SDXL Turbo: Euler, ancestral, trailing steps, no guidance."""
    pipeline = tiny.sdxl()
    pipeline.scheduler = diffusers.EulerAncestralDiscreteScheduler(**tiny.SCHEDULE, timestep_spacing="trailing")
    return pipeline


def lightning():
    """SDXL Lightning: Euler, trailing steps, no guidance."""
    pipeline = tiny.sdxl()
    pipeline.scheduler = diffusers.EulerDiscreteScheduler(**tiny.SCHEDULE, timestep_spacing="trailing")
    return pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("distilled"), {}

    def folder(maker):
        if maker not in made:
            tiny.MAKERS[maker.__name__] = maker
            try:
                made[maker] = tiny.save(maker.__name__, root)
            finally:
                del tiny.MAKERS[maker.__name__]
        return made[maker]

    return folder


def theirs(folder, recipe):
    more = {"safety_checker": None} if folder.name == "lcm" else {}
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **more)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(
        recipe.prompt,
        num_inference_steps=recipe.steps,
        guidance_scale=recipe.guidance,
        width=SIDE,
        height=SIDE,
        generator=torch.Generator("cpu").manual_seed(recipe.seed),
    ).images[0]


@pytest.mark.parametrize("guidance, maker", tiers.default(list(itertools.product([8.5, 1.0], [lcm, lcm_xl]))))
def test_a_latent_consistency_model_is_told_its_guidance(saved, maker, guidance):
    recipe = Recipe(**FEW, guidance=guidance)
    ours = draw(load_base(str(saved(maker)), shared=False), recipe)
    assert ours.getextrema() != ((0, 0),) * 3
    assert ImageChops.difference(ours, theirs(saved(maker), recipe)).getbbox() is None


def test_its_guidance_counts(saved):
    base = load_base(str(saved(lcm)), shared=False)
    weak, strong = (draw(base, Recipe(**FEW, guidance=guidance)) for guidance in (1.0, 12.0))
    assert base.guidance_embedded and ImageChops.difference(weak, strong).getbbox()


@pytest.mark.parametrize(
    "steps, maker", tiers.default(list(itertools.product([1, 4], [turbo, lightning])), (1, turbo), (4, lightning))
)
def test_turbo_and_lightning_draw_with_their_own_scheduler_and_no_guidance(saved, maker, steps):
    recipe = Recipe(**FEW | {"steps": steps}, guidance=1.0)
    ours = draw(load_base(str(saved(maker)), shared=False), recipe)
    theirs_ = theirs(saved(maker), recipe.model_copy(update={"guidance": 0.0}))
    assert ImageChops.difference(ours, theirs_).getbbox() is None
