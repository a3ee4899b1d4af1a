"""A run in epochs: as many steps as show each image so often, counted on the batches themselves."""

from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from studio.basemodels import load_base
from studio.errors import ConfigError
from studio.training import config_from, config_from_toml, extend_run, new_run, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.events import Finished, Started
from studio.training.examples import list_examples
from studio.training.length import with_steps
from studio.training.selection import split


@pytest.fixture
def images(tmp_path):
    """images(name, count, repeats): a folder of images of one shape."""

    def make(name, count, repeats=1):
        folder = tmp_path / name / (f"{repeats}_kind" if repeats > 1 else "")
        folder.mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (128, 128), (number * 9, 0, 0)).save(folder / f"{name}{repeats}{number}.png")
        return tmp_path / name

    return make


def settings(folder, **more):
    usual = {"data.folder": str(folder), "data.trigger": "zsk", "validation.every": 0, "preview.every": 0, "name": "x"}
    return config_from(usual | {"training.warmup": 2, "training.batch_size": 2} | more)


def shown(config):
    """How often each image is shown in the run, by its own batches."""
    base, cache, chosen = load_base("starter"), Cache(Path(config.data.folder).parent / "cache"), split(config)
    own, _ = list_examples(chosen.items, base, cache, config.data, 0)
    other, _ = list_examples(chosen.regularization, base, cache, config.data, 0, True)
    plan = BatchSampler(own + other, config.training.batch_size, 0, config.data)
    batches = range(config.training.steps * config.training.accumulation)
    return Counter(row.example.name for number in batches for row in plan.rows(number))


@pytest.mark.parametrize(("more", "steps"), [({}, 12), ({"training.accumulation": 2}, 6), ({"data.repeats": 3}, 36)])
def test_each_image_is_shown_so_often(images, more, steps):
    config = with_steps(settings(images("a", 8), **{"training.epochs": 3}, **more))
    assert config.training.steps == steps
    times = 3 * config.data.repeats
    assert set(shown(config).values()) == {times}


def test_repeats_of_a_folder_and_regularization_images_count(images):
    images("a", 2)
    folder, other = images("a", 3, repeats=2), images("b", 16)
    config = with_steps(settings(folder, **{"training.epochs": 4, "data.regularisation": str(other)}))
    assert config.training.steps == 4 * (2 + 6) * 2 // 2  # as many regularization images besides
    found = shown(config)
    assert {found[f"a1{n}.png"] for n in range(2)} == {4}
    assert {found[f"2_kind/a2{n}.png"] for n in range(3)} == {8}
    assert sum(count for name, count in found.items() if name.startswith("b/")) == 32


def test_a_part_of_an_epoch_and_a_warm_up_that_is_too_long(images):
    folder = images("a", 8)
    assert with_steps(settings(folder, **{"training.epochs": 0.5})).training.steps == 2
    config = with_steps(settings(folder, **{"training.epochs": 10, "training.warmup": 100}))
    assert (config.training.steps, config.training.warmup) == (40, 4)
    assert with_steps(settings(folder)).training.steps == 200
    with pytest.raises(ConfigError):
        with_steps(settings(folder, **{"training.epochs": 100_000, "data.repeats": 1000}))


def test_a_run_says_both_keeps_both_and_is_extended_in_steps(images, workspace):
    config = settings(images("a", 4), **{"max_train_epochs": 1, "adapter.rank": 1, "adapter.targets": "attention"})
    folder = new_run(config, workspace)
    events = list(train(config, workspace, folder=folder))
    started = next(event for event in events if isinstance(event, Started))
    assert isinstance(events[-1], Finished) and events[-1].step == started.steps == 2
    assert "2 steps, 1 epochs" in started.setup
    kept = config_from_toml(folder / "run.toml").training
    assert (kept.steps, kept.epochs) == (2, 1)
    assert extend_run(folder, 5).training.epochs is None
    assert with_steps(config_from_toml(folder / "run.toml")).training.steps == 5
