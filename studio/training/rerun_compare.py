"""A run that was trained again beside the one that it repeats: the same, or where it parts. No torch here."""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studio.text import pluralize
from studio.training.reading import read_run_folder
from studio.training.rerun import EXPECTED, Rerun, read, tensors_of


@dataclass(frozen=True)
class Part:
    """What is not the same. expected: there; found: here."""

    what: str  # "loss", "held-out loss", a measure of the scorecard, "verdict" or "weights"
    step: int
    expected: float | None = None
    found: float | None = None

    @property
    def share(self) -> float | None:
        """By how much, as a share of what was expected; None where that has no meaning."""
        if self.expected is None or self.found is None or not self.expected:
            return None
        return self.found / self.expected - 1


@dataclass(frozen=True)
class Comparison:
    """steps: compared, of `expected_steps`. first: where the losses part. last: the last loss, where it differs.

    others: held-out losses, measures, verdict and weights that differ.
    """

    name: str
    state: str
    steps: int
    expected_steps: int
    held_out: int = 0
    scores: int = 0
    weights: bool = False  # whether these were compared
    first: Part | None = None
    last: Part | None = None
    others: tuple[Part, ...] = ()

    @property
    def is_same(self) -> bool:
        """As far as it was compared."""
        return self.first is None and not self.others

    @property
    def is_complete(self) -> bool:
        return self.steps >= self.expected_steps > 0 and self.state not in ("running", "interrupted")

    @property
    def sentence(self) -> str:
        if not self.steps:
            return f"Nothing to compare with {self.name} yet."
        if self.is_same:
            what = [pluralize(self.steps, "loss")]
            what += [pluralize(self.held_out, "validation")] if self.held_out else []
            what += [pluralize(self.scores, "scorecard")] if self.scores else []
            what += ["the adapter's weights"] if self.weights else []
            if self.is_complete:
                return f"The same as {self.name}, bit for bit: {_and(what)}."
            of = f"{self.steps:,} of {self.expected_steps:,} steps"
            return f"The same as {self.name} so far, bit for bit: {of}."
        lines = []
        if self.first:
            lines.append(f"Parts from {self.name} at step {self.first.step:,}: loss {_values(self.first)}.")
        else:
            lines.append(f"All {self.steps:,} losses are those of {self.name}, bit for bit.")
        if self.first and self.last and self.last.step > self.first.step:
            lines.append(f"At step {self.last.step:,} the loss is {_values(self.last)}.")
        lines += [_said(one) for one in self._shown()]
        return " ".join(lines)

    def _shown(self) -> list[Part]:
        """The last part of each kind."""
        return list({one.what: one for one in self.others}.values())

    def as_answer(self) -> dict[str, Any]:
        return asdict(self) | {"same": self.is_same, "complete": self.is_complete, "sentence": self.sentence}


def compare(folder: Path) -> Comparison | None:
    """The run in `folder` beside the one that it repeats; None where it repeats none. Raises RunError."""
    file = folder / EXPECTED
    return compared(read(file), folder) if file.is_file() else None


def compared(record: Rerun, folder: Path) -> Comparison:
    """The run in `folder` beside that of the file."""
    view, expected = read_run_folder(folder), record.expected
    here = {step: loss for step, loss, _ in view.losses}
    both = [(step, loss, here[step]) for step, loss in expected.losses if step in here]
    parted = [Part("loss", *row) for row in both if not _same(row[1], row[2])]
    others: list[Part] = []
    held = {one.step: one for one in view.validations}
    measured = [one for one in expected.held_out if one.step in held]
    for one in measured:
        for what, there, now in (
            ("held-out loss", one.loss, held[one.step].loss),
            ("held-out loss of the base", one.base_loss, held[one.step].base_loss),
        ):
            others += [] if _same(there, now) else [Part(what, one.step, there, now)]
    cards = {one.step: one for one in view.scores}
    scored = [one for one in expected.scores if one.step in cards]
    for card in scored:
        for what, value in card.measures.items():
            found = cards[card.step].get(what)
            if found is None or not _same(value, found.value):
                others.append(Part(what, card.step, value, found.value if found else None))
    ended = view.state in ("finished", "stopped")
    kept, tensors = tensors_of(folder / "adapter.safetensors") if ended else (0, "")
    weights = bool(expected.tensors and tensors) and view.state == expected.state
    if weights and tensors != expected.tensors:
        others.append(Part("weights", kept))
    sentence = view.verdict.sentence if view.verdict else ""
    if ended and view.state == expected.state and expected.verdict and sentence != expected.verdict:
        others.append(Part("verdict", view.step))
    return Comparison(
        record.name,
        view.state,
        len(both),
        len(expected.losses),
        len(measured),
        len(scored),
        weights,
        parted[0] if parted else None,
        parted[-1] if parted else None,
        tuple(others),
    )


def _same(one: float, other: float) -> bool:
    return one == other or (math.isnan(one) and math.isnan(other))


def _values(one: Part) -> str:
    share = one.share
    by = f" ({100 * share:+.2g} %)".replace("-", "−") if share is not None and math.isfinite(share) else ""
    return f"{_number(one.expected)} there, {_number(one.found)} here{by}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.9g}"


def _said(one: Part) -> str:
    if one.what == "weights":
        return f"The adapter's weights, of step {one.step:,}, differ."
    if one.what == "verdict":
        return "The verdict differs."
    return f"The {one.what} of step {one.step:,} is {_values(one)}."


def _and(parts: list[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1]
