"""What a person can ask about the studio itself: what works here, and what takes room. See actions.py."""

import os
import shutil
from typing import Any, NamedTuple

from studio.jobs import Job, jobs
from studio.workspace import FOLDERS, Workspace, size_of

PRIVATE = ("system", "workspace", "disk_free")  # of the owner's machine, and not for visitors


class Report(NamedTuple):
    """lines: the doctor's; sizes: bytes by folder of the workspace."""

    lines: str
    sizes: dict[str, int]


def examined(workspace: Workspace) -> dict[str, Any]:
    """What the doctor finds, as plain data; without what is the owner's own where visitors come."""
    from studio.doctor import examine

    found = examine(workspace.root)
    if workspace.allows.folders:
        return found
    works = [row for row in found["works"] if row["name"] != "workspace"]
    return {key: value for key, value in found.items() if key not in PRIVATE} | {"works": works}


def start_report(workspace: Workspace) -> Job:
    """Ask the doctor and weigh the workspace in the background; the result is a Report."""

    def work(job: Job) -> None:
        from studio.doctor import report

        found = {"system": "-", "workspace": "yours, for some hours", "disk_free": "-"} | examined(workspace)
        job.result = Report(report(found), {name: size_of(workspace.root / name) for name in FOLDERS})

    running = jobs.beside.get("about")
    if running and running.state == "running":
        return running
    return jobs.start("about", "Looking at this machine", work, device=False)


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
