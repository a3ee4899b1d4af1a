"""Scorecards of a run: they cost what was planned, change nothing of what is learned, and work on any base."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from studio.training import config_from, read_run, train
from studio.training.events import Judged, Scored, Step, from_dict, to_dict
from studio.training.scorecard.of_run import from_event
from studio.training.scorecard.plan import NOISES, SIZES, plan_of
from studio.training.scorecard.probes import different, probes_of
from studio.workspace import ASSETS
from tests import tiers
from tests.basemodels import tiny

SCORED = {
    "data.held_out": str(ASSETS / "datasets" / "held-out" / "silhouette"),
    "data.trigger": "zsk",
    "training.steps": 8,
    "training.batch_size": 2,
    "training.checkpoint_every": 4,
    "validation.every": 4,
    "validation.scorecard": 1.0,
    "preview.steps": 2,
}


@pytest.fixture
def small_cards(monkeypatch):
    """Cards of a few images in a run of a few steps, at its validation and at its end."""
    from studio.training.scorecard import plan

    size = plan.Size(3, 0, 1, 1, 1, 1, 3, 1)
    monkeypatch.setattr(plan, "SIZES", (size,))
    monkeypatch.setattr(plan, "budget_of", lambda config: size.once() + 2 * size.each() + size.strengths())


def run(workspace, values):
    return list(train(config_from(values), workspace))


def test_scoring_changes_no_bit_of_the_run(workspace, quick, small_cards, monkeypatch):
    scored = run(workspace, quick | SCORED | {"name": "with", "adapter.dropout": 0.3})
    with monkeypatch.context() as patch:
        patch.setattr("studio.training.scorecard.plan.SIZES", ())
        plain = run(workspace, quick | SCORED | {"name": "without", "adapter.dropout": 0.3})
    losses = [[event.loss for event in events if isinstance(event, Step)] for events in (scored, plain)]
    assert losses[0] == losses[1] and any(isinstance(event, Scored) for event in scored)
    assert not any(isinstance(event, Scored) for event in plain)
    one, other = (
        load_file(workspace.runs / name / "checkpoints" / "000008" / "adapter.safetensors")
        for name in ("with", "without")
    )
    assert all(torch.equal(one[key], other[key]) for key in one | other)


def test_cards_and_verdict_are_in_the_events_and_in_the_run_folder(workspace, quick, small_cards):
    judged_config = config_from(quick | SCORED | {"name": "run"})
    events = list(train(judged_config, workspace))
    cards = [event for event in events if isinstance(event, Scored)]
    judged = next(event for event in events if isinstance(event, Judged))
    assert [card.step for card in cards][0] == 4 and sum(card.rows for card in cards) <= plan_of(judged_config).budget
    assert 0 < judged.scoring < 1
    assert all((workspace.runs / "run" / card.sheet).is_file() for card in cards)
    view = read_run(workspace, "run")
    assert view.scores and view.scores[-1] == from_event(cards[-1])
    assert view.verdict and view.verdict.sentence == judged.sentence and view.word == judged.outcome
    for event in (*cards, judged):
        assert from_dict(json.loads(json.dumps(to_dict(event)))) == event


def test_a_budget_too_small_is_reported_and_nothing_is_drawn(workspace, quick):
    events = run(workspace, quick | SCORED | {"name": "run", "validation.scorecard": 0.01, "training.steps": 2})
    assert not any(isinstance(event, Scored) for event in events)
    assert "too little for one" in read_run(workspace, "run").setup


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_what_is_planned_fits_into_the_budget(share):
    values = {"data.folder": "-", "training.steps": 2000, "training.batch_size": 2, "validation.scorecard": share}
    plan = plan_of(config_from(values))
    assert plan.size is not None
    cost = plan.size.once() + (1 + len(plan.moments)) * plan.size.each() + plan.size.strengths()
    assert cost <= plan.budget == int(share * 2000 * 2 * 3)


def test_the_starters_usual_run_has_a_card_within_a_tenth():
    plan = plan_of(config_from({"data.folder": "-"}))
    assert plan.size in SIZES and plan.size.losses * NOISES > 0


@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl"]))
def test_every_measure_needs_nothing_but_the_base(tmp_path, name):
    from studio.adapters import AdapterSpec, attach
    from studio.basemodels import load_base
    from studio.datasets import open_dataset
    from studio.training.scorecard.card import Scorer, Shown
    from studio.training.scorecard.plan import Size

    line = str(tiny.save(name, tmp_path))
    base = load_base(line, shared=False)
    adapter = attach(base.model, AdapterSpec(rank=2))
    shown = [Shown(i.file, f"zsk, {i.caption}", i.load) for i in open_dataset(ASSETS / "datasets" / "silhouette").items]
    size = Size(3, 1, 1, 1, 2, 2, 4, 1)
    config = config_from({"base": line, "data.folder": "-", "data.trigger": "zsk"})
    scorer = Scorer(base, config, shown[:4], shown[4:10], ["fish"], lambda s: setattr(adapter, "strength", s), size)
    scores, sheet = scorer.score(1)
    measured = {"likeness", "trigger", "collapse", "memorized", "drift", "gap", "room", "different", "lost"}
    assert measured <= set(scores.measures) and scores.value("different") == pytest.approx(5 / 6, abs=1e-4)
    assert not scores.encoder and scores.rows <= size.once() + size.each() + size.strengths()
    assert scores.measures["drift"].value == pytest.approx(0, abs=1e-5)  # a fresh adapter changes nothing
    assert list(scores.strengths.values()) == pytest.approx([1.0] * 4) and sheet.height > sheet.width


def test_noise_is_told_from_images_by_the_vae():
    from studio.basemodels import load_base
    from studio.training.scorecard.features import Features

    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8))
    drawn = [Image.open(file) for file in sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[:3]]
    lost = Features(load_base("starter")).lost([*drawn, Image.new("RGB", (64, 64), "red"), noise])
    assert (lost[:-1] < 0.1).all() and lost[-1] > 0.8


def test_where_all_captions_are_the_same_other_prompts_are_asked_with_the_trigger():
    images = [(f"{n}.png", "zsk") for n in range(5)]
    found = probes_of(images[:2], images[2:], ["fish", "house"], "zsk", (2, 1, 1))
    assert [one.prompt for one in found if one.kind in ("held-out", "trained")] == ["zsk"] * 3
    assert "zsk, fish" in [one.prompt for one in found if one.kind == "asked"]
    assert [found[n].plain for n in different(found)][:2] == ["", "fish"]
    own = probes_of([("a", "zsk, cat"), ("b", "zsk, dog")], [("c", "zsk, cow")], ["fish"], "zsk", (2, 1, 1))
    assert "asked" not in [one.kind for one in own]
