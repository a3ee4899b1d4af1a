"""Images that were generated: list, search, move to the trash and restore.

What is written inside each image is read once, in the background where there are many, and kept in a small index by
the file's name, time and size. An image from elsewhere, or a broken one, is found by its file's name.
"""

import json
import os
import re
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.errors import BusyError, GenerationError, WorkspaceError
from studio.server.owners import PerOwner
from studio.services.jobs import Job, jobs
from studio.services.operations import operation, plain
from studio.services.parameters import ImageName, Page
from studio.services.thumbnails import thumbnail
from studio.text import pluralize
from studio.workspace import Workspace, atomic_write, checked_name, free_path, with_older_name

PAGE = 48  # images
AT_ONCE = 24  # new images that are read while somebody waits; more are read in the background
REMOVED = ".removed"  # the trash: a folder beside the images, which holds TIME-NAME
MOST_WORDS = 20  # of a search
_LONGEST = 2000  # characters of a prompt that are searched
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class Entry:
    """One image. stamp: nanoseconds and bytes of its file; has_recipe: whether its recipe is inside; adapters: name and
    strength of each, as "ink 0.8".
    """

    name: str
    stamp: tuple[int, int]
    has_recipe: bool = False
    prompt: str = ""
    adapters: tuple[str, ...] = ()
    seed: int | None = None

    def has(self, word: str) -> bool:
        """Whether a word of a search fits. A number is the seed, or stands alone in the prompt or among the names."""
        text = f"{self.prompt}\n{' '.join(self.adapters)}".lower() if self.has_recipe else self.name.lower()
        if self.has_recipe and _NUMBER.fullmatch(word):
            return word == str(self.seed) or re.search(rf"(?<![\d.]){word}(?!\.?\d)", text) is not None
        return word in text


File = tuple[str, tuple[int, int]]  # name and stamp
_SETTLED = 10**9  # nanoseconds; two changes within a tick of the file system's clock look like one
_listed: PerOwner[tuple[int, bool, list[File]]] = PerOwner()  # outputs -> (folder's time, whether that is old, files)
_known: PerOwner[dict[str, Entry]] = PerOwner()  # workspace's outputs -> name -> entry
_lock = threading.Lock()  # around each change of an index


@dataclass(frozen=True)
class Found:
    """A page of images: newest first. unread: how many are not in the index yet, and so can't be found."""

    entries: list[Entry]
    page: int
    pages: int
    count: int  # that fit
    total: int
    unread: int


@operation(aliases=("list_pictures",), answer=lambda workspace, found: _answer(found))
def list_images(
    workspace: Workspace,
    words: Annotated[str, Field(max_length=4000, description="Words that are looked for in the recipes.")] = "",
    page: Page = 0,
) -> Found:
    """Images of the workspace, newest first, 48 a page; words are looked for in their recipes."""
    return find(workspace, words, page)


def _answer(found: Found) -> dict[str, Any]:
    """With "told" beside "has_recipe", as version 0.1 answered."""
    table = plain(found)
    entries = [entry | {"told": entry["has_recipe"]} for entry in table["entries"]]
    return {**table, "entries": entries}


@operation(aliases=("delete_picture",), renamed={"image": "picture"})
def delete_image(workspace: Workspace, image: ImageName) -> bool:
    """Move one of the workspace's images to the trash; restore_image brings the last one back."""
    remove(workspace, image)
    return True


@operation(aliases=("restore_picture",))
def restore_image(workspace: Workspace) -> str:
    """Bring back the image that was deleted last. Answers its name."""
    return put_back(workspace)


def find(workspace: Workspace, words: str = "", page: int = 0) -> Found:
    """The images that have all the words, in prompt, names of adapters or seed; of others, in the file's name."""
    found, total, unread = fitting(workspace, words)
    pages = max(1, -(-len(found) // PAGE))
    page = min(max(0, page), pages - 1)
    return Found(found[page * PAGE : (page + 1) * PAGE], page, pages, len(found), total, unread)


def fitting(workspace: Workspace, words: str = "") -> tuple[list[Entry], int, int]:
    """(the images that have all the words, newest first; how many there are in all; how many are not read yet)."""
    index = _read(workspace)
    files = newest_files(workspace)
    fresh = _unread(index, files)
    if fresh:
        if len(fresh) <= AT_ONCE:
            _take_in(workspace, index, dict(files), fresh)
            fresh = []
        else:
            _start_reading(workspace)
    return _fitting(index, files, words), len(files), len(fresh)


def count_with(workspace: Workspace, adapter: str, since: int = 0) -> int:
    """How many images were generated with the adapter of this name. since: nanoseconds; older images don't count.

    Of images that are not in the index yet, the newest AT_ONCE are read.
    """
    index, files = _read(workspace), newest_files(workspace)
    recent = [file for file in files if file[1][0] >= since]
    if fresh := _unread(index, recent)[:AT_ONCE]:
        _take_in(workspace, index, dict(files), fresh)
    known = [index[name] for name, _ in recent if name in index]
    return sum(any(one.rpartition(" ")[0] == adapter for one in entry.adapters) for entry in known)


def _fitting(index: dict[str, Entry], files: list[File], words: str) -> list[Entry]:
    wanted = words.lower().split()[:MOST_WORDS]
    entries = [index.get(name) or Entry(name, stamp) for name, stamp in files]
    return [entry for entry in entries if all(entry.has(word) for word in wanted)] if wanted else entries


def image_file(workspace: Workspace, name: str) -> Path:
    """The file of an image. Raises WorkspaceError when it isn't there."""
    path = workspace.outputs / checked_name(name, "image")
    if path.is_symlink() or not path.is_file() or not _is_image(name):
        raise WorkspaceError(f"{name[:60]} is not here any more.")
    return path


# The trash ------------------------------------------------------------------------------------------------------


def remove(workspace: Workspace, name: str) -> None:
    """Move an image to the trash, from where `put_back` takes it."""
    path = image_file(workspace, name)
    trash = workspace.outputs / REMOVED
    trash.mkdir(exist_ok=True)
    try:
        os.replace(path, trash / f"{time.time_ns()}-{name}")
    except OSError as error:
        raise WorkspaceError(f"{name[:60]} can't be moved: {error.strerror}.") from error


def removed(workspace: Workspace) -> list[str]:
    """Names of the images in the trash, the last one first."""
    return [name for _, name in _trash(workspace)]


def put_back(workspace: Workspace) -> str:
    """Restore the image that was deleted last; its name, which is another one if that was taken meanwhile."""
    for when, name in _trash(workspace):
        target = workspace.outputs / name
        if target.exists():
            target = free_path(workspace.outputs, name)
        try:
            os.replace(workspace.outputs / REMOVED / f"{when}-{name}", target)
        except OSError as error:
            raise WorkspaceError(f"{name[:60]} can't be restored: {error.strerror}.") from error
        return target.name
    raise WorkspaceError("There is no deleted image to restore.")


def _trash(workspace: Workspace) -> list[tuple[int, str]]:
    """(when, name) of what is in the trash, the last one first."""
    found = []
    with suppress(OSError):
        for file in os.listdir(workspace.outputs / REMOVED):
            when, _, name = file.partition("-")
            if when.isascii() and when.isdigit() and _is_image(name):
                found.append((int(when), name))
    return sorted(found, reverse=True)


# The index ----------------------------------------------------------------------------------------------------------


def newest_files(workspace: Workspace) -> list[File]:
    """(name, stamp) of every image, newest first. Links are passed over: they may lead anywhere.

    Listed again when the folder changed, which it does when a file comes, goes or is replaced.
    """
    folder = str(workspace.outputs)
    with suppress(OSError):
        changed = os.stat(folder).st_mtime_ns
        if folder not in _listed or _listed[folder][0] != changed or not _listed[folder][1]:
            settled = time.time_ns() - changed > _SETTLED
            _listed[folder] = changed, settled, _list(workspace)
        return _listed[folder][2]
    return []


def _list(workspace: Workspace) -> list[File]:
    found: list[File] = []
    with suppress(OSError), os.scandir(workspace.outputs) as entries:
        for entry in entries:
            with suppress(OSError):
                if entry.name[0] != "." and _is_image(entry.name) and entry.is_file(follow_symlinks=False):
                    stat = entry.stat(follow_symlinks=False)
                    found.append((entry.name, (stat.st_mtime_ns, stat.st_size)))
    return sorted(found, key=lambda one: (one[1][0], one[0]), reverse=True)


def _is_image(name: str) -> bool:
    from studio.datasets.images import SUFFIXES

    return os.path.splitext(name)[1].lower() in SUFFIXES


def _entry(path: Path, stamp: tuple[int, int]) -> Entry:
    """What is written inside the image."""
    from studio.generation import read_recipe

    try:
        found = read_recipe(path)
    except GenerationError:
        return Entry(path.name, stamp)
    names = tuple(f"{str(one['file'])[:200]} {one.get('strength', 1.0):g}" for one in found.adapters)
    return Entry(
        path.name, stamp, True, str(found.values.get("prompt", ""))[:_LONGEST], names, found.values.get("seed")
    )


def _take_in(
    workspace: Workspace, index: dict[str, Entry], stamps: dict[str, tuple[int, int]], names: list[str]
) -> None:
    """Read these images, and make their thumbnails, so that pages are shown at once later."""
    for name in names:
        thumbnail(workspace, workspace.outputs / name)
        with _lock:
            index[name] = _entry(workspace.outputs / name, stamps[name])
    _write(workspace, index, stamps)


def _unread(index: dict[str, Entry], files: list[File]) -> list[str]:
    return [name for name, stamp in files if name not in index or index[name].stamp != stamp]


def _start_reading(workspace: Workspace) -> None:
    """Take in all images that are new, newest first, in the background."""

    def work(job: Job) -> None:
        index = _read(workspace)
        files = newest_files(workspace)
        fresh = _unread(index, files)
        job.total = len(fresh)
        for start in range(0, len(fresh), PAGE):
            if job.stop_event.wait(0.01):  # which also leaves the CPU to who clicks
                break
            _take_in(workspace, index, dict(files), fresh[start : start + PAGE])
            job.done = min(start + PAGE, len(fresh))
            job.message = f"{job.done:,} of {pluralize(job.total, 'image')}"

    with suppress(BusyError):
        jobs.start("history", "Reading earlier images", work, device=False)


def _index_file(workspace: Workspace) -> Path:
    return workspace.cache / "images.json"


def _read(workspace: Workspace) -> dict[str, Entry]:
    """The index, read from the disk once."""
    key = str(workspace.outputs)
    with _lock:
        if key not in _known:
            _known[key] = {}
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                rows = json.loads(with_older_name(_index_file(workspace), "pictures.json").read_bytes())
                _known[key] = {row["name"]: _entry_of(row) for row in rows}
        return _known[key]


def _entry_of(row: dict[str, Any]) -> Entry:
    """A row of the file. Raises TypeError, ValueError or KeyError when it is no such thing, and all is read again."""
    changed, size = map(int, row["stamp"])
    seed = None if row["seed"] is None else int(row["seed"])
    names = tuple(map(str, row["adapters"]))
    return Entry(
        str(row["name"]),
        (changed, size),
        bool(row["has_recipe"] if "has_recipe" in row else row["told"]),
        str(row["prompt"]),
        names,
        seed,
    )


def _write(workspace: Workspace, index: dict[str, Entry], here: dict[str, Any]) -> None:
    with _lock:
        for name in [name for name in index if name not in here]:
            del index[name]
        rows = [asdict(entry) for entry in index.values()]
    atomic_write(_index_file(workspace), json.dumps(rows), lasting=False)
