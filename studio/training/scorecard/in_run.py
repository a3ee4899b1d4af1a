"""Fills scorecards while a run trains, within its budget, and without a change to what it learns."""

import io
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from studio import devices
from studio.basemodels import Family
from studio.basemodels.defaults import variant_of
from studio.errors import StudioError, out_of_memory, user_message
from studio.text import pluralize
from studio.training.config import RunConfig
from studio.training.defaults import prompts_of
from studio.training.events import Event, Scored, Warned
from studio.training.examples import Example
from studio.training.previews import side_of
from studio.training.scorecard.card import Scorer, Shown
from studio.training.scorecard.of_run import from_event, to_event, with_card, with_strengths
from studio.training.scorecard.plan import Plan, plan_of
from studio.training.scorecard.scores import Scores
from studio.training.scorecard.verdict import fault_of
from studio.workspace import atomic_write

log = logging.getLogger(__name__)
FOLDER = "scorecard"  # in the run folder: the contact sheets
MOST = 64  # images of each kind that are looked at


class RunScorer:
    """The scorecards of one run. sound: of the best checkpoint without a fault, {"step", "loss", …, "values"}."""

    def __init__(
        self,
        config: RunConfig,
        base: Family,
        examples: Sequence[Example],
        held_out: Sequence[Example],
        folder: Path,
        set_strength: Callable[[float], None],
    ):
        self.config, self.base, self.folder = config, base, folder
        trained = [one for one in examples if not one.regularization and one.is_main]
        self._shown = [_shown(some[:MOST]) for some in (held_out, trained)]
        self._set_strength = set_strength
        side = config.data.resolution or base.resolution
        self.plan = plan_of(config, (side_of(base) / side) ** 2) if trained else Plan(None)
        self.scores: list[Scores] = []
        self.sound: dict[str, Any] | None = None
        self.seconds = 0.0
        self.failed = False  # of this process: nothing is scored any more, while the others go on by the same plan
        self._scorer: Scorer | None = None

    def line(self) -> str:
        """What will be scored, in a sentence for the run's setup."""
        share = f"{100 * self.config.validation.scorecard:.0f} % of the run's computing"
        if not self.config.validation.scorecard:
            return "No scorecards: validation.scorecard is 0."
        if self.plan.size is None:
            return f"No scorecards: {share} is too little for one; score the run when it has ended."
        size, at = self.plan.size, [f"{step:,}" for step in self.plan.moments]
        images = pluralize(size.held_out + size.trained + size.unrelated, "prompt")
        line = f"Scorecards of {images} at {', '.join([*(f'step {one}' for one in at), 'the end'])}, in {share}."
        if not self.config.validation.until_verdict:
            return line
        if len(at) < 2:
            return f"{line} Too few for validation.until_verdict: give them more with validation.scorecard."
        return f"{line} The run ends when one says learned and the next is no better."

    def due(self, step: int) -> bool:
        return self.plan.size is not None and step in self.plan.moments

    def score(self, step: int, last: bool = False) -> Iterator[Event]:
        """Fill the card of the adapter as it is now. last: also find its strength."""
        if self.plan.size is None or self.failed:
            return
        known = next((one for one in self.scores if one.step == step), None)
        try:
            with devices.random_numbers_kept():
                card = self._strengths(known) if known and last else self._card(step, last)
        except Exception as error:
            reason = user_message(error)
            if reason is None and not isinstance(error, StudioError) and not out_of_memory(error):
                raise
            log.exception("the scorecard of step %d", step)
            self.failed = True
            yield Warned(step, f"No more scorecards: that of step {step} could not be filled. {reason or error}")
            return
        finally:
            self._set_strength(1.0)
        self.scores = with_card(self.scores, card)
        yield to_event(card)

    def _card(self, step: int, last: bool) -> Scores:
        scorer = self._made()
        card, sheet = scorer.score(step, strengths=last)
        stream, file = io.BytesIO(), self.folder / FOLDER / f"{step:06d}.png"
        sheet.save(stream, "PNG")
        file.parent.mkdir(exist_ok=True)
        atomic_write(file, stream.getvalue(), lasting=False)
        self.seconds += card.seconds
        return replace(card, sheet=file.relative_to(self.folder).as_posix())

    def _strengths(self, card: Scores) -> Scores:
        scorer, began = self._made(), time.monotonic()
        before = scorer.rows
        found = scorer.strengths()
        seconds = time.monotonic() - began
        self.seconds += seconds
        return with_strengths(card, found, scorer.rows - before, seconds)

    def _made(self) -> Scorer:
        if self._scorer is None:
            assert self.plan.size is not None
            held_out, trained = self._shown
            usual = prompts_of(variant_of(self.config.base))
            self._scorer = Scorer(self.base, self.config, held_out, trained, usual, self._set_strength, self.plan.size)
        return self._scorer

    def fault(self, step: int) -> str:
        """What is wrong with the scored checkpoint of a step; "" for nothing, or where it was not scored."""
        return next((fault_of(one) for one in self.scores if one.step == step), "")

    def remember(self, best: dict[str, Any]) -> None:
        """Weights that were scored without a fault; the best of them is kept where the best of all has one."""
        if self.sound is None or best["loss"] < self.sound["loss"]:
            self.sound = best

    def state(self) -> dict[str, Any]:
        return {"scores": [vars(to_event(one)) for one in self.scores], "sound": self.sound, "seconds": self.seconds}

    def restore(self, state: dict[str, Any] | None) -> None:
        self.scores = [from_event(Scored(**one)) for one in state["scores"]] if state else []
        self.sound, self.seconds = (state["sound"], state["seconds"]) if state else (None, 0.0)


def _shown(examples: Sequence[Example]) -> list[Shown]:
    return [
        Shown(one.name, one.caption, lambda one=one: one.frame.cut(one.item.load()))  # type: ignore[misc]
        for one in examples
    ]
