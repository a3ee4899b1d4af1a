"""Every scheduler draws what diffusers' own pipelines draw with it, from nothing and from an image."""

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from studio.basemodels import base_folder, load_base
from studio.errors import GenerationError
from studio.generation import Recipe, generate
from studio.generation.latent_preview import preview_latents
from studio.generation.schedulers import DIFFUSION, FLOW, OWN, make_scheduler
from studio.workspace import ASSETS
from tests import tiers
from tests.basemodels import tiny
from tests.generation.plain import same

PUBLISHED = {  # diffusers' documentation of A1111's names, and its classes' own: each ends in Scheduler
    "Euler": "EulerDiscrete",
    "Euler a": "EulerAncestralDiscrete",
    "DPM++ 2M": "DPMSolverMultistep",
    "DPM++ 2M Karras": "DPMSolverMultistep",
    "DPM++ 2M SDE": "DPMSolverMultistep",
    "DPM++ 2M SDE Karras": "DPMSolverMultistep",
    "DPM++ 2S": "DPMSolverSinglestep",
    "DPM2": "KDPM2Discrete",
    "DPM2 a": "KDPM2AncestralDiscrete",
    "Heun": "HeunDiscrete",
    "LMS": "LMSDiscrete",
    "PLMS": "PNDM",
    "DDIM": "DDIM",
    "DDPM": "DDPM",
    "UniPC": "UniPCMultistep",
    "LCM": "LCM",
    "TCD": "TCD",
}
QUICK = {"prompt": "red apple, on a blue background", "steps": 3, "seed": 7}
SOURCE = sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[2]


def pipeline(kind: str, base: str = "starter"):
    pipe = getattr(diffusers, kind).from_pretrained(base_folder(base))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def scheduler(pipe, name: str):
    kind = getattr(diffusers, f"{PUBLISHED[name]}Scheduler")
    changes = {"use_karras_sigmas": True} if "Karras" in name else {}
    changes |= {"algorithm_type": "sde-dpmsolver++"} if "SDE" in name else {}
    changes |= {"skip_prk_steps": True} if name == "PLMS" else {}
    return kind.from_config(pipe.scheduler.config, **changes)


def theirs(pipe, recipe: Recipe, **more) -> Image.Image:
    generator = torch.Generator("cpu").manual_seed(recipe.seed)
    return pipe(
        recipe.prompt, num_inference_steps=recipe.steps, guidance_scale=recipe.guidance, generator=generator, **more
    ).images[0]


@pytest.mark.parametrize("name", tiers.default(DIFFUSION, "DPM++ 2M SDE Karras", "PLMS"))
def test_a_scheduler_by_name_draws_the_pixels_of_diffusers(name):
    pipe = pipeline("StableDiffusionPipeline")
    pipe.scheduler = scheduler(pipe, name)
    assert same(generate(Recipe(**QUICK, scheduler=name)), theirs(pipe, Recipe(**QUICK), width=128, height=128))


def test_schedulers_differ_from_one_another():
    images = [generate(Recipe(**QUICK, scheduler=name)).tobytes() for name in ("Euler", "Euler a", "DDPM", "Heun")]
    assert len(set(images)) == 4


def test_progress_counts_what_a_scheduler_really_does():
    for name in ("Heun", "PLMS", "Euler"):
        told = []
        generate(Recipe(**QUICK, scheduler=name), progress=lambda done, total, told=told: told.append((done, total)))
        assert told[-1][0] == told[-1][1] == len(told), name


def test_flow_models_have_schedulers_of_their_own():
    own = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert make_scheduler(own, OWN) is own and make_scheduler(own, "Euler") is own
    for name in FLOW:
        made = make_scheduler(own, name)
        made.set_timesteps(4)
        assert len(made.timesteps) >= 4
    with pytest.raises(GenerationError, match="choose as the base, Euler"):
        make_scheduler(own, "DDIM")


@pytest.mark.parametrize(
    ("name", "denoising"),
    [(OWN, 0.7), tiers.in_full("Euler a", 1.0), tiers.in_full("Euler", 0.7), tiers.in_full("DPM++ 2M", 0.4)],
)
def test_from_an_image_as_diffusers_does(name, denoising):
    recipe = Recipe(**QUICK | {"steps": 5}, scheduler=name, source=SOURCE, denoising=denoising)
    pipe = pipeline("StableDiffusionImg2ImgPipeline")
    if name != OWN:
        pipe.scheduler = scheduler(pipe, name)
    source = Image.open(SOURCE).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
    assert same(generate(recipe), theirs(pipe, recipe, image=source, strength=denoising))


def test_a_hole_is_filled_as_diffusers_does_and_the_rest_stays(tmp_path):
    """On a base of 4 latent channels: diffusers fills holes with no others."""
    base = str(tiny.save("sd1", tmp_path))
    mask = Image.new("L", (128, 128))
    mask.paste(255, (32, 32, 96, 96))
    mask.save(tmp_path / "mask.png")
    facts = QUICK | {"steps": 6, "base": base, "width": 128, "height": 128}
    recipe = Recipe(**facts, source=SOURCE, mask=tmp_path / "mask.png", denoising=1.0)
    source = Image.open(SOURCE).convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)
    ours = np.asarray(generate(recipe), float)
    pipe = pipeline("StableDiffusionInpaintPipeline", base)
    other = theirs(pipe, recipe, image=source, mask_image=mask, strength=1.0, width=128, height=128)
    inside = (slice(40, 88), slice(40, 88))
    assert np.abs(ours[inside] - np.asarray(other, float)[inside]).mean() < 2
    assert np.array_equal(ours[:20], np.asarray(source, float)[:20])
    assert np.abs(ours[inside] - np.asarray(source, float)[inside]).mean() > 5


def test_a_look_at_the_latents_resembles_the_image():
    from studio.generation import generate_all

    minds = []
    (image,) = generate_all(Recipe(**QUICK | {"steps": 8}), preview=minds.append)
    small = np.asarray(image.resize((16, 16), Image.Resampling.BOX), float).ravel()
    seen = np.asarray(preview_latents(load_base("starter"), minds[-1]), float).ravel()
    assert seen.shape == small.shape and np.corrcoef(seen, small)[0, 1] > 0.8


@pytest.mark.full
def test_images_of_one_recipe_are_those_of_the_next_seeds():
    from studio.generation import generate_all

    many = list(generate_all(Recipe(**QUICK, count=3)))
    assert same(many[2], generate(Recipe(**QUICK | {"seed": 9}))) and not same(many[0], many[1])
