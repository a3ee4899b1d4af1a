"""Grids: one recipe drawn again and again, with one, two or three things changed step by step.

An axis is plain data, `cells` are the recipes that it makes, and `draw_cells` draws them: where they differ in nothing
but the strength of one adapter, as one batch from the same noise.
"""

import csv
import io
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from studio.errors import GenerationError, StudioError
from studio.generation.applied_adapter import MAX_STRENGTH as STRONGEST
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.prompts import read_prompt
from studio.generation.recipe import Recipe
from studio.generation.schedulers import NAMES

KINDS = ("strength", "adapter", "checkpoint", "prompt", "words", "seed", "steps", "guidance", "scheduler")
NUMBERS = ("strength", "guidance", "seed", "steps")
JUDGED = ("strength", "adapter", "checkpoint")  # what a vote is about
MAX_CELLS = 150  # cells of one grid
BATCH = 8  # images drawn at once, so that the memory of a large image is not needed a hundred times
_ARROW = re.compile("→|->|=>")  # between the word to look for and what is put in its place
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)"
_RANGE = re.compile(
    rf"({_NUMBER})\s*(?:-|–|to|\.\.)\s*({_NUMBER})"
    rf"(?:\s+in\s+(?P<count>\d+)|\s*\[\s*(?P<forge>\d+)\s*\]|\s*\(\s*(?P<by>{_NUMBER})\s*\))?"
)


@dataclass(frozen=True)
class Axis:
    """What changes along one side of a grid.

    kind    one of KINDS
    values  strengths and guidances as float, seeds and steps as int, adapters and checkpoints as Path, the others str.
            Of "words" the first is what the prompt says, and all of them are put in its place
    index   which of the recipe's adapters, for strength, adapter and checkpoint
    """

    kind: str
    values: tuple[Any, ...]
    index: int = 0

    @property
    def title(self) -> str:
        """What stands beside the side as a whole."""
        return {"words": f"Instead of “{self.values[0]}”"}.get(self.kind, self.kind.capitalize())

    @property
    def labels(self) -> tuple[str, ...]:
        """A label for each value, which says enough without the title."""
        return tuple(_label(self.kind, value) for value in self.values)


def _label(kind: str, value: Any) -> str:
    if isinstance(value, Path):
        return AppliedAdapter(file=value).title
    if kind == "steps":
        return f"{value} step{'s' * (value != 1)}"
    if kind in ("strength", "guidance"):
        return f"{kind} {value:g}"
    return f"seed {value}" if kind == "seed" else str(value)


# What a person types ------------------------------------------------------------------------------------------------


def parse_values(kind: str, text: str) -> tuple[Any, ...]:
    """The values of an axis, each once. Raises GenerationError, with the reason.

    Numbers: `0, 0.5, 1`, `1-4`, `0-1 in 5` (five of them, both ends among them), `0-1 (0.25)` (each so far from the
    last); also A1111's `0-1 [5]`. Prompts: one a line. Words and schedulers: with commas between, in quotation marks
    where they hold one; `red → green, blue` is the same as `red, green, blue`.
    """
    text = text.strip()
    if len(text) > 20_000:
        raise GenerationError(f"The values for {kind} are too long: {MAX_CELLS} images are the most.")
    if kind in NUMBERS:
        found = [number for piece in re.split(r"[,;\n]", text) for number in _numbers(kind, piece.strip())]
    elif kind == "prompt":
        found = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found = _words(text)
    values = tuple(dict.fromkeys(found))
    if not values:
        raise GenerationError(f"There are no values for {kind}: write some, or take the axis away.")
    if kind == "words" and len(values) < 2:
        raise GenerationError("Words need the one to look for and at least one to put in its place: red, green.")
    if kind in ("prompt", "words") and any(read_prompt(value).adapters for value in values):
        raise GenerationError("Adapters are named in the form's prompt, not in a grid's: choose the axis Adapter.")
    if kind == "scheduler":
        values = tuple(map(_scheduler, values))
    return values


def _numbers(kind: str, piece: str) -> list[Any]:
    whole = kind in ("seed", "steps")
    if not piece:
        return []
    if len(piece) > 100:
        raise GenerationError(f"{piece[:40]!r} is too long to be a value for {kind}: put commas between them.")
    if re.fullmatch(_NUMBER, piece):
        return [_number(kind, piece, whole)]
    found = _RANGE.fullmatch(piece)
    if not found:
        raise GenerationError(
            f"{piece[:40]!r} is no number for {kind}: write them like `0, 0.5, 1`, `1-4` or `0-1 in 5`."
        )
    first, last = (_number(kind, end, whole) for end in found.groups()[:2])
    count = found["count"] or found["forge"]
    if count:
        many = int(count)
        step = (last - first) / (many - 1) if many > 1 else 0
    else:
        by = _number(kind, found["by"], False) if found["by"] else 1
        if by == 0:
            raise GenerationError(f"{piece[:40]!r} never gets to its end: write a step that is not 0.")
        step = math.copysign(by, last - first)
        many = int((last - first) / step + 1e-9) + 1
    if not 1 <= many <= MAX_CELLS:
        raise GenerationError(f"{piece[:40]!r} are {many:,} values: from 1 to {MAX_CELLS} can be drawn.")
    values = [first + number * step for number in range(many)]
    return [round(value) for value in values] if whole else [round(value, 6) for value in values]


def _number(kind: str, text: str, whole: bool) -> Any:
    value = float(text)
    if not math.isfinite(value) or (whole and value != int(value)):
        raise GenerationError(f"{text[:40]!r} can't be used for {kind}: write a whole number.")
    return int(text) if whole and re.fullmatch(r"[+-]?\d+", text) else int(value) if whole else value


def _words(text: str) -> list[str]:
    arrow = _ARROW.search(text)
    if arrow and '"' not in text[: arrow.start()]:  # else it is a part of a word
        text = f"{text[: arrow.start()]}, {text[arrow.end() :]}"
    try:
        rows = list(csv.reader(text.splitlines(), skipinitialspace=True))
    except csv.Error as error:
        raise GenerationError("The words can't be told apart: put commas between them.") from error
    return [piece.strip() for row in rows for piece in row if piece.strip()]


def values_text(kind: str, values: Sequence[Any]) -> str:
    """What to type for these values: `parse_values` reads it back. Prompts are put on a line each."""
    if kind in NUMBERS:
        return ", ".join(_digits(value) for value in values)
    if kind == "prompt":
        return "\n".join(" ".join(value.split()) for value in values)
    stream = io.StringIO()
    arrows = any(_ARROW.search(value) for value in values)
    csv.writer(stream, lineterminator="", quoting=csv.QUOTE_ALL if arrows else csv.QUOTE_MINIMAL).writerow(values)
    return stream.getvalue().replace(",", ", ") if not any("," in value for value in values) else stream.getvalue()


def _digits(value: float) -> str:
    """Without an exponent, which is none of what can be typed."""
    return str(value) if isinstance(value, int) else f"{value:.10f}".rstrip("0").rstrip(".")


def _scheduler(name: str) -> str:
    for known in NAMES:
        if known.lower() == name.lower():
            return known
    raise GenerationError(f"There is no scheduler {name[:40]!r}: choose {', '.join(NAMES)}.")


# Recipes ------------------------------------------------------------------------------------------------------------


def count(axes: Sequence[Axis]) -> int:
    """How many cells. Raises GenerationError when there are too many, or the axes can't stand beside each other."""
    if not 1 <= len(axes) <= 3:
        raise GenerationError("A grid has one, two or three axes: choose what should change.")
    seen = set()
    for axis in axes:
        slot = ("file" if axis.kind in ("adapter", "checkpoint") else axis.kind, axis.index)
        if slot in seen and axis.kind != "words":
            both = "adapter or checkpoint" if slot[0] == "file" else axis.kind
            raise GenerationError(f"Two axes change the {both}: choose something else for one of them.")
        seen.add(slot)
    many = math.prod(len(axis.values) for axis in axes)
    if many > MAX_CELLS:
        raise GenerationError(f"These are {many:,} images and {MAX_CELLS} are the most: take fewer values.")
    return many


def cells(recipe: Recipe, axes: Sequence[Axis]) -> list[Recipe]:
    """The recipe of each cell, one image each; the first axis runs fastest, the last slowest. Raises GenerationError.

    Strengths and words are set last: the adapter whose strength it is, and the prompt that holds the words, may be what
    another axis chose.
    """
    count(axes)
    order = sorted(range(len(axes)), key=lambda place: axes[place].kind in ("strength", "words"))
    made = []
    for values in product(*(axis.values for axis in reversed(axes))):
        one = recipe.model_copy(update={"count": 1})
        chosen = values[::-1]
        for place in order:
            one = _changed(one, axes[place], chosen[place])
        made.append(one)
    return made


def _changed(recipe: Recipe, axis: Axis, value: Any) -> Recipe:
    uses = list(recipe.adapters)
    if axis.kind in ("adapter", "checkpoint"):
        if axis.index > len(uses):
            raise GenerationError("The grid changes an adapter that is not on the image: choose another one.")
        old = uses[axis.index] if axis.index < len(uses) else AppliedAdapter(file=value)
        uses[axis.index : axis.index + 1] = [old.model_copy(update={"file": value, "live": False, "hash": ""})]
        return recipe.model_copy(update={"adapters": tuple(uses)})
    if axis.kind == "strength":
        from studio.generation.strength_sweep import at_strength

        if axis.index >= len(uses):
            raise GenerationError("Strength is that of an adapter: add one first.")
        if not -STRONGEST <= value <= STRONGEST:
            raise GenerationError(f"A strength must be from {-STRONGEST:g} to {STRONGEST:g}.")
        return at_strength(recipe, value, axis.index)
    if axis.kind == "words":
        if axis.values[0] not in recipe.prompt:
            raise GenerationError(f"The prompt does not say {axis.values[0][:40]!r}: begin with a word that it says.")
        axis, value = Axis("prompt", (value,)), recipe.prompt.replace(axis.values[0], value)
    return Recipe(**{**dict(recipe), axis.kind: value})


# Drawing ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawnCells:
    """Some cells that are done: their numbers, and either their images or what went wrong."""

    numbers: tuple[int, ...]
    images: tuple[Any, ...] = ()  # PIL.Image each
    problem: str = ""


@dataclass(frozen=True)
class _Batch:
    """Cells that are drawn together: one cell's recipe, or several strengths of the adapter `index`."""

    numbers: tuple[int, ...]
    recipe: Recipe
    strengths: tuple[float, ...] = ()
    index: int = 0


def batches(recipe: Recipe, axes: Sequence[Axis]) -> list[_Batch]:
    """All cells, each once. The base's adapters change as seldom as possible, so that weights are merged only once."""
    made = cells(recipe, axes)
    place = next((n for n, axis in enumerate(axes) if axis.kind == "strength" and len(axis.values) > 1), None)
    if place is None:
        found = [_Batch((number,), one) for number, one in enumerate(made)]
    else:
        axis, others = axes[place], [axis for n, axis in enumerate(axes) if n != place]
        stride = math.prod(len(one.values) for one in axes[:place])
        starts = [n for n in range(len(made)) if n // stride % len(axis.values) == 0]
        bare = cells(recipe, others) if others else [recipe.model_copy(update={"count": 1})]
        found = [
            _Batch(tuple(start + stride * k for k in part), one, tuple(axis.values[k] for k in part), axis.index)
            for start, one in zip(starts, bare)
            for part in _parts(len(axis.values))
        ]
    return sorted(found, key=lambda batch: _first_with(made, batch.numbers[0]))


def _first_with(made: Sequence[Recipe], number: int) -> int:
    """The first cell with the adapters of this one."""
    return next(place for place, one in enumerate(made) if one.adapters == made[number].adapters)


def _parts(many: int) -> list[range]:
    return [range(start, min(start + BATCH, many)) for start in range(0, many, BATCH)]


def draw_cells(
    recipe: Recipe,
    axes: Sequence[Axis],
    stop: threading.Event | None = None,
    progress: Callable[[float], None] | None = None,
    turn: Callable[[], AbstractContextManager] = nullcontext,
) -> Iterator[DrawnCells]:
    """Draw all cells, some at a time, each lot inside one `turn`. Ends early, within a step, when stopped.

    progress  called with how many cells are done, in parts of cells

    A lot that can't be drawn, such as with an adapter that does not fit, is reported as its problem; the rest is drawn.
    Raises StudioError before the first for what no cell can do without.
    """
    from studio.basemodels import load_base
    from studio.generation.dispatch import generate
    from studio.generation.schedulers import make_scheduler
    from studio.generation.strength_sweep import draw_strength_sweep

    lots, done = batches(recipe, axes), 0
    with turn():
        base = load_base(recipe.base)
        for name in {lot.recipe.scheduler for lot in lots}:
            make_scheduler(base.scheduler(), name)
    stopped = stop or threading.Event()
    for lot in lots:
        size = len(lot.numbers)

        def step(now: int, total: int, size: int = size, before: int = done) -> None:
            if progress:
                progress(before + size * now / total)

        with turn():
            if stopped.is_set():
                return
            try:
                if lot.strengths:
                    images = draw_strength_sweep(lot.recipe, lot.strengths, lot.index, stopped, step)
                else:
                    images = [generate(lot.recipe, stopped, step)]
                drawn = DrawnCells(lot.numbers, tuple(images))
            except StudioError as error:
                if stopped.is_set():
                    return  # asked for, so nothing to complain of
                drawn = DrawnCells(lot.numbers, problem=" ".join(str(error).split()))
        done += size
        yield drawn
