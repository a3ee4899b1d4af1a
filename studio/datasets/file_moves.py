"""Moving files inside a dataset's folder, for the history: an image with its caption files and masks."""

import os
from collections.abc import Callable
from pathlib import Path

from studio.datasets.meta_dir import unwritable, within
from studio.errors import DatasetError

Pairs = tuple[tuple[str, str], ...]  # (from, to), names in the dataset
Moves = Callable[[int], dict[str, Pairs]]  # number of the change: what it moves


def move(folder: Path, file: str, pairs: Pairs, again: bool = False) -> list[str]:
    """Move an image and what goes with it. again: it may be done in part already. A line for what can't be moved."""
    left: list[str] = []
    for number, (source, target) in enumerate(pairs):
        try:
            here, there = within(folder, source), within(folder, target)
        except DatasetError as error:
            return [*left, str(error)]
        is_here, is_there = os.path.lexists(here), os.path.lexists(there)
        if is_here and not is_there:
            try:
                there.parent.mkdir(parents=True, exist_ok=True)
                os.rename(here, there)
            except OSError as error:
                raise unwritable(folder, error) from error
        elif is_here:
            left.append(f"{target}: there is another file of this name by now.")
        elif not (again and is_there):
            left.append(f"{source}: it is gone.")
        if left and not number:
            break  # its captions and masks stay where they are, with it
    return left


def moved_back(pairs: Pairs) -> Pairs:
    return tuple((target, source) for source, target in pairs)
