"""Grids: one recipe generated many times, with one, two or three things changed step by step.

An axis is plain data, `cells` are the recipes that it makes, and `draw_cells` generates them. Cells that differ in the
strength of one adapter alone are one batch from the same noise.
"""

import csv
import io
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
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
BATCH = 8  # images at once: a hundred large ones need too much memory
_ARROW = re.compile("→|->|=>")  # between the word to replace and its replacements
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
            Of "words" the first stands in the prompt, and each of them replaces it in turn
    index   which of the recipe's adapters, for strength, adapter and checkpoint
    """

    kind: str
    values: tuple[Any, ...]
    index: int = 0

    @property
    def title(self) -> str:
        """The heading of the side."""
        return {"words": f"Instead of “{self.values[0]}”"}.get(self.kind, self.kind.capitalize())

    @property
    def labels(self) -> tuple[str, ...]:
        """A label for each value, clear without the title."""
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

    Numbers: `0, 0.5, 1`, `1-4`, `0-1 in 5` (five values, both ends included), `0-1 (0.25)` (steps of 0.25); also
    A1111's `0-1 [5]`. Prompts: one per line. Words and schedulers: separated by commas, in quotation marks where they
    contain one; `red → green, blue` is the same as `red, green, blue`.
    """
    text = text.strip()
    if len(text) > 20_000:
        raise GenerationError(f"The values for {kind} are too long: a grid has at most {MAX_CELLS} images.")
    if kind in NUMBERS:
        found = [number for piece in re.split(r"[,;\n]", text) for number in _numbers(kind, piece.strip())]
    elif kind == "prompt":
        found = [line.strip() for line in text.splitlines() if line.strip()]
    else:
        found = _words(text)
    values = tuple(dict.fromkeys(found))
    if not values:
        raise GenerationError(f"There are no values for {kind}: write some, or remove the axis.")
    if kind == "words" and len(values) < 2:
        raise GenerationError("Words need the word to replace and at least one replacement: red, green.")
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
        raise GenerationError(f"{piece[:40]!r} is too long to be a value for {kind}: separate values by commas.")
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
            raise GenerationError(f"{piece[:40]!r} never ends: write a step that is not 0.")
        step = math.copysign(by, last - first)
        many = int((last - first) / step + 1e-9) + 1
    if not 1 <= many <= MAX_CELLS:
        raise GenerationError(f"{piece[:40]!r} has {many:,} values: a grid takes 1 to {MAX_CELLS}.")
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
        raise GenerationError("The words can't be read: separate them by commas.") from error
    return [piece.strip() for row in rows for piece in row if piece.strip()]


def values_text(kind: str, values: Sequence[Any]) -> str:
    """What to type for these values: `parse_values` reads it back. One prompt per line."""
    if kind in NUMBERS:
        return ", ".join(_digits(value) for value in values)
    if kind == "prompt":
        return "\n".join(" ".join(value.split()) for value in values)
    stream = io.StringIO()
    arrows = any(_ARROW.search(value) for value in values)
    csv.writer(stream, lineterminator="", quoting=csv.QUOTE_ALL if arrows else csv.QUOTE_MINIMAL).writerow(values)
    return stream.getvalue().replace(",", ", ") if not any("," in value for value in values) else stream.getvalue()


def _digits(value: float) -> str:
    """Without an exponent, which `parse_values` does not read."""
    return str(value) if isinstance(value, int) else f"{value:.10f}".rstrip("0").rstrip(".")


def _scheduler(name: str) -> str:
    for known in NAMES:
        if known.lower() == name.lower():
            return known
    raise GenerationError(f"There is no scheduler {name[:40]!r}: choose {', '.join(NAMES)}.")


# Recipes ------------------------------------------------------------------------------------------------------------


def count(axes: Sequence[Axis]) -> int:
    """How many cells. Raises GenerationError when there are too many, or two axes change the same."""
    if not 1 <= len(axes) <= 3:
        raise GenerationError("A grid has one, two or three axes: choose what changes.")
    seen = set()
    for axis in axes:
        slot = ("file" if axis.kind in ("adapter", "checkpoint") else axis.kind, axis.index)
        if slot in seen and axis.kind != "words":
            both = "adapter or checkpoint" if slot[0] == "file" else axis.kind
            raise GenerationError(f"Two axes change the {both}: choose something else for one of them.")
        seen.add(slot)
    many = math.prod(len(axis.values) for axis in axes)
    if many > MAX_CELLS:
        raise GenerationError(f"The grid has {many:,} images, the limit is {MAX_CELLS}: take fewer values.")
    return many


def cells(recipe: Recipe, axes: Sequence[Axis]) -> list[Recipe]:
    """The recipe of each cell, one image each; the first axis changes fastest, the last slowest.

    Strengths and words are set last, because another axis may choose the adapter and the prompt that they change. An
    adapter that an axis goes through stands alone in its cells: the others of that axis are compared with it, each at
    its own strength, and not added to it. Raises GenerationError.
    """
    count(axes)
    axes = aligned(recipe, axes)
    order = sorted(range(len(axes)), key=lambda place: axes[place].kind in ("strength", "words"))
    made = []
    for values in product(*(axis.values for axis in reversed(axes))):
        one = recipe.model_copy(update={"count": 1})
        chosen = values[::-1]
        for place in order:
            one = _changed(one, axes[place], chosen[place])
        made.append(one)
    return made


def aligned(recipe: Recipe, axes: Sequence[Axis]) -> list[Axis]:
    """The axes, with strengths of the adapters that are left once an axis of adapters has taken its own out."""
    files = next((axis for axis in axes if axis.kind in ("adapter", "checkpoint")), None)
    if files is None:
        return list(axes)
    kept = _kept(recipe, files)
    places = {place: kept.index(place if place in kept else files.index) for place in range(len(recipe.adapters))}
    return [
        replace(axis, index=places.get(axis.index, axis.index)) if axis.kind == "strength" else axis for axis in axes
    ]


def _kept(recipe: Recipe, files: Axis) -> list[int]:
    """The places of the adapters that stay beside the one that an axis of files puts into its own place."""
    others = [place for place, one in enumerate(recipe.adapters) if one.file not in files.values]
    return sorted({*others, files.index})


def _changed(recipe: Recipe, axis: Axis, value: Any) -> Recipe:
    applied = list(recipe.adapters)
    if axis.kind in ("adapter", "checkpoint"):
        if axis.index > len(applied):
            raise GenerationError("The grid changes an adapter that the image does not have: choose another one.")
        own = next((one for one in applied if one.file == value), None)
        old = applied[axis.index] if axis.index < len(applied) else AppliedAdapter(file=value)
        new = (own or old).model_copy(update={"file": value, "live": False, "hash": ""})
        left = [new if place == axis.index else applied[place] for place in _kept(recipe, axis)]
        return recipe.model_copy(update={"adapters": tuple(left)})
    if axis.kind == "strength":
        from studio.generation.strength_sweep import at_strength

        if axis.index >= len(applied):
            raise GenerationError("The axis Strength needs an adapter: add one first.")
        if not -STRONGEST <= value <= STRONGEST:
            raise GenerationError(f"A strength must be from {-STRONGEST:g} to {STRONGEST:g}.")
        return at_strength(recipe, value, axis.index)
    if axis.kind == "words":
        if axis.values[0] not in recipe.prompt:
            raise GenerationError(f"The prompt lacks {axis.values[0][:40]!r}: begin with a word of the prompt.")
        axis, value = Axis("prompt", (value,)), recipe.prompt.replace(axis.values[0], value)
    return Recipe(**{**dict(recipe), axis.kind: value})


# Generating ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DrawnCells:
    """Cells that are done: their numbers, and either their images or the problem."""

    numbers: tuple[int, ...]
    images: tuple[Any, ...] = ()  # PIL.Image each
    problem: str = ""


@dataclass(frozen=True)
class _Batch:
    """Cells of one batch: one cell's recipe, or several strengths of the adapter `index`."""

    numbers: tuple[int, ...]
    recipe: Recipe
    strengths: tuple[float, ...] = ()
    index: int = 0


def batches(recipe: Recipe, axes: Sequence[Axis]) -> list[_Batch]:
    """All cells, each once. Cells with the same adapters follow each other, so that their weights are merged once."""
    made = cells(recipe, axes)
    place = next((n for n, axis in enumerate(axes) if axis.kind == "strength" and len(axis.values) > 1), None)
    if place is None:
        found = [_Batch((number,), one) for number, one in enumerate(made)]
    else:
        index = aligned(recipe, axes)[place].index
        axis, others = axes[place], [axis for n, axis in enumerate(axes) if n != place]
        stride = math.prod(len(one.values) for one in axes[:place])
        starts = [n for n in range(len(made)) if n // stride % len(axis.values) == 0]
        bare = cells(recipe, others) if others else [recipe.model_copy(update={"count": 1})]
        found = [
            _Batch(tuple(start + stride * k for k in part), one, tuple(axis.values[k] for k in part), index)
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
    """Generate all cells, batch by batch, each batch inside one `turn`. Ends early, within a step, when stopped.

    progress  called with how many cells are done, fractions included

    A batch that fails, such as with an adapter that does not fit, is reported as its problem; the others go on. Raises
    StudioError before the first one for a problem of all cells.
    """
    from studio.basemodels import load_base
    from studio.generation.dispatch import generate
    from studio.generation.schedulers import make_scheduler
    from studio.generation.strength_sweep import draw_strength_sweep

    todo, done = batches(recipe, axes), 0
    with turn():
        base = load_base(recipe.base)
        for name in {batch.recipe.scheduler for batch in todo}:
            make_scheduler(base.scheduler(), name)
    stopped = stop or threading.Event()
    for batch in todo:
        size = len(batch.numbers)

        def step(now: int, total: int, size: int = size, before: int = done) -> None:
            if progress:
                progress(before + size * now / total)

        with turn():
            if stopped.is_set():
                return
            try:
                if batch.strengths:
                    images = draw_strength_sweep(batch.recipe, batch.strengths, batch.index, stopped, step)
                else:
                    images = [generate(batch.recipe, stopped, step)]
                drawn = DrawnCells(batch.numbers, tuple(images))
            except StudioError as error:
                if stopped.is_set():
                    return  # the person stopped it
                drawn = DrawnCells(batch.numbers, problem=" ".join(str(error).split()))
        done += size
        yield drawn
