"""Adapter files of the workspace: list, find by key, add a dropped one.

Everything from the browser is a name inside the workspace, never a path. Mistakes raise a StudioError.
"""

import filecmp
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from studio.errors import AdapterError, GenerationError, WorkspaceError
from studio.server.owners import PerOwner
from studio.services.jobs import Job, jobs
from studio.text import pluralize
from studio.workspace import Workspace, copy_whole, free_path, is_whole, safe_name


class Latest(NamedTuple):
    """The newest job of a kind, and the dataset or run that it is about."""

    job: Job
    name: str


latest: PerOwner[Latest] = PerOwner()  # by kind, so that a tab opened later sees how a job ended


# Jobs ---------------------------------------------------------------------------------------------------------------


def remember(job: Job, name: str) -> None:
    """`job` is the newest of its kind, about the dataset or run `name`."""
    latest.pop(job.kind, None)  # so that the newest of all stands last
    latest[job.kind] = Latest(job, name)


def stop_job(kind: str) -> bool:
    """Ask the running job of this kind to stop; False when none runs. The job ends after its current step."""
    job = running(kind)
    if job:
        job.stop()
    return job is not None


def running(kind: str | None = None) -> Job | None:
    """The job of `kind` that runs now, or the one that holds the device; None when there is none."""
    if kind is None:
        job = jobs.current
        return job if job and job.state == "running" else None
    return next((job for job in jobs.running() if job.kind == kind), None)


def counting(job: Job) -> Callable[..., None]:
    """What the work of `job` calls with (done, total) or (done, total, what it is at), to be told as its progress."""

    def told(done: int, total: int, at: str = "") -> None:
        job.done, job.total, job.message = done, total, at or job.message

    return told


def fetching(job: Job, what: str) -> Callable[[int, int], None]:
    """The same for a download of `what`, in bytes."""

    def told(done: int, total: int) -> None:
        job.done, job.total = done, total
        job.message = f"Fetching {what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB"

    return told


# Adapters and pictures ----------------------------------------------------------------------------------------------


def list_adapters(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on a picture: `run:NAME` for runs, `file:NAME` for dropped files."""
    from studio.training import list_runs

    runs = [name for name in list_runs(workspace) if (workspace.runs / name / "adapter.safetensors").is_file()]
    files = sorted(path.name for path in workspace.adapters.glob("*.safetensors"))
    return [(name, f"run:{name}") for name in runs] + [(f"{Path(f).stem} (file)", f"file:{f}") for f in files]


def adapter_name(key: str) -> str:
    """What the adapter of a key is called: `ink` for `run:ink` and for `file:ink.safetensors`."""
    return key.partition(":")[2].removesuffix(".safetensors")


def adapter_path(workspace: Workspace, key: str) -> Path:
    """The file behind `run:NAME`, `run:NAME@STEP` (a checkpoint) or `file:NAME`.

    Raises AdapterError when it isn't in the workspace.
    """
    from studio.training import list_runs, read_run

    kind, _, name = str(key).partition(":")
    name = known(name, "adapter")
    if kind == "run" and name in list_runs(workspace):
        path = read_run(workspace, name).adapter
        if path and Path(path).is_file():
            return Path(path)
        raise AdapterError(f"The run {name!r} has no adapter yet: wait until it has finished.")
    run, _, step = name.partition("@")
    if kind == "run" and step.isascii() and step.isdigit() and len(step) < 12 and run in list_runs(workspace):
        path = workspace.runs / run / "checkpoints" / f"{int(step):06d}" / "adapter.safetensors"
        if path.is_file():
            return path
        raise AdapterError(f"The run {run!r} keeps no checkpoint of step {int(step)}: choose another one.")
    path = workspace.adapters / name
    if kind == "file" and path.suffix == ".safetensors" and path.is_file():
        return path
    raise AdapterError(f"There is no adapter called {name!r}: choose one from the list or drop its file.")


def add_adapter_file(workspace: Workspace, path: Path) -> str:
    """Check a dropped file and copy it into the workspace; returns its key. The same bytes are kept once."""
    from studio.adapters import read_adapter

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file: drop the adapter's .safetensors file.")
    read_adapter(path).refuse_if_damaged()
    name = safe_name(path.stem) + ".safetensors"
    workspace.refuse_if_full()
    target = workspace.adapters / name
    if not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        target = free_path(workspace.adapters, name)
        copy_whole(path, target)
        os.utime(target)  # it is new here, however old the file is
    return f"file:{target.name}"


def draw(recipe, stop: threading.Event | None = None, progress=None):
    """One picture (PIL.Image), taking turns with training for the device. None when stopped."""
    from studio.generation import generate

    with jobs.device():
        try:
            return None if stop is not None and stop.is_set() else generate(recipe, stop=stop, progress=progress)
        except GenerationError:
            if stop is not None and stop.is_set():
                return None  # asked for, so nothing to complain of
            raise


def recipe_line(recipe) -> str:
    """What made the picture, in one line that a person can read back."""
    parts = [f"seed {recipe.seed}", pluralize(recipe.steps, "step"), f"guidance {recipe.guidance:g}"]
    parts.append(f"{recipe.width} × {recipe.height}")
    parts += [f"{use.title} at {use.strength:g}" for use in recipe.adapters]
    prompt = re.sub(r"\s+", " ", recipe.prompt).strip()
    return f"{prompt if len(prompt) <= 90 else prompt[:89] + '…'} · " + " · ".join(parts)


def known(name: str, what: str) -> str:
    """`name` if it is a plain name of the workspace's own making, else WorkspaceError."""
    if not name or not isinstance(name, str):
        raise WorkspaceError(f"Choose {'an' if what[0] in 'aeiou' else 'a'} {what} first.")
    strange = not is_whole(name) or len(name.encode()) > 255  # no file is called so
    if strange or name in (".", "..") or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise WorkspaceError(f"{name[:40]!r} is not the name of {'an' if what[0] in 'aeiou' else 'a'} {what}.")
    return name
