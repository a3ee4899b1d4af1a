"""What each word of the captions does in a run's adapter, and the sentence and remedy for it. No torch here.

All losses are of the same images at the same timesteps and noise, so that what differs is the word, or the adapter.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from studio.text import percent, pluralize
from studio.training.paired import Difference
from studio.workspace import atomic_write

FILE = "words.json"  # in the run's folder
CARRIES = 0.05  # of the adapter's gain that needs a word: below it, the word is not called one that carries
WEAK = 0.25  # a trigger that carries clearly less than this is called weak
COMMON = 0.8  # of the captions: a word on so many stands beside the trigger, or in its place
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class WordEffect:
    """One word. All losses are means over the images measured.

    captions    how many of the run's captions have it; share: of all of them
    carried     what the adapter gains with the word less what it gains without, as a share of the former
    kept        the loss with the adapter without the word less that with it, as a share of the latter: below 0, the
                word makes it worse
    """

    word: str
    is_trigger: bool
    captions: int
    share: float
    held_out: int  # of the images measured
    trained: int
    base: float  # without the adapter
    base_without: float  # and without the word
    adapter: float
    adapter_without: float
    carried: Difference
    kept: Difference

    @property
    def gain(self) -> float:
        """How much lower the loss is with the adapter, as a share of the base's."""
        return 1 - self.adapter / self.base if self.base else 0.0

    @property
    def gain_without(self) -> float:
        return 1 - self.adapter_without / self.base_without if self.base_without else 0.0


@dataclass(frozen=True)
class Finding:
    """kind: "holds", "weak trigger", "second trigger", "carries", "misfit" or "unclear"; link: as a verdict's."""

    word: str
    kind: str
    sentence: str
    remedy: str = ""
    link: str = ""


@dataclass(frozen=True)
class WordReport:
    """left_out, notes: sentences on what was not measured, and what to know of the rest. step: of the adapter."""

    step: int = 0
    effects: list[WordEffect] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    draws: int = 0
    seconds: float = 0.0

    @property
    def findings(self) -> list[Finding]:
        """A sentence for each word of which there is something to say, triggers first, then by what they carry."""
        ordered = sorted(self.effects, key=lambda one: (not one.is_trigger, -one.carried.value))
        rivals = [one.word for one in self.effects if not one.is_trigger and _is_second(one)]
        found = (finding_of(one, rivals) for one in ordered)
        return [one for one in found if one is not None]

    def as_answer(self) -> dict[str, Any]:
        return asdict(self) | {"findings": [asdict(one) for one in self.findings]}


def finding_of(one: WordEffect, rivals: Sequence[str] = ()) -> Finding | None:
    """What is to be said of a word; None for nothing. rivals: words on most captions that carry as well."""
    if one.is_trigger:
        return _of_trigger(one, rivals)
    if one.kept.is_clear and one.kept.value < 0:
        return Finding(
            one.word,
            "misfit",
            f"“{one.word}” makes it worse: without it the adapter's loss on its images is {_of(one.kept)} lower"
            f" ({pluralize(one.kept.count, 'image')}).",
            "It does not say what is on these images, or was always seen beside something else: correct or remove it.",
            "dataset:edit",
        )
    if not (one.carried.is_clear and one.carried.value >= CARRIES):
        return None
    if _is_second(one):
        return Finding(
            one.word,
            "second trigger",
            f"“{one.word}” stands on {one.share:.0%} of the captions and holds {_of(one.carried)} of what was learned:"
            " a prompt without it gets that much less.",
            "Remove it from the captions, so that the trigger takes it over; or write it into every prompt.",
            "dataset:edit",
        )
    return Finding(
        one.word,
        "carries",
        f"“{one.word}” holds {_of(one.carried)} of what was learned on its images.",
        "As it should be where it names what changes from image to image; if it is part of the subject or style, "
        "remove it from the captions.",
        "dataset:edit",
    )


def _of_trigger(one: WordEffect, rivals: Sequence[str]) -> Finding:
    value, margin, rival = one.carried.value, one.carried.margin, next(iter(rivals), "")
    if one.carried.is_clear and value >= WEAK:
        return Finding(
            one.word, "holds", f"The trigger “{one.word}” holds {_of(one.carried)} of what was learned: it is needed."
        )
    if one.carried.count >= 2 and value + margin < WEAK:
        remedy = (
            f"For a style that should always act this is right. For a subject, remove “{rival}”, which holds "
            "more, from the captions."
            if rival
            else "For a style that should always act this is right. For a subject, add regularization images, on which "
            "the trigger is missing."
        )
        return Finding(
            one.word,
            "weak trigger",
            f"The trigger “{one.word}” is weak: without it {_of(one.carried)} of what was learned is lost, and the "
            "adapter acts on any prompt.",
            remedy,
            "dataset:edit" if rival else "data.regularisation",
        )
    return Finding(
        one.word,
        "unclear",
        f"How much the trigger “{one.word}” holds can't be told from {pluralize(one.carried.count, 'image')}: "
        f"{_of(one.carried)} of what was learned.",
        "Measure again with more images a word.",
    )


def _is_second(one: WordEffect) -> bool:
    return one.share >= COMMON and one.carried.is_clear and one.carried.value >= CARRIES


def _of(one: Difference) -> str:
    """`41 ± 6 %`, without a sign."""
    return f"{100 * abs(one.value):.0f} ± {100 * one.error:.0f} %"


def row_of(one: WordEffect) -> tuple[str, ...]:
    """What a table says of a word: captions, images, gain with it, gain without it, carried."""
    images = f"{one.held_out} held out, {one.trained} trained"
    carried = f"{percent(one.carried.value)} ± {100 * one.carried.error:.0f}" if one.carried.count else "–"
    return (f"{one.captions}", images, percent(-one.gain), percent(-one.gain_without), carried)


def keep(folder: Path, report: WordReport) -> None:
    """Write it into the run's folder. Raises OSError."""
    atomic_write(folder / FILE, json.dumps(asdict(report), ensure_ascii=False, indent=1), lasting=False)


def read(folder: Path) -> WordReport | None:
    """What was measured last; None where nothing was, or the file is damaged."""
    file = folder / FILE
    try:
        if file.stat().st_size > MOST_BYTES:
            return None
        return _REPORT.validate_json(file.read_bytes())
    except (OSError, ValidationError, ValueError, RecursionError):
        return None


_REPORT = TypeAdapter(WordReport)
