"""The trash: runs that were deleted lie in it until it is emptied, and can be restored."""

import os
import time
from dataclasses import dataclass

from studio.errors import RunError
from studio.training.reading import skim_run_folder
from studio.training.runs import list_runs
from studio.training.summary import forget
from studio.workspace import Workspace, free_path, remove_folder, size_of

TRASH = ".bin"  # hidden in the workspace; its name of before 0.2


@dataclass(frozen=True)
class TrashedRun:
    """A run in the trash. `key` names it there, `name` is what it was called."""

    key: str
    name: str
    size: int  # bytes


def move_to_trash(workspace: Workspace, name: str) -> str:
    """Move a run into the trash; returns its key there. Raises RunError when it goes on or can't be moved."""
    check_run(workspace, name)
    folder = workspace.runs / name
    if skim_run_folder(folder).state == "running":
        raise RunError(f"{name} is going on: stop it first, then delete it.")
    key = f"{time.time_ns():020d}-{name}"
    try:
        (workspace.root / TRASH).mkdir(exist_ok=True)
        os.rename(folder, workspace.root / TRASH / key)
    except OSError as error:
        raise RunError(f"{name} can't be moved to the trash: {error.strerror}.") from error
    forget(workspace, name)
    return key


def list_trash(workspace: Workspace) -> list[TrashedRun]:
    """What is in the trash, newest first."""
    try:
        keys = sorted((entry.name for entry in os.scandir(workspace.root / TRASH) if entry.is_dir()), reverse=True)
    except FileNotFoundError:
        return []
    found = [(key, *key.partition("-")[::2]) for key in keys]
    return [
        TrashedRun(key, name, size_of(workspace.root / TRASH / key))
        for key, when, name in found
        if when.isdigit() and name
    ]


def restore(workspace: Workspace, key: str) -> str:
    """Take a run out of the trash; returns its name, which gets a number where it is taken. Raises RunError."""
    one = next((one for one in list_trash(workspace) if one.key == key), None)
    if one is None:
        raise RunError("That run is not in the trash any more.")
    target = workspace.runs / one.name
    if target.exists():
        target = free_path(workspace.runs, one.name)
    try:
        os.rename(workspace.root / TRASH / key, target)
    except OSError as error:
        raise RunError(f"{one.name} can't be taken out of the trash: {error.strerror}.") from error
    return target.name


def empty_trash(workspace: Workspace) -> int:
    """Delete for good what is in the trash; returns the bytes that are free now."""
    before = list_trash(workspace)
    for one in before:
        remove_folder(workspace.root / TRASH / one.key)
    return sum(one.size for one in before) - sum(one.size for one in list_trash(workspace))


def check_run(workspace: Workspace, name: str) -> None:
    """Raises RunError when there is no such run."""
    if name not in list_runs(workspace):
        raise RunError(f"There is no run called {name[:60]!r}: choose one from the list.")
