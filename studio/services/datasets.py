"""What a person can do with datasets: bring in, look through, check, edit, take back, hand on.

Datasets are named inside the workspace, never by a path; a user's mistake raises a StudioError.
"""

import dataclasses
import threading
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import BusyError, DatasetError, StudioError
from studio.server.owners import PerOwner
from studio.services import base_models
from studio.services.jobs import Job, counting, jobs, latest, remember
from studio.services.operations import operation
from studio.services.parameters import MOST_FILES, DatasetName, Files, Resolution, Trigger, Upload
from studio.services.thumbnails import thumbnail
from studio.text import pluralize
from studio.workspace import ASSETS, Workspace, checked_name, expanded, free_path, safe_name

if TYPE_CHECKING:
    from studio.datasets import Change, Dataset, Finding, Item
    from studio.datasets.analysis import Progress

KEPT = 8  # sets of one owner that stay read, for as many pages
_viewed: "PerOwner[tuple[tuple[Any, ...], Dataset]]" = PerOwner()  # by folder: its state when read, and the dataset


# Opening ------------------------------------------------------------------------------------------------------------


@operation()
def list_datasets(workspace: Workspace) -> list[str]:
    """Names of all datasets; a sample is copied into the workspace when it is opened."""
    return [name for _, name in dataset_choices(workspace)]


@operation(answer=lambda workspace, dataset: dataset_answer(dataset))
def open_dataset(workspace: Workspace, dataset: DatasetName) -> "Dataset":
    """Open a dataset of the workspace, or copy a sample into it. Answers its images and captions."""
    return open_named(workspace, dataset)


def dataset_answer(dataset: "Dataset") -> dict[str, Any]:
    """What endpoints and the command line say of a dataset."""
    items = [{"file": dataset.file_of(item), "caption": item.caption} for item in dataset.items]
    return {
        "name": dataset.name,
        "items": items,
        "problems": list(dataset.problems),
        "warnings": list(dataset.warnings),
        "account": dataset.account(),
    }


def dataset_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, name) of the person's datasets and of the samples not copied yet."""
    from studio.datasets import list_samples

    own = {path.name for path in workspace.datasets.iterdir() if path.is_dir() and path.name[0] != "."}
    # One order for both, so that a line does not move under the mouse when a sample becomes the person's own.
    return [(name if name in own else f"{name} (sample)", name) for name in sorted(own | set(list_samples()))]


def sample_images() -> dict[str, list[Path]]:
    """The images of each sample dataset, where they come with the studio."""
    from studio.datasets import list_samples
    from studio.datasets.images import SUFFIXES

    folders = [ASSETS / "datasets" / name for name in list_samples()]
    return {
        folder.name: sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) for folder in folders
    }


def drawn_images() -> list[Path]:
    """What the built-in base draws of "a red apple", "fish on pink" and the like."""
    return sorted((ASSETS / "drawn").glob("*.webp"))


def open_named(workspace: Workspace, name: str) -> "Dataset":
    """The dataset `name`; a sample is copied into the workspace first, so that the original is never edited."""
    from studio.datasets import copy_sample, list_samples, open_dataset

    name = checked_name(name, "dataset")
    if (workspace.datasets / name).is_dir():
        return open_dataset(workspace.datasets / name)
    if name in list_samples():
        if not (workspace.datasets / name).exists():
            workspace.refuse_if_full()
        return copy_sample(workspace, name)
    raise DatasetError(f"There is no dataset called {name!r}: choose one from the list.")


def view(workspace: Workspace, name: str, again: bool = False) -> "Dataset":
    """Like `open_named`, for looking through thousands: read again when the studio or a folder of the set changed.

    A caption file rewritten by another program is seen only with `again`. Writing compares with the disk.
    """
    folder = workspace.datasets / checked_name(name, "dataset")
    held = _viewed.get(str(folder))
    if held and not again and held[0] == _stamp(folder, held[1]):
        return held[1]
    dataset = open_named(workspace, name)
    _keep_viewed(folder, dataset)
    return dataset


def replace_viewed(opened: "Dataset", old: "Item", new: "Item") -> None:
    """`new` stands in the place of `old` in a dataset that is kept read, without reading it again."""
    if str(opened.folder) in _viewed:
        opened.items[opened.items.index(old)] = new
        _keep_viewed(opened.folder, opened)


def _keep_viewed(folder: Path, dataset: "Dataset") -> None:
    """It is as it is on the disk now; what was not read for the longest time goes."""
    _viewed.pop(str(folder), None)
    _viewed[str(folder)] = _stamp(folder, dataset), dataset
    for oldest in list(_viewed)[:-KEPT]:
        _viewed.pop(oldest, None)


def is_large(workspace: Workspace, name: str) -> bool:
    """Whether reading it again each second would be felt."""
    held = _viewed.get(str(workspace.datasets / name))
    return held is not None and len(held[1].items) > 500


def stamp(workspace: Workspace, name: str) -> str:
    """Another text whenever the set `name` is chosen or changed, by this page or another one; "" when there is none."""
    folder = workspace.datasets / name
    held = _viewed.get(str(folder))
    return f"{name} {_stamp(folder, held[1])}" if held else name


def _stamp(folder: Path, dataset: "Dataset") -> tuple[Any, ...]:
    """Changes with the history, and when a file comes, goes or is replaced."""
    places = {folder, *(item.path.parent for item in dataset.items)}
    files = [folder / ".studio" / "history.jsonl", *sorted(places)]
    return tuple(_facts(file) for file in files)


def _facts(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return 0, 0
    return stat.st_mtime_ns, stat.st_size


def find_item(dataset: "Dataset", file: str) -> "Item":
    """The item called `file`; compared with what is there, never joined to a path."""
    item = dataset.by_file().get(file) if isinstance(file, str) else None
    if item is None:
        raise DatasetError(f"There is no image called {str(file)[:60]!r} in {dataset.name}: open the dataset again.")
    return item


def caption_now(item: "Item") -> str:
    """The caption on the disk, which may be newer than the one read when the set was opened."""
    from studio.datasets import read_caption

    sidecar = read_caption(item.path)
    return item.caption if sidecar is None else sidecar


def make_thumbnails(workspace: Workspace, dataset: "Dataset") -> None:
    """Small copies of all its images, made in the background, so that pages and filters show at once."""

    def work(job: Job) -> None:
        job.total = len(dataset.items)
        for job.done, item in enumerate(dataset.items, 1):
            if job.stop_event.wait(0.01) or jobs.current and jobs.current.state == "running":
                return  # the processor has better things to do; the short wait leaves it to whoever clicks
            thumbnail(workspace, item.path)

    if running := jobs.beside.get("thumbnails"):
        running.stop()
        if running.thread:
            running.thread.join(5)
    try:
        jobs.start("thumbnails", f"Thumbnails of {dataset.name}", work, device=False)
    except BusyError:
        return  # they are made as they are looked at


# In and out ---------------------------------------------------------------------------------------------------------


@operation(upload="files", aliases=("import_pictures",))
def import_images(
    workspace: Workspace,
    files: Annotated[list[Upload], Field(max_length=MOST_FILES, description="Images or zips.")],
    name: Annotated[str, Field(max_length=255, description="Name of the dataset.")] = "my-images",
) -> dict[str, Any]:
    """Add images or zips to a dataset, made if missing. `skipped` says what was left out and why, `warnings` what is
    used otherwise than one may think, `account` counts every file.
    """
    dataset, skipped = import_files(workspace, name, files)
    return dataset_answer(dataset) | {"skipped": skipped}


def import_files(
    workspace: Workspace,
    name: str,
    paths: Sequence[str | Path],
    progress: "Progress | None" = None,
    stop: threading.Event | None = None,
) -> tuple["Dataset", list[str]]:
    """Images, zips and folders into the dataset `name`, made if missing: (the dataset, lines on what was skipped)."""
    from studio.datasets import import_images as copy_in

    workspace.refuse_if_full()
    if not paths:
        raise DatasetError("There are no files to add: drop images or a zip first.")
    return copy_in(workspace, safe_name(name or "my-images"), list(map(expanded, paths)), progress, stop)


def new_name(workspace: Workspace, typed: str = "", paths: Sequence[str | Path] = ()) -> str:
    """A name that no dataset has: as typed, else as the only zip or the only folder is called, else "my-images".

    Raises StudioError for a typed name that can't be one.
    """
    named = [path for path in map(Path, paths) if path.suffix.lower() == ".zip" or len(paths) == 1 and not path.suffix]
    name = "my-images"
    if typed.strip():
        name = safe_name(typed.strip())
    elif len(named) == 1:
        with suppress(StudioError):
            name = safe_name(named[0].stem)
    return free_path(workspace.datasets, name).name


def start_import(workspace: Workspace, name: str, paths: Sequence[str | Path], folder: str = "") -> Job:
    """`import_files` in the background; its result is (the dataset's name, lines on what was skipped, its warnings).

    folder: also a folder of this machine, where that may be typed.
    """
    name = safe_name(name or "my-images")
    workspace.refuse_if_full()
    if folder:
        workspace.allows.need("folders")
        paths = [*paths, folder]
    if not paths:
        raise DatasetError("There are no files to add: drop images or a zip first.")

    def work(job: Job) -> None:
        dataset, skipped = import_files(workspace, name, paths, counting(job), job.stop_event)
        job.message = f"{dataset.name} has {dataset.account()} now."
        job.result = dataset.name, skipped, list(dataset.warnings)

    return _beside("import", f"Adding images to {name}", name, work)


@operation(waits=True, file="download")
def export_dataset(
    workspace: Workspace,
    dataset: DatasetName,
    background: Annotated[
        str, Field(max_length=80, description="A colour for transparent images; empty: they stay.")
    ] = "",
    *,
    kind: str = "zip",
) -> Job:
    """A zip of the images with captions as .txt beside them.

    kind: "zip" or "folder"; the job's result is the path of the new one in the workspace's exports.
    """
    workspace.refuse_if_full()
    opened = open_named(workspace, dataset)

    def work(job: Job) -> None:
        from studio.datasets import export

        target = free_path(workspace.exports, f"{opened.name}.zip" if kind == "zip" else opened.name)
        job.result = export(opened, target, kind, background.strip(), counting(job), job.stop_event)
        place = job.result if workspace.allows.folders else target.name  # where it lies is the owner's business
        job.message = f"{pluralize(len(opened.items), 'image')} written to {place}."

    return _beside("export", f"Exporting {opened.name}", opened.name, work)


# Checking -----------------------------------------------------------------------------------------------------------


@operation(waits=True, answer=lambda workspace, found: findings_answer(found))
def check_dataset(
    workspace: Workspace, dataset: DatasetName, resolution: Resolution = 128, trigger: Trigger = ""
) -> Job:
    """Find broken, doubled, small and blurred images and bad captions. Answers what was found, by number."""
    opened = open_named(workspace, dataset)

    def work(job: Job) -> None:
        from studio.datasets import examine

        job.total = len(opened.items)
        found: list[Finding] = examine(
            opened, resolution, (trigger or "").strip(), base_models.counter(workspace), counting(job), job.stop_event
        )
        job.result, job.message = found, "" if found else "Nothing to mend."

    return _beside("health", f"Checking {opened.name}", opened.name, work)


def findings_answer(found: "list[Finding]") -> list[dict[str, Any]]:
    """What endpoints and the command line say of findings."""
    fields = ("kind", "message", "files", "remedies", "details", "groups")
    return [{"number": number} | {name: getattr(one, name) for name in fields} for number, one in enumerate(found)]


def change_answer(change: "Change") -> dict[str, Any]:
    """What endpoints and the command line say of a change that can be undone."""
    return {"label": change.label, "files": change.files, "left": change.left}


@operation(answer=lambda workspace, change: change_answer(change))
def mend_dataset(
    workspace: Workspace,
    dataset: DatasetName,
    number: Annotated[int, Field(ge=0, le=1_000_000, description="Number of the finding.")] = 0,
    remedy: Annotated[str, Field(max_length=200, description="One of the finding's remedies.")] = "",
    *,
    spared: Collection[str] = (),
) -> "Change":
    """Do a remedy to a finding of the newest check_dataset, undoably. The numbers after it move up by one.

    spared: files that the remedy leaves alone.
    """
    return mend(workspace, dataset, number, remedy, spared)


def findings_of(dataset: str) -> "list[Finding] | None":
    """What the newest check of this set found and is not mended yet; None when it was not checked."""
    newest = latest.get("health")
    return newest.job.result if newest and newest.name == dataset else None


def mend(workspace: Workspace, dataset: str, number: int, name: str, spared: Collection[str] = ()) -> "Change":
    """Do remedy `name` to finding `number` of the newest check, without the spared files; undoable."""
    from studio.datasets import remedy

    found = findings_of(dataset)
    if not found or not 0 <= number < len(found):
        raise DatasetError("That was mended already: check the dataset again.")
    finding = found[number]
    files = tuple(file for file in finding.files if file not in spared)
    if not files:
        raise DatasetError("No image is ticked.")
    change = remedy(open_named(workspace, dataset), dataclasses.replace(finding, files=files), name)
    if finding in found:
        found.remove(finding)
    return change


# Undo and redo ----------------------------------------------------------------------------------------------------


@operation(answer=lambda workspace, change: change_answer(change))
def undo(workspace: Workspace, dataset: DatasetName) -> "Change":
    """Take back the newest change of a dataset."""
    return turn_back(workspace, dataset, "undo")


@operation(answer=lambda workspace, change: change_answer(change))
def redo(workspace: Workspace, dataset: DatasetName) -> "Change":
    """Make again what was undone last."""
    return turn_back(workspace, dataset, "redo")


@operation()
def dataset_history(workspace: Workspace, dataset: DatasetName) -> list[dict[str, Any]]:
    """Every change of a dataset, newest first, 500 at most."""
    from studio.datasets import history

    return [dataclasses.asdict(step) for step in history(open_named(workspace, dataset))[:500]]


def turn_back(workspace: Workspace, dataset: str, kind: str) -> "Change":
    """Undo, or with kind "redo" make again, the newest change of the set."""
    from studio.datasets import redo, undo

    return (redo if kind == "redo" else undo)(view(workspace, dataset))


@operation(answer=lambda workspace, change: change_answer(change), aliases=("remove_pictures",))
def remove_images(workspace: Workspace, dataset: DatasetName, files: Files) -> "Change":
    """Remove images from the dataset, undoably."""
    from studio import datasets

    return datasets.remove_images(view(workspace, dataset), files)


@operation(answer=lambda workspace, change: change_answer(change))
def restore_images(workspace: Workspace, dataset: DatasetName, files: Files) -> "Change":
    """Put removed images back, undoably."""
    from studio import datasets

    return datasets.restore_images(view(workspace, dataset), files)


def new_batch() -> str:
    """A name under which changes that follow each other are undone together."""
    return uuid.uuid4().hex


# Shared -------------------------------------------------------------------------------------------------------------


def _beside(kind: str, title: str, name: str, work: Callable[[Job], None]) -> Job:
    job = jobs.start(kind, title, work, device=False)
    remember(job, name)
    return job
