"""A grid on disk: a folder with an image per cell, and a contact sheet of all of them with labels.

outputs/NAME.png                the sheet; inside it the base recipe, and under KEY the axes
outputs/grids/NAME/grid.json    the axes and how it went
outputs/grids/NAME/001.png      the first cell, with its own recipe inside; the first axis runs fastest
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from studio.datasets.images import open_image
from studio.errors import DatasetError, GenerationError
from studio.generation.grids import KINDS, MAX_CELLS, NUMBERS, Axis
from studio.generation.image_metadata import save_image, texts_in
from studio.generation.recipe import Recipe
from studio.workspace import atomic_write, free_path, is_valid_unicode, safe_name

KEY = "lora-studio-grid"  # the PNG text chunk that holds the axes
GRID_FILE = "grid.json"
MAX_PIXELS, MAX_SIDE = 60_000_000, 16_000  # pixels of a sheet, in all and along one side; cells shrink to fit
_INK, _PAPER, _EMPTY = "#1f2524", "#ffffff", "#eceeed"
_LINES = 4  # of a label


@dataclass(frozen=True)
class Side:
    """An axis by its labels alone, as it is written into files: without a path of this machine."""

    kind: str
    title: str
    labels: tuple[str, ...]


@dataclass(frozen=True)
class SavedGrid:
    """A grid as its folder has it.

    images  of each cell, None where there is none yet
    problems  {cell: what went wrong there}
    """

    folder: Path
    sides: tuple[Side, ...]
    images: tuple[Path | None, ...]
    problems: Mapping[int, str]
    size: tuple[int, int]  # width and height in pixels of a cell

    @property
    def sheet(self) -> Path:
        return self.folder.parent.parent / f"{self.folder.name}.png"


def sides_of(axes: Sequence[Axis]) -> tuple[Side, ...]:
    return tuple(Side(axis.kind, axis.title, axis.labels) for axis in axes)


def position(sides: Sequence[Side], number: int) -> tuple[int, ...]:
    """Where the cell stands along each side."""
    found = []
    for side in sides:
        number, place = divmod(number, len(side.labels))
        found.append(place)
    return tuple(found)


# The folder ---------------------------------------------------------------------------------------------------------


def new_folder(outputs: Path, recipe: Recipe, axes: Sequence[Axis]) -> Path:
    """Make the folder of a grid that is about to be drawn, under a name that its sheet can have too."""
    words = "".join(c if c.isalnum() else "-" for c in recipe.prompt[:30]).strip("-") or "image"
    path = free_path(outputs / "grids", safe_name(f"grid-{words}-{recipe.seed}"))
    while (outputs / f"{path.name}.png").exists():
        path = free_path(outputs / "grids", f"{path.name}-b")
    path.mkdir(parents=True)
    write_grid_file(path, recipe, sides_of(axes), {})
    return path


def write_grid_file(folder: Path, recipe: Recipe, sides: Sequence[Side], problems: Mapping[int, str]) -> None:
    facts = {
        "sides": [asdict(side) for side in sides],
        "problems": {str(number): text for number, text in problems.items()},
        "size": [recipe.width, recipe.height],
    }
    atomic_write(folder / GRID_FILE, json.dumps(facts, ensure_ascii=False))


def cell_file(folder: Path, number: int) -> Path:
    return folder / f"{number + 1:03d}.png"


def read_grid(folder: Path) -> SavedGrid | None:
    """The grid in `folder`; None when there is none, or its grid.json is damaged."""
    try:
        facts = json.loads((folder / GRID_FILE).read_text("utf-8")[:2_000_000])
        sides = tuple(
            Side(str(one["kind"]), str(one["title"]), tuple(map(str, one["labels"]))) for one in facts["sides"][:3]
        )
        many = math.prod(len(side.labels) for side in sides)
        problems = {int(number): str(text) for number, text in facts["problems"].items()}
        width, height = (min(4096, max(1, int(edge))) for edge in facts["size"])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return None
    texts = [*problems.values(), *(text for side in sides for text in (side.title, *side.labels))]
    if (
        not sides
        or not 1 <= many <= MAX_CELLS
        or any(side.kind not in KINDS for side in sides)
        or not is_valid_unicode(*texts)
    ):
        return None
    files = [cell_file(folder, number) for number in range(many)]
    images = tuple(file if file.is_file() else None for file in files)
    return SavedGrid(folder, sides, images, problems, (width, height))


def newest_grid(outputs: Path) -> SavedGrid | None:
    """The grid that was begun last."""
    found = sorted((outputs / "grids").glob(f"*/{GRID_FILE}"), key=_written, reverse=True)
    return next(filter(None, (read_grid(path.parent) for path in found)), None)


def _written(file: Path) -> int:
    """When, in nanoseconds since 1970; 0 where it has gone away meanwhile."""
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0


def save_sheet(grid: SavedGrid, recipe: Recipe, axes: Sequence[Axis]) -> Path:
    """Put the cells that there are onto one sheet and write it, with the base recipe and the axes inside."""
    image = draw_contact_sheet(grid.sides, grid.images, grid.size)
    rows: list[dict[str, Any]] = [
        asdict(side) | {"index": axis.index, "values": [_plain(value) for value in axis.values]}
        for side, axis in zip(grid.sides, axes)
    ]
    axes_text = json.dumps({"axes": rows}, ensure_ascii=False)
    return save_image(image, recipe, grid.sheet.parent, grid.sheet.name, {KEY: axes_text})


def read_axes(path: Path) -> tuple[Axis, ...]:
    """The axes inside a sheet, adapters and checkpoints by their names alone; () when it is no sheet or is damaged."""
    try:
        rows = json.loads(texts_in(path, KEY).get(KEY, ""))["axes"][:3]
        axes = tuple(Axis(str(one["kind"]), tuple(one["values"]), int(one.get("index", 0))) for one in rows)
        known = all(
            axis.kind in KINDS and 1 <= len(axis.values) <= MAX_CELLS and 0 <= axis.index < 100 for axis in axes
        )
        whole = known and all(_fits(axis.kind, value) for axis in axes for value in axis.values)
    except (GenerationError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        return ()
    return axes if whole else ()


def _fits(kind: str, value: Any) -> bool:
    if kind in NUMBERS:
        return type(value) in (int, float) and abs(value) < 2**63
    return isinstance(value, str) and len(value) <= 4000 and is_valid_unicode(value)


def _plain(value: Any) -> Any:
    """A value without the place of its file."""
    return Axis("adapter", (value,)).labels[0] if isinstance(value, Path) else value


# The sheet ----------------------------------------------------------------------------------------------------------


def draw_contact_sheet(sides: Sequence[Side], images: Sequence[Path | None], size: tuple[int, int]) -> Image.Image:
    """Columns along the first side, rows along the second, and for the third a block below the other.

    size: (width, height) of a cell in pixels; cells shrink until the sheet is within MAX_PIXELS and MAX_SIDE.
    """
    across, down, blocks = (side.labels for side in (*sides, *[Side("", "", ("",))] * 3)[:3])
    labelled = len(sides) > 1
    letters = max(13, min(30, round(math.sqrt(size[0] * size[1]) / 12)))
    font = ImageFont.load_default(letters)
    line, gap = round(letters * 1.35), max(4, letters // 3)
    width, height = _fitted(size, len(across), len(down) * len(blocks))
    column, row = max(width, 6 * letters), max(height, line * 2)
    left = _widest(font, down, max(8 * letters, min(width, 14 * letters))) + 2 * gap if labelled else gap
    heads = [wrapped(font, label, column) for label in across]
    head = line * max(map(len, heads)) + 2 * gap
    names = [wrapped(font, label, left + len(across) * (column + gap) - 2 * gap) for label in blocks]
    block = [(line * len(name) + 2 * gap if len(blocks) > 1 else 0) + head + len(down) * (row + gap) for name in names]
    sheet = Image.new("RGB", (left + len(across) * (column + gap), sum(block) + gap), _PAPER)
    pen = ImageDraw.Draw(sheet)

    def write(lines: Iterable[str], x: float, y: float, anchor: str) -> None:
        for number, text in enumerate(lines):
            pen.text((x, y + number * line), text, _INK, font, anchor)

    top = 0
    for third, name in enumerate(names):
        y = top
        if len(blocks) > 1:
            pen.line((gap, y + gap // 2, sheet.width - gap, y + gap // 2), "#c9cecc")
            write(name, gap, y + 1.5 * gap, "la")
            y += line * len(name) + 2 * gap
        for first, lines in enumerate(heads):
            middle = left + first * (column + gap) + column / 2
            write(lines, middle, y + head - gap - line * len(lines), "ma")
        y += head
        for second, label in enumerate(down):
            if labelled:
                lines = wrapped(font, label, left - 2 * gap)
                write(lines, gap, y + row / 2 - line * len(lines) / 2, "la")
            for first in range(len(across)):
                number = first + len(across) * (second + len(down) * third)
                x = left + first * (column + gap) + (column - width) // 2
                sheet.paste(_cell(images[number], (width, height)), (x, y + (row - height) // 2))
            y += row + gap
        top += block[third]
    return sheet


def _fitted(size: tuple[int, int], columns: int, rows: int) -> tuple[int, int]:
    width, height = size
    scale = min(
        1.0,
        MAX_SIDE / (1.3 * columns * width),
        MAX_SIDE / (1.3 * rows * height),
        math.sqrt(MAX_PIXELS / (1.6 * columns * rows * width * height)),
    )
    return max(8, int(width * scale)), max(8, int(height * scale))


def _cell(path: Path | None, size: tuple[int, int]) -> Image.Image:
    """The image, or an empty place."""
    if path is not None:
        with suppress(DatasetError):  # it went away or bad meanwhile
            image = open_image(path)
            image.thumbnail(size, Image.Resampling.LANCZOS)
            cell = Image.new("RGB", size, _PAPER)
            cell.paste(image, ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
            return cell
    return Image.new("RGB", size, _EMPTY)


def wrapped(font: Any, text: str, width: float, lines: int = _LINES) -> list[str]:
    """The text in lines of at most `width` pixels, words that are longer broken; "…" where more would follow."""
    found, text = [""], " ".join(text.split())[:2000]
    for word in text.split(" "):
        joined = f"{found[-1]} {word}".strip()
        if font.getlength(joined) <= width:
            found[-1] = joined
            continue
        if found[-1]:
            found.append("")
        for letter in word:
            if found[-1] and font.getlength(found[-1] + letter) > width:
                found.append("")
            found[-1] += letter
        if len(found) > lines:
            break
    if len(found) > lines:
        last = found[lines - 1]
        while last and font.getlength(last + "…") > width:
            last = last[:-1]
        found = [*found[: lines - 1], last.rstrip() + "…"]
    return found


def _widest(font: Any, labels: Sequence[str], most: int) -> int:
    return math.ceil(max(font.getlength(line) for label in labels for line in wrapped(font, label, most)))
