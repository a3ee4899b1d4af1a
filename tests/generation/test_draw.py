"""Images equal those of diffusers' own pipeline; what can't be drawn is said."""

import pytest
import torch

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.errors import AdapterError, GenerationError
from studio.generation import Recipe, generate
from tests import tiers
from tests.generation.plain import apart, pipeline, same, theirs

QUICK = {"prompt": "red apple, on a blue background", "steps": 4, "seed": 7}


@pytest.fixture(scope="module")
def adapter_file(tmp_path_factory):
    """An adapter for the starter with weights large enough to change the image."""
    base = load_base("starter", shared=False)
    adapter = attach(base.modules()["unet"], AdapterSpec(rank=4, alpha=8, targets="all"))
    draw = torch.Generator().manual_seed(0)
    for parameter in adapter.parameters():
        parameter.data = torch.randn(parameter.shape, generator=draw) * 0.03
    path = tmp_path_factory.mktemp("adapter") / "loud.safetensors"
    adapter.save(path)
    return path


@pytest.mark.parametrize(
    "more", tiers.default([{"negative_prompt": "green", "guidance": 7.0}, {}, {"width": 192, "guidance": 1.0}])
)
def test_same_pixels_as_the_plain_pipeline(more):
    recipe = Recipe(**QUICK | more)
    shown, wanted = generate(recipe), theirs(pipeline(), recipe)
    assert apart(shown, wanted) < 1e-4  # of 255, on average: a value at the border of two may be rounded the other way


def test_strength_zero_gives_the_base_image_to_the_pixel(adapter_file):
    base = generate(Recipe(**QUICK))
    assert same(generate(Recipe(**QUICK, adapters=((adapter_file, 0.0),))), base)
    assert apart(generate(Recipe(**QUICK, adapters=((adapter_file, 1.0),))), base) > 2
    assert same(generate(Recipe(**QUICK)), base), "the adapter was left on"


@pytest.mark.parametrize("strength", tiers.default([1.0, 0.5], 0.5))
def test_saved_adapter_gives_the_same_image_in_diffusers_with_peft(adapter_file, strength):
    recipe = Recipe(**QUICK, adapters=((adapter_file, strength),))
    pipe = pipeline()
    pipe.load_lora_weights(str(adapter_file.parent), weight_name=adapter_file.name, adapter_name="loud")
    pipe.set_adapters(["loud"], [strength])
    assert apart(generate(recipe), theirs(pipe, recipe)) < 1


@pytest.mark.parametrize(
    "wrong, word",
    [({"prompt": "x" * 10_000}, "4000"), ({"steps": 0}, "steps"), ({"width": 100}, "width"), ({"seed": -1}, "seed")],
)
def test_what_cannot_be_drawn_is_said_in_one_line(wrong, word):
    with pytest.raises(GenerationError) as caught:
        Recipe(**{"prompt": "cat"} | wrong)
    assert word in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_an_adapter_for_another_base_changes_nothing_and_says_so(tmp_path):
    foreign = torch.nn.Sequential(torch.nn.Linear(4, 4))
    attach(foreign, AdapterSpec(rank=2, targets="all")).save(tmp_path / "foreign.safetensors")
    with pytest.raises(AdapterError, match="another base model"):
        generate(Recipe(**QUICK, adapters=((tmp_path / "foreign.safetensors", 1.0),)))
