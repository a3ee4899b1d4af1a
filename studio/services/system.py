"""What works on this machine, and what takes disk space in the workspace."""

import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from studio.services import adapter_library, gallery, run_library
from studio.services.jobs import Job, jobs, latest, running
from studio.services.operations import operation
from studio.training import trash
from studio.workspace import FOLDERS, Workspace, remove_folder, size_of

TRASH = "trash"  # beside FOLDERS, in a Report
PRIVATE = ("system", "workspace", "disk_free")  # of the owner's machine, and not for visitors


class Report(NamedTuple):
    """lines: the doctor's; sizes: bytes by folder of the workspace, and apart from them of the trash."""

    lines: str
    sizes: dict[str, int]


class Trash(NamedTuple):
    """What was deleted on the page and can be restored. counts: by what it is; size: bytes of all."""

    counts: dict[str, int]
    size: int


@operation()
def job_status(workspace: Workspace) -> dict[str, Any]:
    """The job that runs now, or the one that ended last: kind, state, done, total, message."""
    ended = [newest.job for newest in latest.values()]
    job = running() or (ended[-1] if ended else None)
    return job.as_answer() if job else {"state": "none"}


@operation()
def doctor(workspace: Workspace) -> dict[str, Any]:
    """What this machine has and what works on it."""
    return examined(workspace)


def examined(workspace: Workspace) -> dict[str, Any]:
    """What the doctor finds, as plain data; without what is the owner's own where visitors come."""
    from studio.services.diagnostics import examine

    found = examine(workspace.root)
    if workspace.allows.folders:
        return found
    works = [row for row in found["works"] if row["name"] != "workspace"]
    return {key: value for key, value in found.items() if key not in PRIVATE} | {"works": works}


def start_report(workspace: Workspace) -> Job:
    """Ask the doctor and measure the workspace in the background; the result is a Report."""

    def work(job: Job) -> None:
        from studio.services.diagnostics import report

        found = {"system": "-", "workspace": "yours, for some hours", "disk_free": "-"} | examined(workspace)
        job.result = Report(report(found), _sizes(workspace))

    running = jobs.beside.get("about")
    if running and running.state == "running":
        return running
    return jobs.start("about", "Checking this machine", work, device=False)


def _sizes(workspace: Workspace) -> dict[str, int]:
    trash = {folder.parent.name: size_of(folder) for folder in _places(workspace).values()}
    sizes = {name: size_of(workspace.root / name) - trash.get(name, 0) for name in FOLDERS}
    return sizes | {TRASH: sum(trash.values())}


def _places(workspace: Workspace) -> dict[str, Path]:
    """Where things lie that were deleted on the page."""
    return {
        "image": workspace.outputs / gallery.REMOVED,
        "adapter": workspace.adapters / adapter_library.REMOVED,
        "run": workspace.root / trash.TRASH,
    }


def trash_contents(workspace: Workspace) -> Trash:
    """What `empty_trash` would delete."""
    places = _places(workspace)
    counts = {what: len([one for one in folder.glob("*") if one.name[0] != "."]) for what, folder in places.items()}
    return Trash(counts, sum(map(size_of, places.values())))


def empty_trash(workspace: Workspace) -> int:
    """Delete for good what was deleted on the page and can be restored; answers its bytes.

    No job uses any of it: it has left the place where jobs read it.
    """
    before = trash_contents(workspace).size
    run_library.empty_trash(workspace)
    remove_folder(workspace.outputs / gallery.REMOVED)
    remove_folder(workspace.adapters / adapter_library.REMOVED)
    return before - trash_contents(workspace).size


def clear_cache(workspace: Workspace) -> int:
    """Delete what can be made again; answers its bytes. Raises BusyError while a job may be reading it."""
    jobs.refuse_if_busy()
    before = size_of(workspace.cache)
    for entry in list(os.scandir(workspace.cache)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        else:
            os.unlink(entry.path)
    for name in ("thumbnails", "downloads"):
        (workspace.cache / name).mkdir(exist_ok=True)
    return before - size_of(workspace.cache)
