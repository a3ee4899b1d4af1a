"""v-prediction and zero terminal SNR: the oracle is diffusers."""

import inspect

import diffusers
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from PIL import ImageChops

from studio.basemodels import load_base
from studio.basemodels.card import describe_base
from studio.basemodels.single_file import _settings_by_markers
from studio.errors import BaseModelError
from studio.generation import Recipe, draw
from studio.generation.recipe_check import recipe_problems
from studio.generation.schedulers import DIFFUSION, make_scheduler
from studio.training.config_sections import TrainingConfig
from studio.training.objective import loss_of
from tests import tiers
from tests.basemodels.tiny import SIDE

OPTIONS = "?prediction_type=v_prediction&zero_terminal_snr=true"


@pytest.fixture(scope="module")
def zero(folders):
    loaded = {}

    def base(name):
        if name not in loaded:
            loaded[name] = load_base(str(folders(name)) + OPTIONS, shared=False)
        return loaded[name]

    return base


def test_training_sees_rescaled_betas_and_learns_v(zero, folders):
    base = zero("sdxl")
    plain = diffusers.DDIMScheduler.from_pretrained(folders("sdxl"), subfolder="scheduler")
    alphas = torch.cumprod(1 - rescale_zero_terminal_snr(plain.betas), 0)
    assert torch.allclose(base.alphas, alphas, atol=1e-6) and base.alphas[-1] == 0
    theirs = diffusers.DDIMScheduler.from_config(
        plain.config, prediction_type="v_prediction", rescale_betas_zero_snr=True
    )
    draws = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(3, 4, 8, 8, generator=draws) for _ in range(2))
    t = base.times(torch.tensor([0.0, 0.5, 1.0]))
    assert torch.allclose(base.add_noise(latents, noise, t), theirs.add_noise(latents, noise, t), atol=1e-6)
    assert torch.allclose(base.target(latents, noise, t), theirs.get_velocity(latents, noise, t), atol=1e-6)
    assert torch.equal(base.add_noise(latents, noise, t)[2], noise[2]), "the last timestep is noise alone"
    with torch.no_grad():
        conditions = base.encode_prompt(["a", "b", "c"])
        losses = loss_of(base, latents, conditions, noise, t, settings=TrainingConfig(min_snr_gamma=5))
    assert torch.isfinite(losses).all()


@pytest.mark.parametrize("rescale", tiers.default([0.0, 0.7], 0.7))
@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl"]))
def test_images_are_those_of_diffusers(zero, folders, name, rescale):
    recipe = Recipe(
        prompt="red apple", negative_prompt="green", seed=3, steps=3, width=SIDE, height=SIDE, guidance=5.0,
        scheduler="Euler", guidance_rescale=rescale,
    )  # fmt: skip
    pipe = diffusers.DiffusionPipeline.from_pretrained(
        folders(name), **({"safety_checker": None} if name == "sd1" else {})
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(
        pipe.scheduler.config, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    wanted = pipe(
        recipe.prompt, negative_prompt=recipe.negative_prompt, num_inference_steps=3, guidance_scale=5.0, width=SIDE,
        height=SIDE, generator=torch.Generator("cpu").manual_seed(3), guidance_rescale=rescale,
    ).images[0]  # fmt: skip
    assert ImageChops.difference(draw(zero(name), recipe), wanted).getbbox() is None


def test_cfg_rescale_changes_the_image_and_0_does_not(zero):
    base = zero("sdxl")
    recipe = Recipe(prompt="red apple", steps=2, width=SIDE, height=SIDE, guidance=7.0)
    plain, none, full = (
        draw(base, recipe.model_copy(update=u)) for u in ({}, {"guidance_rescale": 0.0}, {"guidance_rescale": 1.0})
    )
    assert plain.tobytes() == none.tobytes() != full.tobytes()


def test_marks_in_a_file_say_it():
    assert _settings_by_markers({"v_pred": (0,), "ztsnr": (0,)}) == {
        "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
    }  # fmt: skip
    assert _settings_by_markers({"v_pred": (0,)}) == {"prediction_type": "v_prediction"}


def test_the_card_tells_it(folders):
    card = describe_base(str(folders("sdxl")) + OPTIONS)
    assert card.zero_terminal_snr and "predicts v with zero terminal SNR" in card.about
    assert "zero_terminal_snr" in card.chosen and not describe_base(str(folders("sdxl"))).zero_terminal_snr


def test_it_needs_v_prediction(folders):
    with pytest.raises(BaseModelError, match="add prediction_type=v_prediction"):
        load_base(f"{folders('sd1')}?zero_terminal_snr=true", shared=False)


@pytest.mark.parametrize("name", tiers.default(DIFFUSION, "Heun", "DPM++ 2M Karras"))
def test_schedulers_by_name_rescale_where_diffusers_can(zero, name):
    """The others draw with the plain betas, as they did before."""
    made = make_scheduler(zero("sd1").scheduler(), name)
    knows = "rescale_betas_zero_snr" in inspect.signature(type(made).__init__).parameters
    clean = made.alphas_cumprod[-1] < 1e-6
    assert bool(clean) is knows and made.config.prediction_type == "v_prediction"


def test_cfg_rescale_without_guidance_is_reported():
    assert "CFG rescale has no effect" in recipe_problems("a", guidance=1, guidance_rescale=0.7)[0]
    assert recipe_problems("a", guidance=7, guidance_rescale=0.7) == []
