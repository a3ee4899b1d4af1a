"""Blind votes on a grid: a person sees two images of the same prompt and seed and chooses the better one."""

import json
import math
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from studio.errors import GenerationError
from studio.generation.contact_sheet import SavedGrid, position
from studio.generation.grids import JUDGED
from studio.workspace import atomic_write

FILE = "votes.json"
ANSWERS = ("left", "right", "same")
LEVEL = 0.05  # of the sign test
USEFUL = (6, 10, 20)  # numbers of votes for which the page says how many must agree; the last is enough for most
_MOST = 100_000  # votes on one grid
_lock = threading.Lock()

Vote = tuple[int, int, str]  # the cell on the left, the one on the right, and one of ANSWERS


@dataclass(frozen=True)
class Score:
    """The score of a candidate."""

    name: str
    won: int
    lost: int
    same: int


def chance_of(won: int, lost: int) -> float:
    """How probably chance alone is as one-sided: the two-sided sign test (Dixon and Mood, 1946), without ties."""
    many = won + lost
    tail = sum(math.comb(many, count) for count in range(max(won, lost), many + 1)) / 2**many
    return min(1.0, 2 * tail)


def agreeing(many: int) -> int | None:
    """Of so many votes, the fewest that must agree to be beyond chance at LEVEL; None where all are not enough."""
    return next((count for count in range(many // 2 + 1, many + 1) if chance_of(count, many - count) <= LEVEL), None)


def guide() -> str:
    """How many votes are useful, in one sentence."""
    few, some, many = (f"{agreeing(count)} of {count}" for count in USEFUL)
    return f"Beyond chance at {LEVEL:.0%} are {few}, {some} or {many} that agree; {USEFUL[-1]} votes are useful."


def verdict(scores: Sequence[Score]) -> str:
    """Whether the best of these is better than chance says; "" without votes that decide.

    The best of several is the best by chance more easily: the level is divided by how many there are (Bonferroni).
    """
    if not scores or not (best := scores[0]).won + best.lost:
        return ""
    many, chance = best.won + best.lost, chance_of(best.won, best.lost)
    others = len(scores) if len(scores) > 2 else 1
    found = f"{best.name} is preferred in {best.won} of {many}"
    if best.won > best.lost and chance * others <= LEVEL:
        return f"{found}: beyond chance (p = {min(1, chance * others):.2g})."
    return f"{found}: not beyond chance (p = {min(1, chance * others):.2g}). {guide()}"


def pairs(grid: SavedGrid) -> list[tuple[int, int]]:
    """Cells that can be compared: they differ in strength, adapter or checkpoint, and in nothing else."""
    groups: dict[tuple, list[int]] = {}
    for number, image in enumerate(grid.images):
        if image is not None:
            groups.setdefault(_without(grid, number, JUDGED), []).append(number)
    return [pair for group in groups.values() for pair in combinations(group, 2)]


def candidate(grid: SavedGrid, number: int) -> str:
    """The candidate in this cell: its adapter, checkpoint and strength."""
    places = position(grid.sides, number)
    return " · ".join(side.labels[place] for side, place in zip(grid.sides, places) if side.kind in JUDGED)


def _without(grid: SavedGrid, number: int, kinds: Sequence[str]) -> tuple[int, ...]:
    places = position(grid.sides, number)
    return tuple(place for side, place in zip(grid.sides, places) if side.kind not in kinds)


def next_pair(grid: SavedGrid, chance: random.Random | None = None) -> tuple[int, int]:
    """Two cells of those that were shown least, in random order. Raises GenerationError when there are none."""
    chance = chance or random.Random()
    open_pairs = pairs(grid)
    if not open_pairs:
        raise GenerationError("A vote needs two images that differ only in adapter, checkpoint or strength.")
    shown = Counter(frozenset(vote[:2]) for vote in votes(grid))
    least = min(shown[frozenset(pair)] for pair in open_pairs)
    left, right = chance.choice([pair for pair in open_pairs if shown[frozenset(pair)] == least])
    return (left, right) if chance.random() < 0.5 else (right, left)


def votes(grid: SavedGrid) -> list[Vote]:
    """All so far; damaged entries are skipped."""
    try:
        found = json.loads((grid.folder / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return []
    return [tuple(one) for one in found if _is_vote(one, len(grid.images))] if isinstance(found, list) else []


def _is_vote(one: object, many: int) -> bool:
    return (
        isinstance(one, list)
        and len(one) == 3
        and one[2] in ANSWERS
        and one[0] != one[1]
        and all(type(cell) is int and 0 <= cell < many for cell in one[:2])
    )


def cast(grid: SavedGrid, left: int, right: int, answer: str) -> None:
    """Save a vote beside the images. Raises GenerationError when it is not valid."""
    if answer not in ANSWERS or {left, right} not in map(set, pairs(grid)):
        raise GenerationError("These two images can't be voted on any more: start the vote again.")
    with _lock:
        atomic_write(grid.folder / FILE, json.dumps([*votes(grid)[-_MOST:], (left, right, answer)]))


def tally(grid: SavedGrid) -> list[Score]:
    """The score of each candidate, the best first: a win counts 1, a tie 0.5, divided by how often it was shown."""
    won, lost, same = Counter[str](), Counter[str](), Counter[str]()
    for left, right, answer in votes(grid):
        one, other = candidate(grid, left), candidate(grid, right)
        if answer == "same":
            same.update((one, other))
        else:
            won[one if answer == "left" else other] += 1
            lost[other if answer == "left" else one] += 1
    scores = [Score(name, won[name], lost[name], same[name]) for name in {*won, *lost, *same}]
    return sorted(scores, key=lambda one: (-(one.won + one.same / 2) / (one.won + one.lost + one.same), one.name))
