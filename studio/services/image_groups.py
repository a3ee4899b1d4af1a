"""Images that belong together in the gallery: a sweep, a measure, a grid. One cell stands for all of them.

A sweep's and a measure's images say it in their names, so that no file has to be read; a grid's lie in its own folder,
and its contact sheet stands for them.
"""

import os
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from studio.errors import WorkspaceError
from studio.services import gallery
from studio.services.gallery import PAGE, Entry
from studio.services.generation import image_path
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.generation import Recipe

Kind = Literal["sweep", "measure"]
_MEMBER = re.compile(r"((?:sweep|measure)-[0-9a-f]{8})-\d{3}-")
_GRID = "grid:"


@dataclass(frozen=True)
class Cell:
    """One image of the gallery, or the newest of a group. group: to open it by, "" for a single image."""

    entry: Entry
    count: int = 1
    group: str = ""


@dataclass(frozen=True)
class FoundCells:
    """A page of cells, newest first. count: cells that fit; images, of total: what they stand for."""

    cells: list[Cell]
    page: int
    pages: int
    count: int
    images: int
    total: int
    unread: int


def new_group(kind: Kind) -> str:
    return f"{kind}-{secrets.token_hex(4)}"


def member_name(group: str, place: int, recipe: "Recipe") -> str:
    """The file name of a group's image."""
    from studio.generation.image_metadata import stem_of

    return f"{group}-{place:03d}-{stem_of(recipe)}.png"


def group_of(name: str) -> str:
    """The group that a file name says; "" for none."""
    found = _MEMBER.match(name)
    return found[1] if found else ""


def is_group(group: str) -> bool:
    """Whether what a browser sent names a group. Its folder, where it has one, is checked when it is read."""
    return group.startswith(_GRID) or bool(_MEMBER.match(f"{group}-000-"))


def title_of(group: str) -> str:
    kind = "grid" if group.startswith(_GRID) else group.partition("-")[0]
    return {"grid": "Grid", "sweep": "Strength sweep", "measure": "Measure"}[kind]


def singles(workspace: Workspace, most: int) -> list[str]:
    """Names of the newest images that belong to no group."""
    grids, found = _grids(workspace), list[str]()
    for name, _ in gallery.newest_files(workspace):
        if len(found) == most:
            break
        if not group_of(name) and os.path.splitext(name)[0] not in grids:
            found.append(name)
    return found


def find_cells(workspace: Workspace, words: str = "", page: int = 0, group: str = "") -> FoundCells:
    """The images that have all the words, those of a group in one cell; or those of one group, each in its own."""
    entries, total, unread = gallery.fitting(workspace, words)
    images = len(entries)
    if group:
        cells = [Cell(entry) for entry in _members(workspace, entries, group)]
    else:
        cells = _grouped(entries, _grids(workspace))
    pages = max(1, -(-len(cells) // PAGE))
    page = min(max(0, page), pages - 1)
    shown = [_counted(workspace, cell) for cell in cells[page * PAGE : (page + 1) * PAGE]]
    return FoundCells(shown, page, pages, len(cells), len(cells) if group else images, total, unread)


def neighbour(workspace: Workspace, words: str, group: str, name: str, by: int) -> str:
    """The image that stands `by` places after this one; "" where there is none."""
    entries = gallery.fitting(workspace, words)[0]
    if group:
        names = [entry.name for entry in _members(workspace, entries, group)]
    else:
        names = [cell.entry.name for cell in _grouped(entries, _grids(workspace))]
    place = names.index(name) + by if name in names else -1
    return names[place] if 0 <= place < len(names) else ""


def file_of(workspace: Workspace, name: str) -> Path:
    """The file of an image, also of a grid's cell. Raises WorkspaceError."""
    if "/" not in name:
        return gallery.image_file(workspace, name)
    path = image_path(workspace, name)
    if not path.is_file():
        raise WorkspaceError(f"{name[:60]} is not here any more.")
    return path


def _grids(workspace: Workspace) -> set[str]:
    """Names of the grids' folders."""
    with suppress(OSError):
        return {entry.name for entry in os.scandir(workspace.outputs / "grids") if entry.is_dir(follow_symlinks=False)}
    return set()


def _grouped(entries: Sequence[Entry], grids: set[str]) -> list[Cell]:
    cells: dict[str, Cell] = {}
    for entry in entries:
        stem = os.path.splitext(entry.name)[0]
        group = group_of(entry.name) or (f"{_GRID}{stem}" if stem in grids else "")
        if group in cells:
            cells[group] = Cell(cells[group].entry, cells[group].count + 1, group)
        else:
            cells[group or entry.name] = Cell(entry, 1, group)
    return list(cells.values())


def _counted(workspace: Workspace, cell: Cell) -> Cell:
    """With the number of a grid's images; a group of one image is an image."""
    if cell.group.startswith(_GRID):
        return Cell(cell.entry, len(_cells_of(workspace, cell.group)), cell.group)
    return cell if cell.count > 1 else Cell(cell.entry)


def _members(workspace: Workspace, entries: Sequence[Entry], group: str) -> list[Entry]:
    """In the order of their strengths or cells; the contact sheet of a grid first."""
    if not group.startswith(_GRID):
        return sorted((entry for entry in entries if group_of(entry.name) == group), key=lambda entry: entry.name)
    name = group.removeprefix(_GRID)
    sheet = [entry for entry in entries if os.path.splitext(entry.name)[0] == name]
    return [*sheet, *(Entry(f"grids/{name}/{file}", (0, 0)) for file in _cells_of(workspace, group))]


def _cells_of(workspace: Workspace, group: str) -> list[str]:
    """File names of a grid's images."""
    folder = workspace.outputs / "grids" / checked_name(group.removeprefix(_GRID), "grid")
    with suppress(OSError):
        return sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.endswith(".png") and entry.is_file(follow_symlinks=False)
        )
    return []
