"""What of a recipe has no effect on a base is said, and nothing is said of what has one."""

import pytest

from studio.basemodels.card import describe_base
from studio.generation.recipe_check import recipe_problems
from tests.basemodels import tiny

FLUX = {"title": "FLUX.1", "weighted_prompts": False, "guidance_embedded": True}


def test_a_plain_prompt_has_no_problems():
    assert recipe_problems("a (cat:1.2) BREAK blue", "fog", guidance=7, clip_skip=2, title="SDXL") == []
    assert recipe_problems("a cat, blue", guidance=3.5, **FLUX) == []


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        ("a (cat:1.2)", FLUX, "no attention weights"),
        ("a BREAK b", FLUX, "BREAK has no effect"),
        ("a", FLUX | {"clip_skip": 2}, "Clip skip has no effect on FLUX.1"),
        ("a", FLUX | {"negative_prompt": "fog"}, "takes no negative prompt"),
        ("a", {"negative_prompt": "fog", "guidance": 1}, "at a guidance of 1"),
        ("a", {"negative_prompt": "[x|y]", "guidance": 7}, "Negative prompt: [x|y] is alternation"),
        ("a", {"negative_prompt": "<lora:ink:1>", "guidance": 7}, "Negative prompt: <lora:ink:1> has no effect"),
        ("a <lora:ink:15>", {}, "'15' is not a strength"),
    ],
)
def test_what_has_no_effect_is_said(prompt, more, said):
    (problem,) = recipe_problems(prompt, **more)
    assert said in problem


def test_a_base_s_card_says_what_it_reads(tmp_path):
    for name, weighted, embedded in (("sdxl", True, False), ("flux-dev", False, True), ("sd3", False, False)):
        card = describe_base(str(tiny.save(name, tmp_path)))
        assert (card.weighted_prompts, card.guidance_embedded) == (weighted, embedded)
