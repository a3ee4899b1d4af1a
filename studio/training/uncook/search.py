"""A small search for the scales of block groups. Pure; no torch here."""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from studio.text import percent, pluralize
from studio.training.paired import Difference, difference

DRIFT_WEIGHT = 0.25  # of drift beside the held-out loss
GRID = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # scales
LEAST_STEP = 0.003  # of the base's loss: less moves no scale
LEAST_GAIN = 0.01  # of the base's loss: less is nothing better
MOST = 40  # evaluations
GROUPS = ("down", "mid", "up", "first blocks", "middle blocks", "last blocks", "the rest", "text encoder")

Scales = Mapping[str, float]  # by group; 1 where none is named


@dataclass(frozen=True)
class Reading:
    """What the images say of an adapter at these scales, a value an image, as shares of the base's loss on it.

    losses: held-out losses; drifts: how far the prediction went for a prompt that has nothing to do with it.
    """

    scales: Scales
    losses: Sequence[float]
    drifts: Sequence[float]
    rank: int = 0  # that it was cut to; 0 for its own

    @property
    def loss(self) -> float:
        return sum(self.losses) / len(self.losses)

    @property
    def drift(self) -> float:
        return sum(self.drifts) / len(self.drifts)

    @property
    def objective(self) -> float:
        return self.loss + DRIFT_WEIGHT * self.drift

    def over(self, other: "Reading") -> Difference:
        """Its objective less that of the other, an image at a time."""
        mine, yours = (
            [loss + DRIFT_WEIGHT * drift for loss, drift in zip(one.losses, one.drifts)] for one in (self, other)
        )
        return difference([a - b for a, b in zip(mine, yours)])


Evaluate = Callable[[Scales], Reading]


def search(groups: Sequence[str], evaluate: Evaluate, most: int = MOST) -> Generator[int, None, Reading]:
    """The best reading found: each group by itself, then all together, twice; yields how many were evaluated.

    groups: those that change the weights most first, since what they do hides the others. A scale goes down or up GRID
    as long as the objective falls by more than LEAST_STEP, and goes back to 1 in the end where that costs no more, so
    that what is healthy stays.
    """
    best, counted = evaluate({}), 1
    yield counted
    for _ in range(2):
        start = best
        together = [tuple(groups)] if len(groups) > 1 else []
        for names in (*((name,) for name in groups), *together):
            before = best
            scales = {name: before.scales.get(name, 1.0) for name in groups}
            if len({scales[name] for name in names}) > 1:
                continue
            for way in _ways(scales[names[0]]):
                for scale in way:
                    if counted >= most:
                        return best
                    found = evaluate(scales | dict.fromkeys(names, scale))
                    counted += 1
                    yield counted
                    if found.objective > best.objective - LEAST_STEP:
                        break
                    best = found
                if best is not before:
                    break
        if best is start:
            break
    for name in groups:
        if best.scales.get(name, 1.0) != 1 and counted < most:
            found = evaluate({**best.scales, name: 1.0})
            counted += 1
            yield counted
            best = found if found.objective < best.objective + LEAST_STEP else best
    return best


def _ways(scale: float) -> tuple[list[float], list[float]]:
    """Down from here, and up."""
    return [one for one in reversed(GRID) if one < scale], [one for one in GRID if one > scale]


def group_of(component: str, block: str, order: Mapping[str, int]) -> str:
    """Which of GROUPS a block is in. order: places of the numbered blocks of a model without down and up."""
    if component.startswith("text_encoder"):
        return "text encoder"
    rest = block.removeprefix(f"{component}.")
    for start, name in (("down_blocks", "down"), ("mid_block", "mid"), ("up_blocks", "up")):
        if rest.startswith(start):
            return name
    if block in order:
        third = 3 * order[block] // len(order)
        return ("first blocks", "middle blocks", "last blocks")[third]
    return "the rest"


@dataclass(frozen=True)
class GroupRow:
    """before, after: ‖delta‖ / ‖W‖ over its layers."""

    name: str
    layers: int
    scale: float
    before: float
    after: float


@dataclass(frozen=True)
class Uncooked:
    """What came of it. before, after: on images that the search did not see, where `apart`.

    maps: the block maps before and after, as `adapters.block_map` makes them; file: what was written, "" for nothing
    """

    adapter: str
    groups: list[GroupRow]
    before: Reading
    after: Reading
    rank: int
    images: int
    apart: bool
    evaluations: int
    seconds: float
    file: str = ""
    notes: tuple[str, ...] = ()
    maps: tuple[Any, Any] | None = None

    @property
    def gain(self) -> Difference:
        return self.after.over(self.before)

    @property
    def is_better(self) -> bool:
        """Whether something was found that is clearly better."""
        changed = any(row.scale != 1 for row in self.groups) or self.after.rank
        return bool(changed) and self.gain.is_clear and -self.gain.value >= LEAST_GAIN

    @property
    def sentence(self) -> str:
        before, after = self.before, self.after
        if not self.is_better:
            facts = (
                f"held-out loss {_against(before.loss)}, drift {percent(before.drift).lstrip('+')} of the base's loss"
            )
            return f"Nothing better was found: {self.adapter} stays as it is ({facts})."
        return (
            f"{self._changes}: the held-out loss goes from {_against(before.loss)} to {_against(after.loss)}, the "
            f"drift from {percent(before.drift).lstrip('+')} to {percent(after.drift).lstrip('+')} of the base's loss."
        )

    @property
    def _changes(self) -> str:
        """ "up × 0.25, rank 16 → 8"."""
        changes = [f"{row.name} × {row.scale:g}" for row in self.groups if row.scale != 1]
        return ", ".join(changes + ([f"rank {self.rank} → {self.after.rank}"] if self.after.rank else []))

    @property
    def best_tried(self) -> tuple[str, ...]:
        """What was the best on the search's images, and is not clearly better on those that decide; () for nothing."""
        if not self._changes:
            return ()
        gain = self.gain
        size = f"{100 * gain.value:+.1f} ± {100 * gain.error:.1f} %".replace("-", "−")
        return (
            f"The best that was tried, {self._changes}, changes loss and drift together by {size} of the base's loss.",
        )

    def beside_strength(self, alone: Mapping[float, Reading]) -> tuple[str, ...]:
        """A line where a lower strength of the whole adapter does nearly as much, by what was read at each; else ()."""
        strength = min(alone, key=lambda one: alone[one].objective)
        found = alone[strength]
        if found.objective > self.after.objective + LEAST_GAIN:
            return ()
        facts = f"held-out loss {_against(found.loss)}, drift {percent(found.drift).lstrip('+')}"
        return (f"Strength {strength:g} of the old file does nearly as much: {facts}.",)

    @property
    def judged(self) -> str:
        """By which images."""
        own = "images that the search did not see" if self.apart else "the images that the search saw"
        return f"Judged on {pluralize(self.images, 'image')}: {own}; {pluralize(self.evaluations, 'evaluation')}."

    def as_answer(self) -> dict[str, Any]:
        values = {
            name: {"loss": one.loss, "drift": one.drift}
            for name, one in (("before", self.before), ("after", self.after))
        }
        return {
            "adapter": self.adapter,
            "sentence": self.sentence,
            "judged": self.judged,
            "is_better": self.is_better,
            "groups": [vars(row) for row in self.groups],
            **values,
            "rank": self.after.rank or self.rank,
            "file": self.file,
            "notes": list(self.notes),
            "seconds": self.seconds,
        }


def _against(share: float) -> str:
    return f"{percent(share - 1)} against the base"


def unchanged(groups: Sequence[GroupRow]) -> list[GroupRow]:
    """The rows of an adapter that stays."""
    return [replace(row, scale=1.0, after=row.before) for row in groups]
