"""A run that ends before its last step by the verdict on its scorecards."""

import shutil

import pytest

from studio.adapters import read_adapter
from studio.errors import ConfigError
from studio.training import config_from, read_run, train
from studio.training.checkpoints import every
from studio.training.config_sections import ValidationConfig
from studio.training.ending import settled
from studio.training.events import Finished, Step
from studio.training.scorecard.plan import UNTIL, plan_of
from studio.training.scorecard.scores import Measure
from tests.training.test_run_verdict import card, losses
from tests.training.test_scorecard import SCORED, small_cards  # noqa: F401


@pytest.mark.parametrize(
    ("curve", "cards", "ends"),
    [
        (losses(-0.2, -0.28, -0.3, -0.3), (150, 200), True),
        (losses(-0.2, -0.28, -0.3, -0.3), (200,), False),  # one more card has to say so
        (losses(-0.2, -0.28, -0.3, -0.3), (100, 150), False),  # nothing was scored since
        (losses(-0.2, -0.28, -0.3, -0.34), (150, 200), False),  # still better
        (losses(-0.02, -0.05, -0.12, -0.2), (150, 200), False),  # unfinished then
        (losses(-0.3, -0.3, -0.3, -0.2), (150, 200), True),  # over-fitted since
    ],
)
def test_a_second_card_that_is_no_better_ends_the_run(curve, cards, ends):
    found = settled(curve, [card(step) for step in cards])
    assert bool(found) == ends and (not ends or "learned at step 150, and step 200 is no better" in found)


def test_a_likeness_that_grew_beyond_its_spread_goes_on():
    curve = losses(-0.2, -0.28, -0.3, -0.3)
    assert settled(curve, [card(150), card(200, likeness=0.64)])
    assert not settled(curve, [card(150), card(200, likeness=0.8)])
    assert Measure(0.64).value - 0.6 < 2 * 0.02 * 2**0.5 < 0.8 - 0.6  # of FINE's spread


def test_room_is_made_for_several_cards():
    settings = {"data.folder": "-", "training.steps": 400, "validation.scorecard": 0.2, "validation.every": 40}
    plain, until = (plan_of(config_from(settings | {"validation.until_verdict": on})) for on in (False, True))
    assert len(plain.moments) < UNTIL <= len(until.moments) and plain.size.each() > until.size.each()


def test_it_needs_scorecards():
    with pytest.raises(ConfigError, match="until_verdict needs"):
        config_from({"data.folder": "-", "validation.until_verdict": True, "validation.scorecard": 0})
    assert not ValidationConfig().until_verdict


def test_a_run_killed_before_it_ends_by_the_verdict_ends_there_all_the_same(
    workspace,
    quick,
    small_cards,  # noqa: F811
    monkeypatch,
):
    from studio.training.scorecard import plan
    from studio.training.scorecard import verdict as v

    size = plan.SIZES[0]
    monkeypatch.setattr(plan, "budget_of", lambda config: size.once() + 6 * size.each() + size.strengths())
    # What so small a base draws is judged by its loss alone, and any gain is one.
    monkeypatch.setattr(v, "_FAULTS", ())
    monkeypatch.setattr(v, "_usable", lambda *_: v.Verdict(v.LEARNED, 2, 1.0, "Take step 2.", "", ""))
    monkeypatch.setattr(v, "_without_gain", lambda *_: v.Verdict(v.LEARNED, 2, 1.0, "Take step 2.", "", ""))
    until = {"training.checkpoint_every": 2, "validation.every": 2, "validation.until_verdict": True}
    # The rate is so low that no card is better than the first.
    values = quick | SCORED | until | {"training.steps": 12, "training.learning_rate": 1e-7, "name": "whole"}
    *_, last = train(config_from(values), workspace)
    assert isinstance(last, Finished) and last.step == 4
    assert "Stopped at step 4, by the verdict: learned at step 2, and step 4 is no better" in last.message
    folder = workspace.runs / "whole"
    assert "learned at step 2" in read_adapter(folder / "adapter.safetensors").metadata["studio.ended"]
    assert "ends when one says learned" in read_run(workspace, "whole").setup

    events = train(config_from(values | {"name": "killed"}), workspace)
    for event in events:  # between the second checkpoint and the card that ends it
        if isinstance(event, Step) and event.step == 4:
            break
    events.close()
    killed = workspace.runs / "killed"
    assert [int(one.name) for one in every(killed)] == [2]
    *_, again = train(config_from(values | {"name": "killed"}), workspace, folder=killed)
    assert again.step == 4 and again.message == last.message
    one, other = ((where / "adapter.safetensors") for where in (folder, killed))
    assert read_adapter(one).layers.keys() == read_adapter(other).layers.keys()
    assert read_run(workspace, "whole").losses == read_run(workspace, "killed").losses
    shutil.rmtree(killed)
