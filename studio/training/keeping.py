"""Runs that are kept: a note on one, its settings as a file, and a bin from which it can be taken back."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from studio.errors import RunError
from studio.training.reading import skim_run_folder
from studio.training.runs import list_runs
from studio.training.summary import forget
from studio.workspace import Workspace, free_path, remove_whole, size_of, write_whole

NOTE, LONGEST = "note.txt", 4000  # characters
BIN = ".bin"  # hidden in the workspace


@dataclass(frozen=True)
class Thrown:
    """A run in the bin. `key` names it there, `name` is what it was called."""

    key: str
    name: str
    size: int  # bytes


def note_of(workspace: Workspace, name: str) -> str:
    """What a person wrote about the run, "" for nothing."""
    try:
        return (workspace.runs / name / NOTE).read_text("utf-8", errors="replace")[:LONGEST]
    except OSError:
        return ""


def write_note(workspace: Workspace, name: str, text: str) -> None:
    """Raises RunError when it is too long or there is no such run."""
    _check(workspace, name)
    text = text.strip()
    if len(text) > LONGEST:
        raise RunError(f"A note holds {LONGEST:,} characters and this one has {len(text):,}: shorten it.")
    if text:
        write_whole(workspace.runs / name / NOTE, text)
    else:
        (workspace.runs / name / NOTE).unlink(missing_ok=True)


def throw_away(workspace: Workspace, name: str) -> str:
    """Move a run into the bin; returns its key there. Raises RunError when it goes on or can't be moved."""
    _check(workspace, name)
    folder = workspace.runs / name
    if skim_run_folder(folder).state == "running":
        raise RunError(f"{name} is going on: stop it first, then delete it.")
    key = f"{time.time_ns():020d}-{name}"
    try:
        (workspace.root / BIN).mkdir(exist_ok=True)
        os.rename(folder, workspace.root / BIN / key)
    except OSError as error:
        raise RunError(f"{name} can't be moved into the bin: {error.strerror}.") from error
    forget(workspace, name)
    return key


def thrown(workspace: Workspace) -> list[Thrown]:
    """What is in the bin, newest first."""
    try:
        keys = sorted((entry.name for entry in os.scandir(workspace.root / BIN) if entry.is_dir()), reverse=True)
    except FileNotFoundError:
        return []
    found = [(key, *key.partition("-")[::2]) for key in keys]
    return [
        Thrown(key, name, size_of(workspace.root / BIN / key)) for key, when, name in found if when.isdigit() and name
    ]


def bring_back(workspace: Workspace, key: str) -> str:
    """Take a run out of the bin; returns its name, which gets a number where it is taken. Raises RunError."""
    one = next((one for one in thrown(workspace) if one.key == key), None)
    if one is None:
        raise RunError("That run is not in the bin any more.")
    target = workspace.runs / one.name
    if target.exists():
        target = free_path(workspace.runs, one.name)
    try:
        os.rename(workspace.root / BIN / key, target)
    except OSError as error:
        raise RunError(f"{one.name} can't be taken out of the bin: {error.strerror}.") from error
    return target.name


def empty_bin(workspace: Workspace) -> int:
    """Delete for good what is in the bin; returns the bytes that are free now."""
    before = thrown(workspace)
    for one in before:
        remove_whole(workspace.root / BIN / one.key)
    return sum(one.size for one in before) - sum(one.size for one in thrown(workspace))


def settings_file(workspace: Workspace, name: str, folder: Path) -> Path:
    """A copy of the run's run.toml in `folder`, under the run's name. Raises RunError."""
    _check(workspace, name)
    target = folder / f"{name}.toml"
    write_whole(target, (workspace.runs / name / "run.toml").read_bytes(), lasting=False)
    return target


def _check(workspace: Workspace, name: str) -> None:
    if name not in list_runs(workspace):
        raise RunError(f"There is no run called {name[:60]!r}: choose one from the list.")
