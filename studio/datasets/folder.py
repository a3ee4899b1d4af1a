"""A dataset is a folder: pictures, and beside each its caption as `.txt`."""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from studio.datasets.captions import CAPTION_SUFFIXES, Tables, read_caption
from studio.datasets.history import finish
from studio.datasets.known import Facts, read_known, write_known
from studio.datasets.moves import MASKS
from studio.datasets.pictures import SUFFIXES, open_alpha, open_picture, size_of
from studio.errors import DatasetError, lacking
from studio.workspace import is_whole

KOHYA = re.compile(r"([1-9]\d{0,3})_")  # how a folder's name says how often to show what is in it
_WORTH_KEEPING = 500  # headers; fewer are read in a blink, and the folder of a person is left as it is


@dataclass(frozen=True)
class Item:
    """One picture and its caption ("" when it has none).

    size: width and height as it is seen, in pixels. file: its name in the dataset it was read from, "10_cat/a.png".
    """

    path: Path
    caption: str
    size: tuple[int, int] = field(default=(0, 0), compare=False)
    file: str = field(default="", compare=False)

    def load(self, at_least: int = 0) -> Image.Image:
        """Upright RGB, whole or perhaps smaller but no smaller than `at_least` a side. Raises DatasetError."""
        return open_picture(self.path, at_least=at_least)

    def caption_now(self) -> str:
        """The caption on the disk, which may be newer than the one read when the dataset was opened."""
        sidecar = read_caption(self.path)
        return self.caption if sidecar is None else sidecar

    def load_mask(self) -> Image.Image | None:
        """Where to learn, as grey: NAME-masklabel.png beside the picture, else its alpha. Raises DatasetError."""
        label = self.mask_file
        return open_picture(label).convert("L") if label else open_alpha(self.path)

    @property
    def mask_file(self) -> Path | None:
        """NAME-masklabel.png, as OneTrainer keeps them."""
        file = self.path.with_name(f"{self.path.stem}{MASKS[0]}.png")
        return file if file.is_file() else None

    @property
    def repeats(self) -> int:
        """How often a round shows it, as kohya's folder names say: 10 in `10_name`."""
        found = KOHYA.match(self.path.parent.name)
        return int(found[1]) if found else 1


@dataclass(frozen=True)
class Dataset:
    """items in the order of their names; problems: one line for each file that was left out."""

    folder: Path
    items: list[Item]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    def file_of(self, item: Item) -> str:
        """The picture's name in the dataset: "a.png", or "10_cat/a.png" when it lies in a folder of it."""
        return str(item.path)[len(str(self.folder)) :].lstrip(os.sep).replace(os.sep, "/")

    def by_file(self) -> dict[str, Item]:
        """{"10_cat/a.png": its item}."""
        return {self.file_of(item): item for item in self.items}


def open_dataset(folder: Path) -> Dataset:
    """Read a folder and the folders in it. Raises DatasetError when there is no picture.

    A change of captions that was cut short is completed first. From each picture the header is read, or what is known
    of it from before if its size and time are the same. Links out of the folder are not followed.
    """
    folder = _existing(folder)
    items, problems = [], finish(folder)
    tables, known, fresh = Tables(folder), read_known(folder), 0
    seen: dict[str, Facts] = {}
    for file, entry, has_sidecar in pictures_in(folder, problems):
        path = Path(entry.path)
        try:
            problem = "" if entry.is_file() else "not a file that can be read."
            if not problem and entry.is_symlink() and not path.resolve().is_relative_to(folder):
                problem = "a link to another folder, copy the picture here instead."
            if problem:
                problems.append(f"{path.name}: {problem}")
                continue
            stat = entry.stat()
            facts = known.get(file)
            if facts is None or not facts.still(stat):
                facts = Facts(stat.st_size, stat.st_mtime_ns, *size_of(path))
                fresh += 1
            seen[file] = facts
        except OSError:
            problems.append(f"{path.name}: not a file that can be read.")  # gone, or a link that leads nowhere
            continue
        except DatasetError as error:
            problems.append(str(error))
            continue
        caption = read_caption(path) if has_sidecar else None
        caption = tables.caption(path) if caption is None else caption
        items.append(Item(path, caption, (facts.width, facts.height), file))
    problems += tables.problems
    if fresh >= _WORTH_KEEPING:
        write_known(folder, seen)
    if not items:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        what = f"{problems[0].rstrip('.')}{more}" if problems else "put some in, as JPEG, PNG or WebP"
        raise DatasetError(f"No pictures in {folder.name}: {what}.")
    return Dataset(folder, items, problems)


def pictures_in(folder: Path, left_out: list[str] | None = None) -> Iterator[tuple[str, os.DirEntry, bool]]:
    """(name in the dataset, entry, whether a caption lies beside it) of each picture by its suffix, in their order."""
    found = []
    for inside, entries in visible_in(folder, left_out):
        names = {entry.name for entry in entries}
        for entry in entries:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.lower() not in SUFFIXES or stem.endswith(MASKS) or entry.is_dir(follow_symlinks=False):
                continue
            found.append(((*inside, entry.name), entry, any(stem + kind in names for kind in CAPTION_SUFFIXES)))
    for parts, entry, has_sidecar in sorted(found, key=lambda one: one[0]):
        yield "/".join(parts), entry, has_sidecar


def orphans_in(folder: Path) -> list[str]:
    """Caption files that have no picture beside them, by their names in the dataset."""
    found = []
    for inside, entries in visible_in(folder):
        split = [os.path.splitext(entry.name) for entry in entries if entry.is_file(follow_symlinks=False)]
        pictures = {stem for stem, suffix in split if suffix.lower() in SUFFIXES}
        found += [
            "/".join((*inside, stem + suffix)) for stem, suffix in split
            if suffix.lower() in CAPTION_SUFFIXES and stem not in pictures
        ]  # fmt: skip
    return sorted(found)


def visible_in(root: Path, left_out: list[str] | None = None) -> Iterator[tuple[tuple[str, ...], list[os.DirEntry]]]:
    """(folders down from the root, its visible entries) of the root and all in it; links to folders are not entered.

    left_out: gets a line for each name whose bytes are no text, as older systems wrote them: no page can show it.
    """
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(root.joinpath(*inside)) as entries:
                here = [entry for entry in entries if not entry.name.startswith(".")]
        except OSError as error:  # it may not be read, or is gone
            if lacking(error):
                raise
            continue
        strange = [entry.name for entry in here if not is_whole(entry.name)]
        if strange:
            here = [entry for entry in here if is_whole(entry.name)]
            if left_out is not None:
                said = (name.encode("utf-8", "replace").decode() for name in strange)
                left_out += [f"{name}: its name is not written in UTF-8, rename it." for name in said]
        waiting += [(*inside, entry.name) for entry in here if entry.is_dir(follow_symlinks=False)]
        yield inside, here


def _existing(folder: Path) -> Path:
    try:
        found = Path(folder).expanduser().resolve()
        if found.is_dir():
            return found
    except (OSError, ValueError, RuntimeError):  # a name that no folder can have, or a home that is unknown
        pass
    raise DatasetError(f"There is no folder {Path(folder).name[:60]!r}: choose a folder of pictures.")
