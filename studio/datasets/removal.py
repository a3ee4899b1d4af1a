"""Taking images out of a dataset and putting them back, with their captions and masks. Nothing is deleted.

What is taken out lies in `.studio/removed/NUMBER/`, the number being that of the change in the history.
"""

import os
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from studio.datasets.captions import CAPTION_SUFFIXES
from studio.datasets.dataset import MASKS, Dataset
from studio.datasets.file_moves import Pairs, moved_back
from studio.datasets.history import Change, move_images
from studio.datasets.images import SUFFIXES
from studio.datasets.journal import read_journal
from studio.datasets.listing import VARIANT
from studio.datasets.meta_dir import META_DIR, within
from studio.errors import DatasetError


def remove_images(dataset: Dataset, files: Collection[str], label: str = "", author: str = "person") -> Change:
    """Take images (or stray caption files) out of the set as one undoable change, with captions and masks.

    Also for files that are no good as images and so not among the dataset's items. Raises DatasetError when none of
    the files is there, a name leads out of the folder, or the folder can't be written.
    """
    folder, left, going = dataset.folder, [], []
    for file in dict.fromkeys(files):
        path = within(folder, file)
        if any(part.startswith(".") for part in PurePosixPath(file).parts):
            raise DatasetError(f"{file[:60]!r} is hidden, and so not a part of {dataset.name}.")
        if path.is_symlink() or path.is_file():
            going.append(file)
        else:
            left.append(f"{file}: the file is gone.")
    if not going:
        raise DatasetError(f"There is nothing to remove from {dataset.name}: {left[0] if left else 'no file chosen.'}")

    def plan(number: int) -> dict[str, Pairs]:
        place = f"{META_DIR}/removed/{number}"
        taken = set(going)
        moves = {}
        listings: dict[Path, set[str]] = {}
        for file in going:
            mine = [file, *(name for name in _company(folder, file, set(going), listings) if name not in taken)]
            taken.update(mine)
            moves[file] = tuple((name, f"{place}/{name}") for name in mine)
        return moves

    return move_images(dataset, plan, label or f"Remove {_count(going)}", author, left)


def restore_images(dataset: Dataset, files: Collection[str], label: str = "", author: str = "person") -> Change:
    """Put removed images back as one undoable change. Raises DatasetError when none of them is there."""
    there = _removed(dataset.folder)
    back = {file: moved_back(there[file]) for file in dict.fromkeys(files) if file in there}
    left = [f"{file}: not among the removed images." for file in files if file not in there]
    if not back:
        raise DatasetError(f"There is nothing to put back into {dataset.name}.")
    return move_images(dataset, lambda _: back, label or f"Put back {_count(list(back))}", author, left)


def removed_images(dataset: Dataset) -> list[tuple[str, Path]]:
    """(name in the dataset, where it lies now) of what was taken out, newest first."""
    return [(file, dataset.folder / pairs[0][1]) for file, pairs in _removed(dataset.folder).items()]


def _removed(folder: Path) -> dict[str, Pairs]:
    """{file: (from, to) pairs} of what lies in the side folder, the newest first and only once of each name."""
    found: dict[str, Pairs] = {}
    for entry in reversed(read_journal(folder)[0]):
        for file, pairs in entry.moved.items():
            target = pairs[0][1] if pairs else ""
            if file not in found and target.startswith(f"{META_DIR}/removed/") and _inside(folder, target):
                found[file] = pairs
    return found


def _inside(folder: Path, file: str) -> bool:
    try:
        return os.path.lexists(within(folder, file))
    except DatasetError:
        return False


def _company(folder: Path, file: str, going: set[str], listings: dict[Path, set[str]]) -> list[str]:
    """The captions and masks of an image, unless another image of the same name without suffix still needs them."""
    path = folder / file
    if path.suffix.lower() not in SUFFIXES:
        return []
    names = listings.get(path.parent)
    if names is None:
        names = listings[path.parent] = set(os.listdir(path.parent))
    parent = PurePosixPath(file).parent
    others = {path.stem + suffix for suffix in SUFFIXES} & names  # suffixes in capitals are rare enough
    if any(other != path.name and (parent / other).as_posix() not in going for other in others):
        return []
    own = [path.stem + suffix for suffix in CAPTION_SUFFIXES]
    own += [f"{path.stem}{mask}.png" for mask in MASKS]
    own += sorted(f"{path.stem}{name}" for name in _variants(names, path.stem))
    return [(parent / name).as_posix() for name in own if name in names]


def _variants(names: set[str], stem: str) -> list[str]:
    """What follows the image's stem in the names of its further caption files."""
    found = [name for name in names if name.startswith(f"{stem}.") and name.endswith(CAPTION_SUFFIXES)]
    return [
        name[len(stem) :] for name in found if (one := VARIANT.fullmatch(os.path.splitext(name)[0])) and one[1] == stem
    ]


def _count(files: list[str]) -> str:
    return files[0] if len(files) == 1 else f"{len(files)} images"
