"""An image in the middle of a run: with the run's own weights or with others, and the run never knows."""

import gc
import threading

import pytest
import torch
from diffusers import UNet2DConditionModel
from PIL import ImageChops
from safetensors.torch import load_file

from studio.basemodels import load_base
from studio.errors import GenerationError
from studio.generation import AppliedAdapter, Recipe, draw, generate
from studio.generation.adapter_cache import cache_of
from studio.generation.strength_sweep import draw_strength_sweep
from studio.training import config_from, train
from studio.training.events import Checkpoint, Step
from tests import tiers
from tests.training.test_exact_resume import losses

BUSY = {"training.ema": 0.9, "adapter.dropout": 0.1, "validation.every": 3, "preview.every": 3, "preview.steps": 1}


@pytest.fixture
def words(tiny_base) -> dict:
    return {"base": str(tiny_base), "prompt": "red apple, on a blue background", "steps": 3}


@pytest.mark.parametrize("text", tiers.default([False, True], True))
def test_losses_are_the_same_to_the_bit_with_and_without_images_in_between(workspace, quick, words, text):
    """Whatever is drawn: with the run's own weights, others' or none, a strip, or one that is broken off."""
    more = {"adapter.text_encoder": text, "preview.prompts": ["rocket"]}
    list(train(config_from(quick | BUSY | more | {"name": "alone"}), workspace))
    other = workspace.runs / "alone" / "adapter.safetensors"
    live = AppliedAdapter(file=workspace.runs / "watched" / "adapter.safetensors", live=True, strength=0.8)
    both = Recipe(**words, adapters=(live, (other, 0.5)))
    stop = threading.Event()
    stop.set()
    for event in train(config_from(quick | BUSY | more | {"name": "watched"}), workspace):
        if isinstance(event, Step):
            generate(both)
            generate(Recipe(**words))
        elif isinstance(event, Checkpoint):
            draw_strength_sweep(both, (0.0, 1.0))
            with pytest.raises(GenerationError):
                generate(both, stop)
    assert losses(workspace, "watched") == losses(workspace, "alone")
    alone, watched = (load_file(workspace.runs / name / "adapter.safetensors") for name in ("alone", "watched"))
    assert alone.keys() == watched.keys() and all(torch.equal(alone[key], watched[key]) for key in alone)


@pytest.mark.full
@pytest.mark.parametrize("text", tiers.default([False, True], True))
def test_an_image_shows_the_weights_as_they_are_now(workspace, quick, words, text):
    """At each checkpoint the live image is the one that the checkpoint's file draws later."""
    live, file = {}, workspace.runs / "now" / "adapter.safetensors"
    fast = {"training.learning_rate": 0.05, "training.checkpoint_every": 3, "name": "now"}
    fast["adapter.text_encoder"] = text
    for event in train(config_from(quick | fast), workspace):
        if isinstance(event, Checkpoint):
            live[event.step] = generate(Recipe(**words, adapters=(AppliedAdapter(file=file, live=True),)))
    assert len(live) == 2
    for step, image in live.items():
        saved = file.parent / "checkpoints" / f"{step:06d}" / "adapter.safetensors"
        later = generate(Recipe(**words, adapters=((saved, 1.0),)))
        away = ImageChops.difference(image, later).convert("L").getextrema()[1]
        assert away <= 2, step  # the file is rounded
    assert ImageChops.difference(*live.values()).getbbox()


def how_many_denoisers() -> int:
    """In this process's memory, whoever holds them."""
    gc.collect()
    return sum(isinstance(thing, UNet2DConditionModel) for thing in gc.get_objects())


@pytest.mark.full
def test_a_run_and_an_image_share_one_base_and_the_run_leaves_it_clean(workspace, quick, words):
    before, base = generate(Recipe(**words)), load_base(words["base"])
    own, denoisers, seen = set(base.model.modules()), how_many_denoisers(), 0
    for event in train(config_from(quick | {"name": "guest"}), workspace):
        if isinstance(event, Step):
            generate(Recipe(**words))
            (adapters,) = cache_of(base).runs.values()
            assert {layer for _, _, layer in adapters["unet"].items()} <= own
            seen += 1
            assert seen < 6 or how_many_denoisers() == denoisers
    assert seen == 6
    assert ImageChops.difference(draw(load_base(words["base"]), Recipe(**words)), before).getbbox() is None
    assert not cache_of(base).runs


def test_a_run_that_is_left_in_the_middle_takes_its_adapter_along(workspace, quick, words):
    before = generate(Recipe(**words))
    events = train(config_from(quick | {"name": "left", "training.learning_rate": 0.05}), workspace)
    for event in events:
        if isinstance(event, Step) and event.step == 3:
            break
    events.close()
    assert ImageChops.difference(draw(load_base(words["base"]), Recipe(**words)), before).getbbox() is None
