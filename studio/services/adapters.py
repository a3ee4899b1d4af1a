"""Adapter files: inspect, convert, resize; and export of several as one.

Long work is a job beside training: it takes a turn of the device for each picture, and stops between two layers.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.errors import AdapterError, GenerationError, StudioError
from studio.services.adapter_files import adapter_name, adapter_path
from studio.services.generation import draw
from studio.services.jobs import Job, jobs, remember, running
from studio.text import pluralize
from studio.workspace import Workspace, copy_whole, free_path

LOOK, MAKE = "look inside", "new adapter"  # kinds of jobs
PARTS = 1000  # of each of a job's stages, for progress
_KEPT = 8
_looks: "OrderedDict[tuple, Any]" = OrderedDict()  # the newest examinations, by files and base
_lock = threading.Lock()  # around each change of them: visitors' jobs run side by side


@dataclass
class Look:
    """An adapter that is looked into. found: its Examination, None while that is not known."""

    key: str
    name: str
    base: str
    found: Any = None


@dataclass
class Made:
    """A file that is made of another one, or of the rows, as far as it is.

    key         of the new adapter, "" until it is written
    told        what was lost, a sentence each
    before, after  the same picture with the old and with the new file, where the browser finds them
    difference  mean difference of the two, of 255
    """

    title: str
    key: str = ""
    notes: tuple[str, ...] = ()
    before: Path | None = None
    after: Path | None = None
    difference: float | None = None
    download: Path | None = None
    old_size: int = 0
    size: int = 0
    note: str = ""


# Looking inside -------------------------------------------------------------------------------------------------------


def look_inside(workspace: Workspace, key: str, base: str, beside: Sequence[str] = ()) -> Job:
    """Examine an adapter in the background, on the base and beside other adapters. The job's result is a `Look`."""
    from studio.adapters import read_adapter

    path = adapter_path(workspace, key)
    others = {adapter_name(one): adapter_path(workspace, one) for one in _files(beside) if one != key}

    def work(job: Job) -> None:
        from studio.adapters.examine import examine
        from studio.basemodels import load_base

        stamp = (base, *map(_stamp, (path, *others.values())))
        found = _looks.get(stamp)
        if found is None:
            job.message = "Loading the base model"
            with jobs.device():  # loading changes what a training step would find
                modules = load_base(base).modules()
            file = replace(read_adapter(path), name=adapter_name(key))
            files = {name: read_adapter(other) for name, other in others.items()}
            with _stopping(job):
                found = examine(file, modules, files, _teller(job, "Layer"))
        if found is None:  # stopped
            return
        job.result.found = found
        with _lock:
            _looks[stamp] = found
            _looks.move_to_end(stamp)
            while len(_looks) > _KEPT:
                _looks.popitem(last=False)

    return _start(LOOK, f"Looking inside {adapter_name(key)}", work, Look(key, adapter_name(key), base), key)


def _files(keys: Sequence[str]) -> list[str]:
    """Those that are files: a run under way has none."""
    return [key for key in keys if isinstance(key, str) and key.startswith(("run:", "file:"))]


# Making another file --------------------------------------------------------------------------------------------------


def convert(workspace: Workspace, key: str, layout: str, base: str, recipe: Any, note: str = "") -> Job:
    """The adapter in another layout. recipe: of the picture before and after, or None and why in `note`."""
    from studio.adapters.files import LAYOUTS

    path = adapter_path(workspace, key)
    if layout not in LAYOUTS:
        raise AdapterError(f"The layout {str(layout)[:40]!r} is unknown: use {' or '.join(LAYOUTS)}.")

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.adapters import place_layers, read_adapter, write_adapter
        from studio.basemodels.skeleton import skeleton
        from studio.generation.exporting import kept_metadata

        file = read_adapter(path)
        layers, unused = place_layers(file, skeleton(base))
        if not layers:
            raise AdapterError(
                f"{adapter_name(key)} was made for another base model, which is needed to name its layers."
            )
        target = free_path(workspace.adapters, f"{adapter_name(key)}-{layout}.safetensors")
        write_adapter(target, layers, layout, kept_metadata(file.metadata))
        left = f"Left out, with no place in the base: {pluralize(len(unused), 'layer')}." if unused else ""
        made = f"{pluralize(len(layers), 'layer')}, by the names of the {layout} layout."
        return target, tuple(filter(None, [made, left]))

    return _make(workspace, f"Converting {adapter_name(key)}", make, *_alone(path, recipe), note)


def resize(workspace: Workspace, key: str, rank: Any, base: str, recipe: Any, note: str = "") -> Job:
    """The adapter at a smaller rank. See `convert`."""
    path, rank = adapter_path(workspace, key), whole(rank, "rank")

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.adapters import read_adapter, resize, write_adapter
        from studio.generation.exporting import kept_metadata

        file = read_adapter(path)
        file.refuse_if_damaged()
        layers, error = resize(_Watched(file.layers, _teller(job, "Layer")), rank)
        target = free_path(workspace.adapters, f"{adapter_name(key)}-rank{rank}.safetensors")
        write_adapter(target, layers, file.layout, kept_metadata(file.metadata))
        return target, (
            f"Rank {max(file.ranks)} → {rank}: {100 * (1 - error**2):.2f} % of its energy is kept "
            f"(the change itself differs by {100 * error:.1f} %).",
        )

    return _make(workspace, f"Resizing {adapter_name(key)}", make, *_alone(path, recipe), note)


def export(workspace: Workspace, recipe: Any, name: str, layout: str, rank: Any, words: str) -> Job:
    """The recipe's adapters, strengths and all, as one file of the workspace."""
    from studio.generation.exporting import RANK, export_stack

    chosen = whole(rank, "rank") if rank not in (None, "") else RANK
    uses = recipe.adapters
    name = name.strip() or "-".join(dict.fromkeys(use.title for use in uses))[:60] or "rows"

    def make(job: Job, before: Any) -> tuple[Path, tuple[str, ...]]:
        from studio.basemodels import load_base

        target = free_path(workspace.adapters, f"{name}.safetensors")
        triggers = [word.strip() for word in words.split(",") if word.strip()]
        with jobs.device():
            loaded = load_base(recipe.base)
        made = export_stack(
            uses, loaded, target, layout=layout, rank=chosen, cover=before, words=triggers,
            progress=_teller(job, "Layer"),
        )  # fmt: skip
        return target, (*made.notes, f"{pluralize(made.layers, 'layer')}, rank up to {made.rank}.")

    if not uses:
        raise AdapterError("There is nothing to export: add an adapter first and turn it on.")
    return _make(workspace, "Exporting the rows", make, recipe.model_copy(update={"count": 1}), None, "")


def _alone(path: Path, recipe: Any) -> tuple[Any, Path]:
    """(the recipe with this adapter alone at strength 1, its file)."""
    from studio.generation import AppliedAdapter

    if recipe is None:
        return None, path
    return recipe.model_copy(update={"adapters": (AppliedAdapter(file=path),), "count": 1}), path


def _make(
    workspace: Workspace,
    title: str,
    make: Callable[[Job, Any], tuple[Path, tuple[str, ...]]],
    recipe: Any,
    old: Path | None,
    note: str,
) -> Job:
    """Draw, make the file, draw the same with it. The job's result is a `Made`."""

    workspace.refuse_if_full()

    def work(job: Job) -> None:
        from studio.generation import AppliedAdapter

        made, folder = job.result, workspace.cache / "downloads"
        job.total = PARTS * (3 if recipe else 1)
        with _stopping(job):
            before = _drawn(job, recipe, "The picture with the old file" if old else "The picture as it is")
            if job.stop_event.is_set():
                return
            path, made.notes = make(job, before)
            made.key, made.size = f"file:{path.name}", path.stat().st_size
            made.old_size = old.stat().st_size if old else 0
            made.download = folder / path.name
            copy_whole(path, made.download)
            if before is None:
                return
            job.done = 2 * PARTS
            again = recipe.model_copy(update={"adapters": (AppliedAdapter(file=path),)})
            after = _drawn(job, again, "The picture with the new file")
            if after is not None:
                mark = f"{path.stem}-{time.time_ns()}"
                made.before = _saved(before, recipe, folder, f"{mark}-before.png")
                made.after = _saved(after, again, folder, f"{mark}-after.png")
                made.difference = _difference(before, after)

    return _start(MAKE, title, work, Made(title, note=note), title)


def _drawn(job: Job, recipe: Any, what: str) -> Any:
    """A picture; None without a recipe, and when stopped."""
    if recipe is None:
        return None
    start = job.done

    def progress(done: int, total: int) -> None:
        job.done, job.message = start + PARTS * done // total, f"{what}, step {done} of {total}"

    job.message = what
    return draw(recipe, job.stop_event, progress)


def _saved(picture: Any, recipe: Any, folder: Path, name: str) -> Path:
    from studio.generation import save_image

    return save_image(picture, recipe, folder, name)


def _difference(one: Any, other: Any) -> float:
    import numpy as np

    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


# Jobs -----------------------------------------------------------------------------------------------------------------


def _start(kind: str, title: str, work: Callable[[Job], None], result: Any, name: str) -> Job:
    """A job of this kind; a look gives way to the next one, and a file that is made does not (BusyError)."""
    before = running(kind)
    if before and kind == LOOK:
        before.stop()
        before.wait()

    def begin(job: Job) -> None:
        job.result = result
        work(job)

    job = jobs.start(kind, title, begin, device=False)
    remember(job, name)
    return job


@contextmanager
def _stopping(job: Job) -> Iterator[None]:
    """A job that was asked to stop may break off with GenerationError."""
    try:
        yield
    except GenerationError:
        if not job.stop_event.is_set():
            raise


def _teller(job: Job, what: str) -> Callable[[int, int], None]:
    """Progress of one stage of the job, and the place where it stops."""
    start = job.done
    job.total = max(job.total, PARTS)

    def tell(done: int, total: int) -> None:
        if job.stop_event.is_set():
            raise GenerationError("Stopped.")
        job.done, job.message = start + PARTS * done // max(1, total), f"{what} {done + 1} of {total}"

    return tell


class _Watched(Mapping):
    """Layers that tell how far one has gone through them."""

    def __init__(self, layers: Mapping, tell: Callable[[int, int], None]):
        self.layers, self.tell = layers, tell

    def __getitem__(self, place: Any) -> Any:
        return self.layers[place]

    def __len__(self) -> int:
        return len(self.layers)

    def __iter__(self) -> Iterator[Any]:
        for done, place in enumerate(self.layers):
            self.tell(done, len(self.layers))
            yield place


def whole(value: Any, what: str) -> int:
    """A whole number from 1 to 1024 of what a form holds. Raises AdapterError."""
    try:
        number = int(value)
    except (TypeError, ValueError, OverflowError):
        number = 0
    if number != value or not 1 <= number <= 1024:
        raise AdapterError(f"The {what} must be a whole number from 1 to 1024 (you gave {str(value)[:40]!r}).")
    return number


def _stamp(path: Path) -> tuple:
    try:
        stat = path.stat()
    except OSError as error:
        raise StudioError(f"{path.name} is gone.") from error
    return path, stat.st_size, stat.st_mtime_ns
