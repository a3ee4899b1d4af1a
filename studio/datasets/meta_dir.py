"""The studio's own notes on a dataset: the hidden folder `.studio` beside its images.

    history.jsonl    every change of captions, masks and images, appended to and never rewritten
    masks/           every mask that an image ever had, by content
    phrases.json     who wrote which phrase, where it was not a person
    images.json      what is known of each image; made again when it is lost
    removed/         images taken out of the dataset

The folder may have come from anywhere, so what is read here is bounded and checked, and a name in it that leads out of
the dataset is refused.
"""

import errno
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from studio.errors import DatasetError
from studio.workspace import atomic_write

try:
    import fcntl
except ImportError:  # Windows: other programs are not kept out, threads of this one are
    fcntl = None  # type: ignore[assignment]

META_DIR = ".studio"
MAX_BYTES = 200_000_000  # of one file of notes
_ours = threading.RLock()


def meta_folder(folder: Path, make: bool = False) -> Path:
    """`folder/.studio`, made if asked. Raises DatasetError when it can't be made or is no folder of its own."""
    place = folder / META_DIR
    if place.is_symlink() or (place.exists() and not place.is_dir()):
        raise DatasetError(f"{folder.name}: {META_DIR} in it is not a folder, move it away.")
    if make:
        try:
            place.mkdir(exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
    return place


def unwritable(folder: Path, error: OSError) -> DatasetError:
    """What to raise when the dataset's folder refuses a change."""
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return DatasetError(f"{folder.name} can't be changed, its folder is read-only: copy it to another place.")
    return DatasetError(f"{folder.name} can't be changed ({error.strerror or error}).")


def read_meta(path: Path) -> Any:
    """The JSON in a file of notes; None when it is missing, damaged, a link or too large to be ours."""
    try:
        if path.is_symlink() or path.parent.is_symlink() or path.stat().st_size > MAX_BYTES:
            return None
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def write_meta(folder: Path, name: str, notes: Any, lasting: bool = True) -> None:
    """Write `folder/.studio/name` whole. Raises DatasetError when the folder can't be written."""
    place = meta_folder(folder, make=True)
    try:
        atomic_write(place / name, json.dumps(notes, separators=(",", ":")), lasting=lasting)
    except OSError as error:
        raise unwritable(folder, error) from error


def within(folder: Path, file: str) -> Path:
    """`folder/file` for a name like "sub/a.png". Raises DatasetError when it leads out of the folder."""
    name = PurePosixPath(file)
    if file and "\0" not in file and not name.is_absolute() and ".." not in name.parts:
        path = folder / name
        with suppress(OSError, RuntimeError):
            nearest = next(parent for parent in path.parents if parent.exists())  # a folder of it may be gone
            if nearest.resolve().is_relative_to(folder.resolve()):
                return path
    raise DatasetError(f"{file[:60]!r} leads out of {folder.name}: nothing was changed.")


@contextmanager
def locked(folder: Path, wait: bool = True) -> Iterator[bool]:
    """Keep others, in this program or another, from changing this dataset meanwhile.

    wait=False: yields False at once when somebody else does. Raises DatasetError when the folder can't be written.
    """
    if not _ours.acquire(blocking=wait):
        yield False
        return
    handle = None
    try:
        taken = True
        try:
            if fcntl is not None:
                place = meta_folder(folder, make=True)
                handle = os.open(place / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            taken = False
        except OSError as error:
            if handle is None:
                raise unwritable(folder, error) from error
            # else a network disk without locks: the threads of this program are kept out all the same
        yield taken
    finally:
        if handle is not None:
            os.close(handle)
        _ours.release()
