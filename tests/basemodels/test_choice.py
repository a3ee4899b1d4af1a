"""A base in one line: what is said behind its name, kept through runs and recipes, and what it changes."""

import shutil

import diffusers
import pytest
import torch
from PIL import Image, ImageChops
from safetensors.torch import load_file

from studio.basemodels import BaseChoice, load_base
from studio.errors import BaseModelError
from studio.generation import Recipe, draw, generate
from tests.basemodels import tiny
from tests.basemodels.test_drawing import drawn_by, plain
from tests.basemodels.test_training import RECIPE

LINES = [
    "starter",
    "starter?resolution=96",
    "owner/name@main?variant=fp16&prediction_type=v_prediction",
    "/a/b.safetensors?family=sdxl&vae=/c %26 d/100%25 + é.safetensors&quantise=8bit&offload=true",
]


@pytest.mark.parametrize("line", LINES)
def test_a_line_and_a_choice_are_the_same(line):
    choice = BaseChoice.of(line)
    assert str(choice) == line and BaseChoice.of(str(choice)) == choice


def test_what_a_line_says_is_read():
    choice = BaseChoice.of(LINES[2])
    assert (choice.name, choice.revision, choice.variant) == ("owner/name", "main", "fp16")
    assert BaseChoice.of(LINES[3]).vae == "/c & d/100% + é.safetensors" and BaseChoice.of(LINES[3]).offload


def test_a_file_may_be_called_anything(tmp_path):
    odd = tmp_path / "what?resolution=1@2.safetensors"
    odd.touch()
    assert BaseChoice.of(str(odd)).name == str(odd)


@pytest.mark.parametrize(
    "line, words",
    [
        ("starter?prediction=v", "prediction: is not a setting"),
        ("starter?resolution=8", "resolution: must be at least 64"),
        ("starter?resolution=99", "resolution: must be a multiple of 8"),
        ("starter?prediction_type=flow", "prediction_type: must be 'epsilon' or 'v_prediction'"),
        ("", "name"),
        ("starter?vae=/nowhere", "no VAE"),
    ],
)
def test_what_can_not_be_is_said_in_one_line(line, words):
    with pytest.raises(BaseModelError, match=words) as error:
        load_base(line, shared=False)
    assert "\n" not in str(error.value)


def test_the_prediction_type_is_taken_otherwise_in_drawing_and_in_training(folders):
    """As diffusers draws with that scheduler config; the target is v."""
    line = f"{folders('sd1')}?prediction_type=v_prediction"
    base = load_base(line, shared=False)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders("sd1"), safety_checker=None)
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    pipeline.set_progress_bar_config(disable=True)
    ours = draw(base, RECIPE)
    assert ImageChops.difference(ours, drawn_by(pipeline, RECIPE)).getbbox() is None
    assert ImageChops.difference(ours, plain(folders("sd1"), RECIPE)).getbbox()
    x, e, t = torch.ones(1, 4, 2, 2), torch.zeros(1, 4, 2, 2), torch.tensor([500])
    assert torch.allclose(base.target(x, e, t), -(1 - base.alphas[500]).sqrt() * x)
    with pytest.raises(BaseModelError, match="leave prediction_type out"):
        load_base(f"{folders('sd3')}?prediction_type=epsilon", shared=False)


def test_the_resolution_is_taken_otherwise(folders):
    assert load_base(f"{folders('sd1')}?resolution=96", shared=False).resolution == 96
    assert load_base(f"{folders('flux-dev')}?resolution=512", shared=False).resolution == 512


@pytest.mark.parametrize("kind", ["folder", "pipeline", "file"])
def test_another_vae_draws_and_encodes_and_is_another_identity(folders, bases, tmp_path, kind):
    torch.manual_seed(5)
    vae = tiny.vae()
    vae.save_pretrained(tmp_path / "other" / "vae" if kind == "pipeline" else tmp_path / "other")
    place = tmp_path / "other"
    if kind == "file":
        place = tmp_path / "other.safetensors"
        shutil.move(tmp_path / "other" / "diffusion_pytorch_model.safetensors", place)
    base = load_base(f"{folders('sd1')}?vae={place}", shared=False)
    own = load_file(next(iter(tmp_path.rglob("*.safetensors"))))
    assert all(torch.equal(value, own[key]) for key, value in base.pipeline.vae.state_dict().items())
    assert base.identity("vae") != bases("sd1").identity("vae")
    assert base.identity("unet") == bases("sd1").identity("unet")
    assert base.encode_image([Image.new("RGB", (64, 64))])[0].shape == (1, 4, 8, 8)
    with pytest.raises(BaseModelError, match="needs one of 16"):
        load_base(f"{folders('sd3')}?vae={place}", shared=False)


@pytest.mark.parametrize(
    "settings",
    [
        "{",
        "[]",
        "{}",
        '{"_class_name": "AutoencoderKL"}',
        '{"latent_channels": 4}',
        '{"_class_name": "Nothing", "latent_channels": 4}',
        '{"_class_name": ["x"], "latent_channels": "4"}',
    ],
)
def test_another_vae_beside_damaged_settings_of_the_own_one_is_said_in_a_sentence(folders, tmp_path, settings):
    shutil.copytree(folders("sd1"), tmp_path / "base")
    (tmp_path / "base" / "vae" / "config.json").write_text(settings)
    with pytest.raises(BaseModelError, match="vae/config.json .*: download the model again") as caught:
        load_base(f"{tmp_path / 'base'}?vae={folders('sd1')}", shared=False)
    assert "\n" not in str(caught.value)


def test_a_recipe_carries_the_choice(folders):
    line = f"{folders('sd1')}?prediction_type=v_prediction"
    said = RECIPE.model_dump() | {"base": line}
    recipe = Recipe.model_validate_json(Recipe(**said).model_dump_json())
    assert recipe.base == line
    assert ImageChops.difference(generate(recipe), draw(load_base(line, shared=False), recipe)).getbbox() is None
