"""The one verdict on a run, from made-up losses and scores whose truth is known."""

import pytest

from studio.training.scorecard import verdict as v
from studio.training.scorecard.scores import Measure, Scores
from studio.training.scorecard.verdict import Evidence, Loss, verdict_of

FINE = {"likeness": 0.6, "prompt": -0.03, "drift": 0.1, "collapse": 0.0, "memorized": 0.0, "gap": 0.02, "captions": 0.5}


def losses(*shares: float) -> list[Loss]:
    return [Loss(50 * (n + 1), 0.5 * (1 + share), 0.5, 0.001) for n, share in enumerate(shares)]


def card(step: int, strengths: dict[float, float] | None = None, **changes: float) -> Scores:
    measures = {name: Measure(value, 0.02, 6) for name, value in (FINE | changes).items()}
    return Scores(step, measures, strengths or {1.0: 0.7, 0.8: 0.71})


GOOD = losses(-0.2, -0.28, -0.3, -0.3)


@pytest.mark.parametrize(
    "curve, changes, outcome",
    [
        (GOOD, {}, v.LEARNED),
        (losses(-0.02, -0.05, -0.12, -0.2, -0.3), {}, v.UNFINISHED),
        (GOOD, {"likeness": 0.3}, v.PARTLY),
        (GOOD, {"likeness": 0.1}, v.UNFINISHED),
        (losses(-0.2, -0.3, -0.1, 0.1), {}, v.OVERFITTED),
        (losses(0.1, 0.3, 0.9), {}, v.BROKEN),
        (losses(0.0, 0.001, 0.0, 0.0), {"likeness": 0.0, "room": 2.0}, v.NOTHING),
        (losses(0.0, 0.001, 0.0, 0.0), {"likeness": 0.0, "room": 0.1}, v.KNOWN),
        (GOOD, {"collapse": 0.9, "prompt": -0.9}, v.COLLAPSED),
        (GOOD, {"memorized": 0.8}, v.MEMORIZED),
        (GOOD, {"gap": 0.6}, v.MEMORIZED),
        (GOOD, {"captions": -0.1}, v.CAPTIONS),
        (GOOD, {"captions": 0.06, "captions_after": 0.0}, v.CAPTIONS),
        (GOOD, {"captions": 0.06, "captions_after": 0.4}, v.LEARNED),  # a style that the base can't read
        (GOOD, {"captions": 0.5, "captions_after": 0.0}, v.LEARNED),
        (GOOD, {"captions": 0.0, "different": 0.0}, v.ONE_CAPTION),
        (GOOD, {"lost": 0.3}, v.IMAGES),
        (losses(-0.05, -0.08), {"room": 0.1}, v.KNOWN),
        (losses(-0.001, -0.002), {"likeness": 0.0, "room": 2.0}, v.NOTHING),
        (GOOD, {"prompt": -0.95}, v.BROKEN),
        (GOOD, {"drift": 1.2}, v.DRIFTED),
    ],
)
def test_what_is_wrong_with_a_run_is_named(curve, changes, outcome):
    best = min(curve, key=lambda one: one.loss)
    found = verdict_of(Evidence(curve, [card(best.step, **changes)]))
    assert found.outcome == outcome and found.usable == (outcome in v.USABLE)
    assert found.sentence.endswith(".") and (outcome == v.LEARNED or (found.remedy and found.link))
    assert found.checkpoint == (best.step if found.usable else 0)


def test_a_loss_that_soon_shows_is_too_short_and_one_that_does_not_is_nothing():
    soon = verdict_of(Evidence(losses(-0.003, -0.007), [card(100, likeness=0.0, room=2.0)]))
    assert soon.outcome == v.UNFINISHED and "Too short" in soon.sentence


def test_a_sound_checkpoint_is_taken_where_the_best_one_is_not():
    found = verdict_of(Evidence(GOOD, [card(100), card(150, memorized=0.9)]))
    assert found.checkpoint == 100 and found.usable and "At step 150" in found.sentence


def test_the_strength_of_the_lowest_loss_is_taken_when_clearly_lower():
    one = verdict_of(Evidence(GOOD, [card(150, {0.8: 0.6, 1.0: 0.7})]))
    other = verdict_of(Evidence(GOOD, [card(150, {0.8: 0.699, 1.0: 0.7})]))
    assert one.strength == 0.8 and "at strength 0.8" in one.sentence and other.strength == 1.0


def test_without_scores_the_sentence_says_that_nothing_was_drawn():
    found = verdict_of(Evidence(GOOD))
    assert found.outcome == v.LEARNED and found.checkpoint == 150 and "was not scored" in found.sentence
    assert verdict_of(Evidence()).outcome == v.UNKNOWN


def test_a_measure_within_its_spread_accuses_nobody():
    unsure = Scores(150, {"captions": Measure(v.MISFIT - 0.05, 0.2, 6), "gap": Measure(v.GAP + 0.05, 0.2, 6)})
    assert verdict_of(Evidence(GOOD, [unsure])).outcome == v.LEARNED
