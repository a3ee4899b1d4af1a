"""Runs with several folders, sizes, variants of captions and of images."""

import threading
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from studio.basemodels import load_base
from studio.training import config_from, read_run, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.distributed import Distributed
from studio.training.events import Started, Warned
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.length import with_steps
from studio.training.preflight import preflight
from studio.training.selection import split
from tests.basemodels import tiny
from tests.training.test_exact_resume import losses, same, state

VARIED = {
    "data.more_resolutions": [32, 96],
    "data.wildcards": True,
    "data.caption_variants": True,
    "data.tag_dropout": 0.3,
    "data.shuffle_tags": True,
    "data.keep_tags_separator": "|||",
    "data.random_crop": 0.3,
    "data.color_jitter": 0.2,
    "data.rotation": 5,
    "data.augmentations": 2,
    "data.flip": True,
}


@pytest.fixture
def varied(tmp_path, quick):
    """Settings of a run on two folders of 4 and 2 images, whose captions have lines, choices and files beside them."""
    draw = np.random.default_rng(0)
    for name, count in (("one", 4), ("two", 2)):
        place = tmp_path / name
        place.mkdir()
        for number in range(count):
            Image.fromarray(draw.integers(0, 255, (96, 140, 3), np.uint8)).save(place / f"{number}.png")
            (place / f"{number}.txt").write_text("zsk ||| a {red|green}, b, c\nzsk, another")
            (place / f"{number}.1.txt").write_text("zsk, in other words")
    folders = [f"{tmp_path / 'two'} weight=1 flip=false trigger=two"]
    return quick | VARIED | {"data.folder": str(tmp_path / "one"), "data.folders": folders, "data.resolution": 64}


def examples_of(settings, base, cache):
    config = config_from(settings)
    chosen = split(config)
    examples, _ = list_examples(chosen.items, base, cache, config.data, 0, chosen=chosen)
    return config, examples


@pytest.mark.full
def test_a_varied_run_resumes_bit_for_bit(workspace, varied):
    settings = varied | {"training.steps": 4, "validation.every": 2, "validation.fraction": 0.34}
    events = list(train(config_from(settings | {"name": "whole"}), workspace))
    setup = next(event.setup for event in events if isinstance(event, Started))
    assert "two: 1 image, 50.0% of the samples" in setup and "variants of images" in setup
    assert not [event.message for event in events if isinstance(event, Warned) and "no effect" in event.message]
    stop, config = threading.Event(), config_from(settings | {"name": "halves"})
    for event in train(config, workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 1:
            stop.set()
    for _ in train(config, workspace, folder=workspace.runs / "halves"):
        pass
    assert losses(workspace, "halves") == losses(workspace, "whole")
    assert same(state(workspace.runs / "halves"), state(workspace.runs / "whole"))
    assert read_run(workspace, "halves").validations[-1].loss == read_run(workspace, "whole").validations[-1].loss


def test_each_image_is_shown_as_often_in_every_size_and_a_batch_has_one(tiny_base, varied, tmp_path):
    base = load_base(str(tiny_base), shared=False)
    config, examples = examples_of(varied, base, Cache(tmp_path / "cache"))
    assert {e.frame.size for e in examples if e.is_main} == {(80, 48)} and len(examples) == 3 * 6
    plan = BatchSampler(examples, 2, 0, config.data)
    rows = [row for number in range(plan.cycle) for row in plan.rows(number)]
    seen = Counter((row.example.name, row.example.frame.size) for row in rows)
    by_folder = {
        name: {count for (image, _), count in seen.items() if ("/" in image) is name} for name in (True, False)
    }
    assert all(len(counts) == 1 for counts in by_folder.values()), "every image and size of a folder alike"
    assert sum(count for (image, _), count in seen.items() if "/" in image) * 2 == seen.total()
    for number in range(plan.cycle):
        assert len({row.example.frame.size for row in plan.rows(number)}) == 1
    assert {row.variant for row in rows} == {0, 1} and {row.mirrored for row in rows} == {True, False}
    assert not any(row.mirrored for row in rows if "/" in row.example.name), "flip=false of its folder"


def test_an_epoch_shows_each_image_once_whatever_its_sizes(varied):
    settings = varied | {"training.epochs": 2, "data.folders": [], "training.batch_size": 1}
    assert with_steps(config_from(settings)).training.steps == 2 * 4


def test_an_image_too_small_for_a_resolution_is_shown_as_often_in_those_it_fills(tiny_base, quick, tmp_path):
    for name, side in (("large", 96), ("small", 50)):
        Image.new("RGB", (side, side)).save(tmp_path / f"{name}.png")
    base = load_base(str(tiny_base), shared=False)
    given = quick | {"data.folder": str(tmp_path), "data.resolution": 32, "data.more_resolutions": [64, 96]}
    config, examples = examples_of(given, base, Cache(tmp_path / "cache"))
    sides = {name: sorted(e.frame.size[0] for e in examples if e.name == name) for name in ("large.png", "small.png")}
    assert sides == {"large.png": [32, 64, 96], "small.png": [32, 48]}
    plan = BatchSampler(examples, 1, 0, config.data)
    seen = Counter(plan.rows(number)[0].example.name for number in range(plan.cycle))
    assert seen["large.png"] == seen["small.png"]
    assert plan.times_seen(12) == pytest.approx((6, 0))


def test_the_cache_holds_what_a_variant_shows(tiny_base, varied, tmp_path):
    """Each variant's latents are those of its own pixels, mirrored where the row is, and SDXL is told its own crop."""
    base = load_base(str(tiny_base), shared=False)
    cache = Cache(tmp_path / "cache")
    config, examples = examples_of(varied, base, cache)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), config.data))
    reader, plan = BatchLoader(base, cache, config.data), BatchSampler(examples, 1, 0, config.data)
    rows = {(row.example.name, row.variant, row.mirrored): row for n in range(40) for row in plan.rows(n)}
    for row in list(rows.values())[:6]:
        variant = row.example.crops[row.variant]
        pixels = variant.image(row.example.item.load())
        if row.mirrored:
            pixels = pixels.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        mean, _ = base.encode_image([pixels])
        assert torch.equal(reader.read([row]).mean, mean.to(reader.device))
        assert row.framing == (row.example.original, (variant.frame.left, variant.frame.top), variant.frame.size)


def test_validation_is_at_the_main_resolution_with_nothing_drawn(tiny_base, varied, tmp_path):
    base, cache = load_base(str(tiny_base), shared=False), Cache(tmp_path / "cache")
    config = config_from(varied)
    chosen = split(config)
    found, _ = list_examples(chosen.items, base, cache, config.data, 0, chosen=chosen, held_out=True)
    assert len(found) == 6 and all(e.is_main and not e.variants for e in found)
    assert {e.captions for e in found} == {("zsk, a red, b, c",), ("two, zsk, a red, b, c",)}


@pytest.mark.full
def test_the_check_says_what_each_folder_comes_to(workspace, varied):
    said = [finding.message for finding in preflight(config_from(varied), workspace).findings]
    assert any(line.startswith("two: 2 images, 50.0% of the samples, each image shown 1.5 times") for line in said)
    assert any(line.startswith("Trained: 6 images in 3 sizes each") for line in said)


ALONE = [{key: value} for key, value in VARIED.items() if key not in ("data.augmentations", "data.flip")]


@pytest.mark.full
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
@pytest.mark.parametrize("setting", ALONE, ids=lambda one: next(iter(one)))
def test_each_setting_alone_resumes_bit_for_bit(workspace, varied, tmp_path, name, setting):
    usual = {key: value for key, value in varied.items() if key not in VARIED} | setting
    usual |= {"base": str(tiny.save(name, tmp_path / "base")), "training.steps": 4}
    for _ in train(config_from(usual | {"name": "whole"}), workspace):
        pass
    stop, config = threading.Event(), config_from(usual | {"name": "halves"})
    for event in train(config, workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 1:
            stop.set()
    for _ in train(config, workspace, folder=workspace.runs / "halves"):
        pass
    assert same(state(workspace.runs / "halves"), state(workspace.runs / "whole"))
