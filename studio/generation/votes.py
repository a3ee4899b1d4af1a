"""Blind votes on a grid: two of its images of the same prompt and seed, and which one a person likes better."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from studio.errors import GenerationError
from studio.generation.contact_sheet import SavedGrid, position
from studio.generation.grids import JUDGED
from studio.workspace import write_whole

FILE = "votes.json"
SAID = ("left", "right", "same")
_MOST = 100_000  # votes on one grid
_lock = threading.Lock()

Vote = tuple[int, int, str]  # the cell on the left, the one on the right, and one of SAID


@dataclass(frozen=True)
class Score:
    """What a candidate got."""

    name: str
    won: int
    lost: int
    same: int


def pairs(grid: SavedGrid) -> list[tuple[int, int]]:
    """Cells that can be put beside each other: they differ in strength, adapter or checkpoint, and in nothing else."""
    groups: dict[tuple, list[int]] = {}
    for number, image in enumerate(grid.images):
        if image is not None:
            groups.setdefault(_without(grid, number, JUDGED), []).append(number)
    return [pair for group in groups.values() for pair in combinations(group, 2)]


def candidate(grid: SavedGrid, number: int) -> str:
    """What is voted on in this cell: its adapter, checkpoint and strength."""
    places = position(grid.sides, number)
    return " · ".join(side.labels[place] for side, place in zip(grid.sides, places) if side.kind in JUDGED)


def _without(grid: SavedGrid, number: int, kinds: Sequence[str]) -> tuple[int, ...]:
    places = position(grid.sides, number)
    return tuple(place for side, place in zip(grid.sides, places) if side.kind not in kinds)


def next_pair(grid: SavedGrid, chance: random.Random | None = None) -> tuple[int, int]:
    """Two cells, left and right by chance, of those that were shown least. Raises GenerationError: there are none."""
    chance = chance or random.Random()
    open_pairs = pairs(grid)
    if not open_pairs:
        raise GenerationError("A vote needs two images that differ in adapter, checkpoint or strength alone.")
    shown = Counter(frozenset(vote[:2]) for vote in votes(grid))
    least = min(shown[frozenset(pair)] for pair in open_pairs)
    left, right = chance.choice([pair for pair in open_pairs if shown[frozenset(pair)] == least])
    return (left, right) if chance.random() < 0.5 else (right, left)


def votes(grid: SavedGrid) -> list[Vote]:
    """All so far; what is damaged is passed over."""
    try:
        told = json.loads((grid.folder / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [tuple(one) for one in told if _is_vote(one, len(grid.images))] if isinstance(told, list) else []


def _is_vote(one: object, many: int) -> bool:
    return (
        isinstance(one, list) and len(one) == 3 and one[2] in SAID and one[0] != one[1]
        and all(type(cell) is int and 0 <= cell < many for cell in one[:2])
    )  # fmt: skip


def cast(grid: SavedGrid, left: int, right: int, said: str) -> None:
    """Keep a vote beside the images. Raises GenerationError for one that is none."""
    if said not in SAID or {left, right} not in map(set, pairs(grid)):
        raise GenerationError("These two images are not there to be voted on any more: begin again.")
    with _lock:
        write_whole(grid.folder / FILE, json.dumps([*votes(grid)[-_MOST:], (left, right, said)]))


def tally(grid: SavedGrid) -> list[Score]:
    """What each candidate got, the best first: a win counts one, the same a half, of all that it was shown."""
    won, lost, same = Counter[str](), Counter[str](), Counter[str]()
    for left, right, said in votes(grid):
        one, other = candidate(grid, left), candidate(grid, right)
        if said == "same":
            same.update((one, other))
        else:
            won[one if said == "left" else other] += 1
            lost[other if said == "left" else one] += 1
    scores = [Score(name, won[name], lost[name], same[name]) for name in {*won, *lost, *same}]
    return sorted(scores, key=lambda one: (-(one.won + one.same / 2) / (one.won + one.lost + one.same), one.name))
