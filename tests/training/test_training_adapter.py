"""A training adapter acts as if it were merged into the base while a run trains, and never while an image is drawn."""

import copy

import numpy as np
import pytest
import torch

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.basemodels import load_base
from studio.errors import RunError
from studio.generation import Recipe, draw
from studio.generation.adapter_cache import cache_of
from studio.training import config_from, new_run, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.distributed import Distributed
from studio.training.effects import about_distilled
from studio.training.events import Finished, Warned
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.selection import split
from studio.training.train_step import TrainStep


@pytest.fixture
def base(tiny_base):
    return load_base(str(tiny_base), shared=False)


@pytest.fixture
def file(base, tmp_path):
    """Random numbers on the attention layers, with alpha half the rank."""
    torch.manual_seed(3)
    adapter = attach(base.model, AdapterSpec(rank=4, alpha=2, targets="attention"))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    adapter.save(tmp_path / "undo.safetensors", "unet")
    adapter.detach()
    return tmp_path / "undo.safetensors"


def merged(base, file):
    """W + alpha / rank · B A, written into the weights."""
    for (_, path), update in read_adapter(file).layers.items():
        layer = base.model.get_submodule(path)
        with torch.no_grad():
            layer.weight += 2 / 4 * update.parts["B"] @ update.parts["A"]


def steps_on(base, config, cache):
    import threading

    examples, _ = list_examples(split(config).items[:2], base, cache, config.data, 0)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), config.data))
    step = TrainStep(config, base, Distributed())
    try:
        plan = BatchSampler(examples, 2, 0, config.data)
        reader = BatchLoader(base, cache, config.data)
        losses = [step.step(number, plan, reader, 1.0).losses for number in (1, 2)]
        return torch.stack(losses), step.values()
    finally:
        step.detach()


def test_a_run_trains_as_on_a_base_with_it_merged(base, quick, file, tmp_path):
    other = copy.deepcopy(base)
    merged(other, file)
    plain = config_from(quick | {"name": "x", "data.caption_dropout": 0})
    config = config_from(quick | {"name": "x", "data.caption_dropout": 0, "training.training_adapter": str(file)})
    cache = Cache(tmp_path / "cache")
    losses, values = steps_on(base, config, cache)
    wanted_losses, wanted = steps_on(other, plain, cache)
    without, _ = steps_on(base, plain, cache)
    torch.testing.assert_close(losses, wanted_losses, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(values, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-5)
    assert (without - losses).abs().max() > 1e-3 and not any(p.requires_grad for p in base.model.parameters())


def test_no_image_is_drawn_with_it(base, quick, file):
    config = config_from(quick | {"name": "x", "training.training_adapter": str(file)})
    recipe = Recipe(prompt="red apple", steps=2, width=64, height=64)
    plain = np.asarray(draw(base, recipe))
    step = TrainStep(config, base, Distributed())
    with cache_of(base).training(file.with_name("a.safetensors"), step.adapters, step.beside):
        assert (np.asarray(draw(base, recipe)) != plain).any()
        with step.drawing():
            assert (np.asarray(draw(base, recipe)) == plain).all()
        with cache_of(base).active([]):
            assert (np.asarray(draw(base, recipe)) == plain).all()
        assert step.beside.strength == 1
    assert (np.asarray(draw(base, recipe)) == plain).all()


def test_a_run_keeps_its_own_copy_and_leaves_it_out_of_the_result(quick, file, workspace):
    config = config_from(quick | {"name": "x", "training.steps": 2, "training.training_adapter": str(file)})
    folder = new_run(config, workspace)
    file.unlink()
    events = list(train(config, workspace, folder=folder))
    assert isinstance(events[-1], Finished)
    said = [event.message for event in events if isinstance(event, Warned)]
    assert any("is for distilled bases, and SD 1.5 is none" in line for line in said)
    updates = read_adapter(folder / "adapter.safetensors").layers
    assert {update.rank for update in updates.values()} == {4}
    for update in updates.values():  # two steps from nothing: not the file's random numbers
        assert update.parts["B"].abs().max() < 0.02
    with pytest.raises(RunError, match="put it back"):
        TrainStep(config, load_base(quick["base"], shared=False), Distributed())


def test_a_distilled_base_without_one_is_a_warning(quick, tmp_path, tiny_base):
    link = tmp_path / "dreamshaper-lcm"
    link.symlink_to(tiny_base)
    config = config_from(quick | {"base": str(link)})
    assert "is distilled" in about_distilled(config)[0]
    assert not about_distilled(config_from(quick | {"base": str(link), "training.training_adapter": "x"}))
    assert not about_distilled(config_from(quick))
