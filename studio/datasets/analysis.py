"""The pixels of every image, read once: is it complete, is it sharp, what is it like.

All measures are taken on a small copy, 256 pixels on the longer side, on all cores (Pillow lets go of Python's lock
while it decodes). They are kept in `.studio/images.json`.
"""

import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from studio.datasets.dataset import Dataset
from studio.datasets.image_index import ImageInfo, changed_at, read_index, write_index
from studio.datasets.images import open_image, read_header
from studio.datasets.listing import list_folder
from studio.errors import DatasetError

T = TypeVar("T")
R = TypeVar("R")
Progress = Callable[[int, int, str], None]  # done, total, name

SIDE_LENGTH = 256  # of the small copy, pixels
NEAR = 6  # of 64 bits of the perceptual hash; a recompressed or smaller copy differs by 0 to 4, another image by ~32
NEAR_COLOUR = 16.0  # mean difference of the colours, 0..255: the hash is blind to colour
_MAX_BYTES = 200_000_000  # of one image's file
AHEAD = 64 * 10**6  # bytes of files that wait in memory for their turn


@dataclass(frozen=True)
class Analysis:
    """facts: {file: what is known of it}; problems: {file: why it can't be used}; stopped: before all were seen."""

    facts: dict[str, ImageInfo]
    problems: dict[str, str]
    stopped: bool = False


def analyse(dataset: Dataset, progress: Progress | None = None, stop: threading.Event | None = None) -> Analysis:
    """Analyze every image file of the dataset's folder, those that can't be opened included.

    progress  called with (done, total, name) after each
    stop      ends after the images in hand; what was seen until then is kept
    """
    imagehash = image_hash()
    known, todo = read_index(dataset.folder), []
    facts: dict[str, ImageInfo] = {}
    problems: dict[str, str] = {}
    files = {file: Path(entry.path) for file, entry, _ in list_folder(dataset.folder).images}
    ours = dataset.by_file()
    for file, path in files.items():
        try:
            if path.is_symlink() and file not in ours:
                continue  # a link to outside, which opening the dataset has named
            old = known.get(file)
            if old and old.still(path.stat()) and old.content and (old.likeness or imagehash is None):
                facts[file] = old
            else:
                todo.append(file)
        except OSError:
            continue  # gone meanwhile
    done = len(facts)
    for file, found in in_parallel(lambda file: analyze_image(files[file], imagehash), todo, stop):
        done += 1
        if isinstance(found, ImageInfo):
            facts[file] = found
        else:
            problems[file] = found
        if progress:
            progress(done, len(files), file)
    if todo:
        write_index(dataset.folder, {file: one for file, one in known.items() if file in files} | facts)
    return Analysis(facts, problems, stopped=_is_set(stop) and done < len(files))


def in_parallel(
    work: Callable[[T], R],
    things: Iterable[T],
    stop: threading.Event | None = None,
    weigh: Callable[[T], int] = lambda thing: 0,
) -> Iterator[tuple[T, R]]:
    """(thing, work(thing)) in the order of the things, a few ahead on all cores; ends early when stopped.

    weigh: bytes that a thing takes in memory; all that are ahead take AHEAD, or are one.
    """
    cores, held = os.cpu_count() or 1, 0
    with ThreadPoolExecutor(cores) as pool:
        waiting: deque[tuple[T, Future[R]]] = deque()
        for thing in things:
            if _is_set(stop):
                break
            waiting.append((thing, pool.submit(work, thing)))
            held += weigh(thing)
            while len(waiting) > 2 * cores or (held > AHEAD and len(waiting) > 1):
                first, future = waiting.popleft()
                held -= weigh(first)
                yield first, future.result()
        for thing, future in waiting:
            yield thing, future.result()


def analyze_image(path: Path, imagehash: Any = None) -> ImageInfo | str:
    """The facts of an image, or one line that says why there are none. imagehash: the module, or None."""
    try:
        if not path.is_file():  # a pipe would be waited for
            raise FileNotFoundError
        with open(path, "rb") as stream:
            stat = os.fstat(stream.fileno())
            if stat.st_size > _MAX_BYTES:
                return f"{path.name}: larger than {_MAX_BYTES // 10**6} MB."
            data = stream.read(_MAX_BYTES)
        image = open_image(data, path.name, at_least=SIDE_LENGTH)
        width, height, several = read_header(data, path.name)
    except DatasetError as error:
        return str(error)
    except OSError:
        return f"{path.name}: it can't be read, or is gone."
    image.thumbnail((SIDE_LENGTH, SIDE_LENGTH), Image.Resampling.BOX, reducing_gap=None)
    grey = image.convert("L")
    return ImageInfo(
        bytes=stat.st_size,
        changed=changed_at(stat),
        width=width,
        height=height,
        content=hashlib.blake2b(data, digest_size=16).hexdigest(),
        likeness=str(imagehash.phash(grey)) if imagehash else "",
        colours=image.resize((4, 4), Image.Resampling.BOX).tobytes().hex(),
        sharpness=round(sharpness(grey), 3),
        several=int(several),
    )


def sharpness(grey: Image.Image) -> float:
    """Variance of the Laplacian of a grey image with 0..255: near 0 when it is blurred or has nothing in it."""
    a = np.asarray(grey, np.float32)
    if min(a.shape) < 3:
        return 0.0
    edges = a[1:-1, :-2] + a[1:-1, 2:] + a[:-2, 1:-1] + a[2:, 1:-1] - 4 * a[1:-1, 1:-1]
    return float(edges.var())


def image_hash() -> Any:
    """The ImageHash package, or None when it is not installed."""
    try:
        import imagehash
    except ImportError:
        return None
    return imagehash


def near_duplicates(facts: dict[str, ImageInfo]) -> list[tuple[str, ...]]:
    """Groups of the same or nearly the same image, in each the one with most pixels first.

    Each member is near the first one. Without perceptual hashes only files of the same content are found.
    """
    names = sorted(facts, key=lambda file: (-facts[file].width * facts[file].height, -facts[file].bytes, file))
    same: dict[str, list[str]] = {}
    for name in names:
        same.setdefault(facts[name].content, []).append(name)
    firsts = [group[0] for group in same.values()]
    hashed = [name for name in firsts if facts[name].likeness]
    bits = np.array([int(facts[name].likeness, 16) for name in hashed], np.uint64)
    colours = np.array([list(bytes.fromhex(facts[name].colours)) for name in hashed], np.float32).reshape(-1, 48)
    free = np.ones(len(hashed), bool)
    for here, name in enumerate(hashed):
        if not free[here]:
            continue
        near = np.flatnonzero(free[here + 1 :] & (np.bitwise_count(bits[here + 1 :] ^ bits[here]) <= NEAR)) + here + 1
        for other in near[np.abs(colours[near] - colours[here]).mean(axis=1) <= NEAR_COLOUR] if len(near) else ():
            free[other] = False
            same[facts[name].content] += same.pop(facts[hashed[other]].content)
    return [tuple(group) for group in same.values() if len(group) > 1]


def _is_set(stop: threading.Event | None) -> bool:
    return stop is not None and stop.is_set()
