"""A schema tells its ranges once; what can be typed for a number is a number, or one sentence says why not."""

import math
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from studio.errors import GenerationError
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.recipe import Recipe
from studio.schema import Number, setting, settings
from studio.training.config import RunConfig

NUMBERS = ("seed", "steps", "guidance", "width", "height", "clip_skip", "count", "denoising", "guidance_rescale")


def test_every_number_of_a_recipe_and_of_a_run_has_a_range_a_description_and_a_default():
    found = [*settings(Recipe), *settings(AppliedAdapter), *settings(RunConfig)]
    numbers = [one for one in found if one.kind in (int, float)]
    assert {one.name for one in settings(Recipe) if one.kind in (int, float)} == set(NUMBERS)
    assert len(numbers) > 40 and all(one.low is not None and one.description for one in numbers)
    assert not [one.name for one in numbers if one.high is None]
    assert all(one.optional or isinstance(one.default, one.kind) for one in numbers)


def test_a_setting_says_what_a_form_or_a_flag_needs():
    width, rate = setting(Recipe, "width"), setting(RunConfig, "training.learning_rate")
    assert (width.kind, width.default, width.range_text) == (int, 128, "64 to 2,048, a multiple of 8")
    assert (rate.low, rate.low_open, rate.high, rate.range_text) == (0, True, 10, "above 0, at most 10")
    assert (
        setting(AppliedAdapter, "text_strength").optional
        and setting(AppliedAdapter, "text_strength").range_text == "-10 to 10"
    )
    assert "Euler a" in setting(Recipe, "scheduler").choices and "lokr" in setting(RunConfig, "adapter.kind").choices
    assert setting(Recipe, "prompt").required and setting(Recipe, "prompt").max_length == 4000


def test_a_range_inside_an_optional_type_is_read():
    class Model(BaseModel):
        size: Annotated[Number, Field(ge=1)] | None = Field(None, le=5)

    assert setting(Model, "size").range_text == "1 to 5" and setting(Model, "size").kind is float


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "NaN", "20", "", b"1", True, None, [], {}, -1, 1e308, 10**400]
)
def test_what_is_no_number_in_range_is_one_sentence(name, value):
    with pytest.raises(GenerationError) as error:
        Recipe(prompt="cat", **{name: value})
    said = str(error.value)
    assert said.startswith(f"{name}: must be ") and said.endswith(".") and len(said) < 200 and "\n" not in said


@pytest.mark.parametrize("value", [math.nan, "1", True, 11, -10.5])
def test_a_strength_likewise(value):
    for changed in (
        {"strength": value},
        {"text_strength": value},
        {"blocks": {"unet.mid_block": value}},
        {"end": value},
    ):
        with pytest.raises(GenerationError, match=r"^adapters\.0\..*: must be "):
            Recipe(prompt="cat", adapters=[{"file": "a.safetensors", **changed}])


def test_whole_floats_are_whole_numbers_as_json_and_sliders_send_them():
    assert Recipe(prompt="cat", steps=20.0).steps == 20
    with pytest.raises(GenerationError, match=r"^steps: must be a whole number \(you gave 20.5\)\.$"):
        Recipe(prompt="cat", steps=20.5)
