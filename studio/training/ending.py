"""Why a run ends before its last step by itself. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from studio.training.config import RunConfig
from studio.training.events import Validation
from studio.training.scorecard.of_run import losses_of
from studio.training.scorecard.scores import Scores
from studio.training.scorecard.verdict import LEARNED, Evidence, Loss, verdict_of
from studio.training.verdict import OVERFITTING


@dataclass(frozen=True)
class Measured:
    """What a run has measured so far. verdicts: on its loss, one for each validation."""

    verdicts: Sequence[str]
    validations: Sequence[Validation]
    scores: Sequence[Scores]


def ending(config: RunConfig, measured: Measured) -> str:
    """Why the run ends now, to follow "Stopped at step 100, "; "" to go on.

    It is made of what the run folder and its checkpoints hold, so that a resumed run ends where it would have ended.
    """
    if config.validation.stop and list(measured.verdicts[-2:]) == [OVERFITTING] * 2:
        return "since the held-out loss rose"
    return settled(losses_of(measured.validations), measured.scores) if config.validation.until_verdict else ""


def settled(losses: Sequence[Loss], scores: Sequence[Scores]) -> str:
    """What the two newest scorecards say, where the first was enough and the second is no better; else ""."""
    cards = sorted((one for one in scores if one.step), key=lambda one: one.step)[-2:]
    if len(cards) < 2 or (losses and losses[-1].step > cards[-1].step):  # nothing was scored since
        return ""
    before, now = ([one for one in losses if one.step <= card.step] for card in cards)
    first = verdict_of(Evidence(before, [one for one in scores if one.step <= cards[0].step]))
    second = verdict_of(Evidence(now, list(scores)))
    if first.outcome != LEARNED or not second.usable or _is_better(before, now, *cards):
        return ""
    earlier, later = (f"{card.step:,}" for card in cards)
    return f"by the verdict: learned at step {earlier}, and step {later} is no better"


def _is_better(before: Sequence[Loss], now: Sequence[Loss], earlier: Scores, later: Scores) -> bool:
    """Whether the loss or the likeness gained more than its spread from one scorecard to the next."""
    best = [min((one for one in some if one.step), key=lambda one: one.loss, default=None) for some in (before, now)]
    if best[0] and best[1] and best[0].share - best[1].share >= best[1].clear:
        return True
    one, other = earlier.get("likeness"), later.get("likeness")
    return bool(one and other and other.value - one.value > 2 * math.hypot(one.spread, other.spread))
