"""Captioners and image encoders on the pretend device: the CPU's words and cosines, and their memory given back."""

import gc

import numpy as np
import pytest

from studio.captioning import load_captioner
from studio.captioning.batching import Batches
from studio.captioning.scoring import load_clip
from studio.datasets import open_dataset
from studio.generation.evaluation import embed_training_images, score_sweep
from studio.services import diagnostics
from tests import tiers
from tests.captioning import tiny
from tests.devices.second_device import NAME, pretend

BUILD = {"blip": tiny.blip, "blip2": tiny.blip2, "florence": tiny.florence, "chat": tiny.qwen, "joycaption": tiny.llava}


def load(name, folder):
    steady = {"temperature": 0} if name in ("chat", "joycaption") else {}
    return load_captioner(name, {"model": str(folder), "max_tokens": 8, "precision": "fp32", **steady})


@pytest.mark.parametrize("name", tiers.default(BUILD, "blip"))
@pytest.mark.full
def test_captions_are_those_of_the_cpu(tmp_path, name):
    folder, images = BUILD[name](tmp_path), tiny.images(2)
    captioner = load(name, folder)
    here = captioner.caption(images)
    captioner.close()
    with pretend() as memory:
        before = memory.allocated
        captioner = load(name, folder)
        assert captioner.device.type == NAME and memory.allocated > before
        assert captioner.caption(images) == here and any(here)
        captioner.close()
        del captioner
        gc.collect()
        assert memory.allocated - before < 1000 and memory.emptied
    gc.collect()


def test_a_batch_that_does_not_fit_is_captioned_in_parts(tmp_path, memory):
    folder, images = tiny.blip(tmp_path), tiny.images(4)
    captioner = load("blip", folder)
    one = peak_of(memory, lambda: captioner.caption(images[:1]))
    whole = peak_of(memory, lambda: captioner.caption(images))
    assert one < whole
    batches = Batches(4)
    memory.limit = (one + whole) // 2
    texts = batches.run(captioner.caption, images)
    memory.limit = None
    assert batches.size < 4 and texts == captioner.caption(images)
    captioner.close()


def peak_of(memory, work) -> int:
    gc.collect()
    memory.peak = memory.allocated
    work()
    return memory.peak


@pytest.mark.full
def test_any_clip_measures_as_on_the_cpu(images, tmp_path):
    folder = tiny.clip(tmp_path)
    items, shown, found = open_dataset(images).items, tiny.images(2), []
    for device in ("cpu", NAME):
        with pretend(bf16=False) if device == NAME else pytest.MonkeyPatch.context():
            clip = load_clip(str(folder))
            assert clip.device.type == device
            known = embed_training_images(items, clip, tmp_path / device)
            found.append(score_sweep(shown, ["a", "b"], 1, "a cat", clip, known))
            clip.close()
    assert np.allclose(found[0].prompt, found[1].prompt, atol=5e-3)  # fp16 there
    assert np.allclose(found[0].likeness, found[1].likeness, atol=5e-3)


def test_the_doctor_names_it(memory):
    found = diagnostics._device()
    assert found["kind"] == NAME and found["name"] == "pretend device" and found["memory"] == 8.0 and found["bf16"]
    assert "On pretend device in bf16" in found["placement"] and "error" not in found
