"""A plan: from what a few steps measured to settings with reasons; and the probes themselves."""

import threading
from dataclasses import replace

import pytest

from studio.errors import RunError
from studio.training import config_from
from studio.training.config import dotted
from studio.training.paired import Difference
from studio.training.planner.plan import (
    LONGER,
    MOST_SEEN,
    YOURS,
    Measured,
    Probe,
    Wish,
    most_steps,
    plan_for,
    seconds_of,
)
from studio.training.planner.probes import FACTOR, STEPS, judged_by, measure, ways_to_fit
from studio.training.scorecard.plan import UNTIL, plan_of
from studio.workspace import ASSETS
from tests.training.test_caption_words import result_of

CONFIG = config_from({"data.folder": "-", "training.steps": 400, "validation.every": 50})
FOUND = Measured(
    images=30, enlarged=0, held_out=5, resolution=128, usual=128, change={}, tried=1, memory=3.0, available=10.0,
    step=1.0, preview=2.0, validation=5.0, before=20.0, steps=10, judges=8, parameters="1 M trainable parameters",
)  # fmt: skip
SAME, LOWER, WORSE = Difference(-0.002, 0.003, 8), Difference(-0.04, 0.003, 8), Difference(0.05, 0.003, 8)


def probes(low: Difference, high: Difference) -> tuple[Probe, ...]:
    own = CONFIG.training.learning_rate
    return tuple(
        Probe(own * factor, -0.1 + one.value, one) for factor, one in ((1 / 3, low), (1, Difference()), (3, high))
    )


def row(plan, setting):
    return next(one for one in plan.rows if one.setting == setting)


def test_every_value_of_a_plan_has_a_reason():
    plan = plan_for(CONFIG, Wish(), replace(FOUND, probes=probes(SAME, SAME)))
    shown = {one.setting: one for one in plan.rows}
    wanted = ("adapter.kind", "adapter.rank", "data.resolution", "training.batch_size", "training.steps")
    assert shown.keys() >= {*wanted, "training.learning_rate"} and all(one.reason for one in plan.rows)
    assert plan.settings == {} and "400 steps in about" in plan.sentence  # a usual set: the preset stays as it is
    whole = seconds_of(CONFIG, FOUND)
    assert plan.minutes == whole / 60 > 400 / 60


@pytest.mark.parametrize(
    ("low", "high", "minutes", "rate", "words"),
    [
        (SAME, SAME, None, 1, "No difference beyond the spread: the preset's rate stays"),
        (WORSE, SAME, None, 1, "the preset's rate stays"),
        (LOWER, WORSE, None, 1 / 3, "is too high here"),
        (WORSE, LOWER, None, 1, "A higher rate is ahead at first"),
        (WORSE, LOWER, 3, 3, "shorter than the preset's"),  # there is no time for the preset's
        (WORSE, SAME, 3, 1, "the preset's rate stays"),
    ],
)
def test_the_rate_moves_only_where_the_probes_clearly_say_so(low, high, minutes, rate, words):
    plan = plan_for(CONFIG, Wish(minutes), replace(FOUND, probes=probes(low, high)))
    found = row(plan, "training.learning_rate")
    assert found.value == pytest.approx(rate * CONFIG.training.learning_rate) and words in found.reason


def test_a_plan_keeps_to_the_minutes():
    plan = plan_for(CONFIG, Wish(minutes=5), FOUND)
    whole = config_from(dotted(CONFIG) | plan.settings)
    assert seconds_of(whole, FOUND) <= 300 and whole.training.steps < 400 and plan.minutes <= 5
    assert whole.training.steps > 150 and "instead of 400" in row(plan, "training.steps").reason
    assert whole.validation.every < 50  # as many validations as before
    assert most_steps(10, lambda steps: 3 + steps) == 7 and most_steps(1, lambda steps: 3 + steps) == 0
    late = plan_for(CONFIG, Wish(minutes=0.1), FOUND)
    assert "longer than 0.1 minutes" in late.notes[0]


def test_few_images_are_not_shown_without_end():
    plan = plan_for(CONFIG, Wish(), replace(FOUND, images=3))
    assert (
        plan.settings["training.steps"] == MOST_SEEN * 3 / 4 + 0.5 and "memorizes" in row(plan, "training.steps").reason
    )
    many = plan_for(CONFIG, Wish(), replace(FOUND, images=1000))
    assert many.settings["training.steps"] == 2500


def test_until_it_is_right_makes_room_for_scorecards():
    plan = plan_for(CONFIG, Wish(until_right=True), FOUND)
    whole = config_from(dotted(CONFIG) | plan.settings)
    assert whole.validation.until_verdict and whole.training.steps == LONGER * 400
    assert len(plan_of(whole, FOUND.pixels).moments) >= UNTIL and plan.sentence.startswith("At most 800")
    unseen = plan_for(CONFIG, Wish(until_right=True), replace(FOUND, held_out=0))
    assert "validation.until_verdict" not in unseen.settings and "needs images held out" in unseen.notes[-1]
    short = plan_for(CONFIG, Wish(until_right=True, minutes=1), FOUND)
    assert "no room" in row(short, "validation.until_verdict").reason


def test_what_a_person_set_stays():
    fixed = frozenset({"training.steps", "training.learning_rate", "training.batch_size"})
    plan = plan_for(CONFIG, Wish(minutes=1, until_right=True, fixed=fixed), replace(FOUND, probes=probes(LOWER, WORSE)))
    assert not fixed & plan.settings.keys() and "longer than 1 minutes" in plan.notes[0]
    assert row(plan, "training.batch_size").reason == row(plan, "training.learning_rate").reason == YOURS
    ways = ways_to_fit(CONFIG, 128, 16, fixed)
    assert ways[0] == {} and all("training.batch_size" not in way for way in ways)


def test_memory_is_saved_before_the_resolution_falls():
    ways = ways_to_fit(CONFIG, 128, 16, frozenset())
    assert [way.get("data.resolution") for way in ways if "data.resolution" in way] == [96, 64]
    assert ways[1] == {"training.gradient_checkpointing": True} and "data.resolution" in ways[-1]
    change = {"training.batch_size": 1, "training.accumulation": 4, "training.gradient_checkpointing": True}
    plan = plan_for(CONFIG, Wish(memory=12), replace(FOUND, change=change, available=3.5))
    assert plan.settings.items() >= change.items() and "that are free" in row(plan, "training.batch_size").reason
    assert "4 images" in row(plan, "training.accumulation").reason and "less than the 12" in plan.notes[0]


@pytest.fixture
def short_probes(monkeypatch):
    from studio.training.planner import probes as module

    monkeypatch.setattr(module, "STEPS", 2)


def test_probes_measure_a_base_and_write_nothing_but_the_cache(workspace, quick, short_probes):
    from studio.basemodels import load_base

    config = config_from(quick | {"validation.every": 2, "preview.every": 3, "preview.steps": 1})
    found = result_of(measure(config, Wish(), workspace, threading.Event()))
    own = config.training.learning_rate
    assert [one.rate for one in found.probes] == pytest.approx([own / FACTOR, own, own * FACTOR])
    assert found.judges == 8 and all(one.against.count == 8 for one in found.probes)
    assert found.step > 0 and found.preview > 0 and found.memory > 0 and found.images == 22
    assert not any(workspace.runs.iterdir())
    assert not any("lora" in name for name, _ in load_base(quick["base"], precision="fp32").model.named_modules())
    plan = plan_for(config, Wish(minutes=60), found)
    assert plan.minutes > 0 and all(one.reason for one in plan.rows)
    again = result_of(measure(config, Wish(), workspace, threading.Event()))
    assert [one.share for one in again.probes] == [one.share for one in found.probes]  # the same steps, bit for bit


def test_probes_can_be_stopped_and_refuse_a_base_that_is_too_large(workspace, quick, short_probes):
    stop = threading.Event()
    for _ in (going := measure(config_from(quick), Wish(), workspace, stop)):
        stop.set()
    going.close()
    with pytest.raises(RunError, match="The base model alone takes"):
        result_of(measure(config_from(quick), Wish(memory=1e-4), workspace, threading.Event()))


def test_images_are_left_out_of_the_probes_where_few_are_held_out():
    from types import SimpleNamespace

    own = [
        SimpleNamespace(is_main=True, regularization=False, item=SimpleNamespace(path=str(number)))
        for number in range(12)
    ]
    judges, learned = judged_by(own, [], 0)
    assert len(judges) == 4 and not {id(one) for one in judges} & {id(one) for one in learned}
    assert judged_by(own, own, 0) == (own[:8], own)
    assert STEPS >= 8 and (ASSETS / "datasets").is_dir()
