"""Prior prediction against a loss computed by hand with diffusers' own UNet, and what it is for: the class stays."""

import threading

import pytest
import torch
from torch.nn import functional as F

from studio.basemodels import load_base
from studio.training import checkpoints, config_from, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.distributed import Distributed
from studio.training.events import Started
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.prior_prediction import prior_caption
from studio.training.selection import split
from studio.training.train_step import TrainStep
from tests import tiers

PRIOR = {"data.trigger": "zsk", "data.class_word": "toy", "data.prior_prediction": 0.5, "data.caption_dropout": 0}


@pytest.mark.parametrize(
    ("caption", "word", "wanted"),
    [
        ("zsk, a red cat", "dog", "dog, a red cat"),
        ("zsk, a red cat", "", "a red cat"),
        ("a photo of ZSK on a beach", "dog", "a photo of dog on a beach"),
        ("a photo of zsk, red", "", "a photo of, red"),
        ("zsk", "", ""),
        ("a zskin", "dog", None),
        ("a cat", "dog", None),
        ("", "dog", None),
        ("zsk, a cat", "zsk", None),
    ],
)
def test_the_class_word_takes_the_triggers_place(caption, word, wanted):
    assert prior_caption(caption, "zsk", word) == wanted


@pytest.fixture
def begun(quick, workspace):
    """begun(settings): (a step with an adapter that changes something, sampler, loader, base) on the tiny base."""
    steps = []

    def make(settings):
        config = config_from(quick | PRIOR | settings)
        base, cache = load_base(config.base, shared=False), Cache(workspace.cache / "encoded")
        own, _ = list_examples(split(config).items, base, cache, config.data, 0)
        list(encode_missing(own, base, cache, Distributed(), threading.Event(), config.data))
        step = TrainStep(config, base, Distributed())
        steps.append(step)
        torch.manual_seed(1)
        for parameter in step.parameters:
            parameter.data += 0.2 * torch.randn_like(parameter)
        return step, BatchSampler(own, 2, 0, config.data), BatchLoader(base, cache, config.data), base

    yield make
    for step in steps:
        step.detach()


def by_hand(step, base, plan, reader, weight: float) -> torch.Tensor:
    """mse(unet(x_t, c), noise) + weight · mse(unet(x_t, c'), bare unet(x_t, c')) of each row, with diffusers alone."""
    drawn = step._draw(0, plan)
    batch = reader.read(drawn.rows)
    latents, t = batch.mean + batch.spread * drawn.fresh, base.times(drawn.shares)
    noisy = base.pipeline.scheduler.add_noise(latents, drawn.noise, t)
    unet, other = base.pipeline.unet, [row.caption.replace("zsk", "toy") for row in drawn.rows]
    words, instead = (base.encode_prompt(c)["states"] for c in ([r.caption for r in drawn.rows], other))
    with torch.no_grad():
        adapted, of_class = (unet(noisy, t, states, return_dict=False)[0] for states in (words, instead))
        step.strength = 0.0
        prior = unet(noisy, t, instead, return_dict=False)[0]
        step.strength = 1.0
    rows = [F.mse_loss(a, n) + weight * F.mse_loss(c, p) for a, n, c, p in zip(adapted, drawn.noise, of_class, prior)]
    return torch.stack(rows)


@pytest.mark.parametrize("more", tiers.default([{}, {"training.gradient_checkpointing": True}]))
def test_the_loss_is_the_one_computed_by_hand(begun, more):
    step, plan, reader, base = begun(more)
    wanted, without = by_hand(step, base, plan, reader, 0.5), by_hand(step, base, plan, reader, 0.0)
    assert (wanted > without * 1.001).all()
    (found,) = step._gradients(1, plan, reader)
    assert torch.allclose(found[1], wanted, rtol=1e-5)


def test_smaller_pieces_and_checkpointing_give_the_same_gradients(begun):
    found = []
    for settings, size in (({}, None), ({}, 1), ({"training.gradient_checkpointing": True}, None)):
        step, plan, reader, _ = begun(settings)
        step.pieces.size = size
        step._gradients(1, plan, reader)
        found.append([p.grad.clone() for p in step.parameters])
    for other in found[1:]:
        assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in zip(found[0], other))


def test_images_without_a_trigger_to_replace_have_no_such_loss(begun):
    plain, plan, reader, _ = begun({"data.prior_prediction": 0})
    silent, silent_plan, silent_reader, _ = begun({"data.caption_dropout": 1})
    dropped, dropped_plan, dropped_reader, _ = begun({"data.caption_dropout": 1, "data.prior_prediction": 0})
    assert all(row.prior is None for row in (*plan.rows(0), *silent_plan.rows(0)))
    one, two = silent._gradients(1, silent_plan, silent_reader), dropped._gradients(1, dropped_plan, dropped_reader)
    assert torch.equal(one[0][1], two[0][1])


@pytest.mark.full
def test_the_base_draws_the_class_as_before(begun):
    """What the adapter changes about the class prompt is less than half of what it changes without prior prediction."""
    drift = []
    for weight in (0, 3):
        step, plan, reader, base = begun({"data.prior_prediction": weight, "training.learning_rate": 3e-3})
        for number in range(1, 25):
            step.step(number, plan, reader, 1.0)
        draw = torch.Generator().manual_seed(5)
        noisy, t = torch.randn((8, *base.latent_shape(64, 64)), generator=draw), base.times(torch.linspace(0.1, 0.9, 8))
        states = base.encode_prompt(["toy, rocket, on a gray background"] * 8)
        with torch.no_grad():
            adapted = base.predict(noisy, t, states)
            step.strength = 0.0
            drift.append(F.mse_loss(adapted, base.predict(noisy, t, states)).item())
    assert drift[1] < 0.5 * drift[0], drift


def test_with_a_training_text_encoder_the_base_reads_with_its_own(begun):
    step, plan, reader, base = begun({"adapter.text_encoder": True})
    reader = BatchLoader(base, reader.cache, step.config.data, texts=False)
    (found,) = step._gradients(1, plan, reader)
    assert torch.isfinite(found[1]).all() and step.strength == 1.0
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in step.adapters["text_encoder"].parameters())


def test_a_run_says_what_it_costs_and_resumes_bit_for_bit(workspace, quick):
    busy = quick | PRIOR | {"training.accumulation": 2, "adapter.dropout": 0.1, "training.steps": 4}
    events = list(train(config_from(busy | {"name": "whole"}), workspace))
    assert "Prior prediction: each step takes about" in next(e.setup for e in events if isinstance(e, Started))
    config, stop = config_from(busy | {"name": "halves"}), threading.Event()
    for event in train(config, workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 2:
            stop.set()
    for _ in train(config, workspace, folder=workspace.runs / "halves"):
        pass
    one, two = (checkpoints.newest(workspace.runs / name)["train_step"]["adapters"] for name in ("whole", "halves"))
    assert all(torch.equal(tensor, two[part][key]) for part, own in one.items() for key, tensor in own.items())
