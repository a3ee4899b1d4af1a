"""The starter's recipe: runs that resume, captions with unknown words, outlines, and the classifier of shapes."""

import random
import sys

import pytest
import torch

from studio.workspace import ASSETS

RECIPE = str(ASSETS / "starter" / "recipe")


@pytest.fixture(autouse=True)
def recipe(monkeypatch):
    monkeypatch.syspath_prepend(RECIPE)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if RECIPE in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def trained(file, steps):
    from resuming import Loop

    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loop = Loop("test", file, minutes=1e6, steps=steps, model=model, optimizer=optimizer)
    for draw in loop:
        loss = (model(torch.randn(8, 4, generator=draw)) - 1).square().mean()
        loop.learn(loss, optimizer, 0.1, list(model.parameters()))
    return model.weight.detach().clone(), loop


def test_a_run_in_two_parts_is_the_run_in_one(tmp_path):
    whole, _ = trained(tmp_path / "whole.pt", 8)
    trained(tmp_path / "parts.pt", 3)
    parts, loop = trained(tmp_path / "parts.pt", 8)
    assert torch.equal(whole, parts) and loop.step == 8
    assert trained(tmp_path / "parts.pt", 8)[1].step == 8  # nothing is done twice


def test_half_of_the_captions_are_dressed_and_all_keep_what_they_say():
    from art import Concept
    from captions import Meaning, draw_caption

    apple = Concept("red apple", "red-apple", ())
    draw = random.Random(0)
    said = [draw_caption(Meaning(apple, "noto", "blue"), draw, {}, ["lighthouse"]) for _ in range(400)]
    assert all("red apple" in one and "noto" in one and "blue" in one for one in said)
    assert len(set(said)) > 150
    front = sum(not one.startswith(("red apple", "a red apple", "noto red apple")) for one in said)
    assert 60 < front < 240


def test_synonyms_belong_to_one_name_and_unknown_words_to_none():
    from art import Concept
    from captions import vocabulary

    known = [Concept("dog", "dog", ("pet", "puppy", "time")), Concept("cat", "cat", ("pet", "kitty"))]
    synonyms, words = vocabulary(known, ["lighthouse", "pet", "cat", "42"])
    assert synonyms == {"dog": ["puppy"], "cat": ["kitty"]} and words == ["lighthouse"]


def test_contours_darken_the_rim_and_leave_the_rest():
    from art import contours

    glyph = torch.zeros(1, 4, 64, 64, dtype=torch.uint8)
    glyph[:, :, 16:48, 16:48] = torch.tensor([200, 180, 160, 255], dtype=torch.uint8)[None, :, None, None]
    for seed in range(8):
        drawn = contours(glyph, torch.Generator().manual_seed(seed))
        assert drawn[0, 3, 16, 32] == 255 and drawn[0, 3, 15, 32] == 255  # a rim on both sides of the edge
        assert drawn[0, 3, 8, 8] == 0 and drawn.dtype == torch.uint8
        assert not torch.equal(drawn[0, :3, 16, 32], glyph[0, :3, 16, 32])


def test_the_judge_names_held_out_renders_it_never_saw():
    from studio.captioning.shapes import Shapes

    judge = Shapes.read(ASSETS / "starter" / "recipe" / "judge.safetensors")
    import json

    names = json.loads((ASSETS / "starter" / "vocabulary.json").read_text())["names"]
    assert judge.layers[-1].out_features == len(names)


def test_features_are_those_of_the_shape_not_of_its_colours():
    from studio.captioning.shapes import FEATURES, features

    one = torch.full((1, 3, 64, 64), 1.0)
    one[:, :, 20:44, 20:44] = -1.0
    other = one.clone()
    other[:, 0] = one[:, 0] * 0.6
    disc = torch.full((1, 3, 64, 64), 1.0)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    disc[:, :, (x - 32) ** 2 + (y - 32) ** 2 < 200] = -1.0
    a, b, c = features(torch.cat([one, other, disc]))
    assert len(a) == FEATURES
    assert torch.dist(a, b) < 0.5 * torch.dist(a, c)
