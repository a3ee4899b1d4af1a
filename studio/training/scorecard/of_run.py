"""The scorecards and the verdict of a run, between its events and what they mean. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from studio.training.events import Judged, Scored, Validation
from studio.training.scorecard.scores import Measure, Scores
from studio.training.scorecard.verdict import LEARNED, PARTLY, Evidence, Loss, Verdict, verdict_of


def to_event(scores: Scores) -> Scored:
    return Scored(
        scores.step,
        {name: [one.value, one.spread, float(one.count)] for name, one in scores.measures.items()},
        list(scores.strengths),
        list(scores.strengths.values()),
        list(scores.suspects),
        scores.encoder,
        scores.rows,
        scores.seconds,
        scores.sheet,
    )


def from_event(event: Scored) -> Scores:
    """What is no number, or has none beside it, is left out."""
    measures = {
        name: Measure(float(row[0]), float(row[1]), int(row[2]))
        for name, row in event.measures.items()
        if len(row) == 3 and all(map(math.isfinite, row))
    }
    strengths = {
        float(strength): float(loss)
        for strength, loss in zip(event.strengths, event.strength_losses)
        if math.isfinite(strength) and math.isfinite(loss)
    }
    return Scores(
        event.step, measures, strengths, tuple(event.suspects), event.encoder, event.rows, event.seconds, event.sheet
    )


def losses_of(validations: Sequence[Validation]) -> list[Loss]:
    """The validations whose losses are numbers; a run that went wrong may have others."""
    return [
        Loss(one.step, one.loss, one.base_loss, one.spread)
        for one in validations
        if math.isfinite(one.loss) and math.isfinite(one.base_loss) and one.base_loss > 0
    ]


def judge_run(validations: Sequence[Validation], scores: Sequence[Scores]) -> Verdict:
    """The verdict by what a run has measured so far."""
    return verdict_of(Evidence(losses_of(validations), list(scores)))


def judged_event(step: int, verdict: Verdict, scoring: float = 0.0) -> Judged:
    """step: how far the run is. scoring: share of its time that scorecards took."""
    return Judged(step, **asdict(verdict), scoring=round(scoring, 4))


def verdict_from(event: Judged) -> Verdict:
    """The verdict that was given. Of earlier runs one that said "partly learned" was called learned."""
    outcome = PARTLY if event.outcome == LEARNED and ": partly learned (" in event.sentence else event.outcome
    return Verdict(outcome, event.checkpoint, event.strength, event.sentence, event.remedy, event.link)


def with_card(scores: Sequence[Scores], card: Scores) -> list[Scores]:
    """The scorecards with this one, which replaces an earlier one of the same step, ordered by step."""
    return sorted([*(one for one in scores if one.step != card.step), card], key=lambda one: one.step)


def with_strengths(card: Scores, strengths: dict[float, float], rows: int, seconds: float) -> Scores:
    return replace(card, strengths=strengths, rows=card.rows + rows, seconds=round(card.seconds + seconds, 2))


def as_answer(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """As JSON holds them."""
    return [
        asdict(one) | {"strengths": {f"{strength:g}": loss for strength, loss in one.strengths.items()}}
        for one in scores
    ]
