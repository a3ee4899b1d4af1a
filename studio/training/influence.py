"""What came of measuring an image's influence: both held-out losses, and what they say. No torch here."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from studio.text import pluralize
from studio.training.paired import LEAST, Difference
from studio.workspace import atomic_write

FILE = "influence.json"  # in the run's folder
KEPT = 100  # images
MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class Influence:
    """Two branches of a run from one checkpoint, with an image and with its loss at zero.

    first, last       the steps that both took; the checkpoint is that of the step before `first`, 0 is the start
    places, of        of the image, of all places in the batches of these steps
    with_it           held-out loss at the end; without_it: the same of the other branch
    effect            the loss with it less that without it, an image held out at a time, as a share of the latter
    repeats           whether the branch with it has the losses that the run wrote down, bit for bit; None where the
                      run wrote none of these steps
    """

    image: str
    first: int
    last: int
    places: int
    of: int
    with_it: float
    without_it: float
    effect: Difference
    repeats: bool | None = None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kind(self) -> Literal["hurts", "helps", "can't be told"]:
        if not self.effect.is_clear:
            return "can't be told"
        return "hurts" if self.effect.value > 0 else "helps"

    @property
    def sentence(self) -> str:
        steps, size = pluralize(self.last - self.first + 1, "step"), f"{_percent(self.effect)} %"
        if self.kind == "hurts":
            return f"{self.image} hurts: without it the held-out loss is {size} lower after {steps}."
        if self.kind == "helps":
            return f"{self.image} helps: without it the held-out loss is {size} higher after {steps}."
        held_out = pluralize(self.effect.count, "held-out image")
        why = f"{held_out} are too few, hold out at least {LEAST}" if self.effect.count < LEAST else "within the spread"
        side = "lower" if self.effect.value > 0 else "higher"
        return (
            f"Whether {self.image} helps or hurts can't be told: without it the held-out loss is {size} {side} after "
            f"{steps}, over {held_out} ({why})."
        )

    @property
    def differs(self) -> str:
        """What the two branches have in common, and in what they differ."""
        start = f"the checkpoint of step {self.first - 1:,}" if self.first > 1 else "the start of the run"
        same = {True: " The branch with it repeats the run, bit for bit.", False: REPEATS_NOT, None: ""}[self.repeats]
        return (
            f"Both begin at {start} and take steps {self.first:,} to {self.last:,} with the same batches, captions, "
            f"noise, timesteps and learning rates. Without it, the loss at {self.places} of {self.of:,} places is "
            f"zero; nothing else differs.{same}"
        )

    def as_answer(self) -> dict[str, Any]:
        return asdict(self) | {"kind": self.kind, "sentence": self.sentence, "differs": self.differs}


REPEATS_NOT = (
    " The branch with it does not repeat the run's own losses: the run was made with other images, another device or "
    "other versions."
)


def _percent(one: Difference) -> str:
    return f"{100 * abs(one.value):.2f} ± {100 * one.error:.2f}"


def keep(folder: Path, found: Influence) -> None:
    """Write it beside those of other images. Raises OSError."""
    others = [one for one in read(folder) if one.image != found.image]
    rows = [asdict(one) for one in [found, *others][:KEPT]]
    atomic_write(folder / FILE, json.dumps(rows, ensure_ascii=False, indent=1), lasting=False)


def read(folder: Path) -> list[Influence]:
    """What was measured, the newest first; [] where nothing was, or the file is damaged."""
    file = folder / FILE
    try:
        return [] if file.stat().st_size > MOST_BYTES else _ROWS.validate_json(file.read_bytes())
    except (OSError, ValidationError, ValueError, RecursionError):
        return []


_ROWS = TypeAdapter(list[Influence])
