"""The run folder: written by the trainer, read by everyone else. No torch here."""

import json
import os
import stat
from contextlib import suppress
from pathlib import Path

import psutil

from studio.basemodels import base_folder
from studio.errors import ConfigError, RunError, user_message
from studio.training.config import RunConfig, config_from, config_from_toml, config_to_toml, dotted
from studio.training.events import Event, to_dict
from studio.training.length import with_steps
from studio.training.reading import LOG, RunView, read_run_folder
from studio.training.selection import split
from studio.workspace import Workspace, atomic_copy, atomic_write, safe_name

INIT = "init.safetensors"  # in a run's folder: the adapter that it continues from
TRAINING_ADAPTER = "training_adapter.safetensors"  # the one that is merged while it trains


def new_run(config: RunConfig, workspace: Workspace) -> Path:
    """Make the run's folder. Raises RunError when the name is taken, DatasetError when there is nothing to learn,
    BaseModelError when there is no such base, ConfigError when the machine lacks what the settings ask for.
    """
    from studio.training.optimizers import missing_for  # brings torch

    given = {INIT: config.adapter.init_from, TRAINING_ADAPTER: config.training.training_adapter}
    files = {name: Path(file).expanduser() for name, file in given.items() if file}
    if files:
        from studio.adapters import read_outline

        for file in files.values():
            read_outline(file)  # a file that can't be read is reported before anything is made
    config = with_steps(config)
    split(config)  # a bad folder, base or optimizer is said before anything is made
    base_folder(config.base)
    complaint = missing_for(config.training)
    if complaint:
        raise ConfigError(complaint)
    name = safe_name(config.name or Path(config.data.folder).name or "slider")
    folder = workspace.runs / name
    if (folder / "run.toml").exists():
        raise RunError(f"There is a run called {name!r} already: choose another name, or resume it.")
    folder.mkdir(parents=True, exist_ok=True)
    for copy, file in files.items():
        atomic_copy(file, folder / copy)  # the run resumes with it, whatever becomes of the original
    atomic_write(folder / "run.toml", config_to_toml(config.model_copy(update={"name": name})))
    return folder


def extend_run(folder: Path, steps: int) -> RunConfig:
    """Give a run more steps, so that resuming it goes on past its end. Raises RunError, ConfigError."""
    config = config_from_toml(folder / "run.toml")
    if steps <= read_run_folder(folder).step:
        raise RunError(f"{folder.name} has done {read_run_folder(folder).step} steps already: give it more than that.")
    config = config_from(dotted(config) | {"training.steps": steps, "training.epochs": None})
    atomic_write(folder / "run.toml", config_to_toml(config))
    return config


def append(folder: Path, event: Event) -> None:
    """Add one event to events.jsonl; a line is whole or, after a crash, the last one is torn and skipped.

    Raises RunError when it can't be written, as on a full disk.
    """
    line = json.dumps(to_dict(event)) + "\n"
    try:
        with (folder / LOG).open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else "\n" + line  # after a torn line, begin a new one
            stream.write(line.encode())
    except OSError as error:
        reason = user_message(error) or f"{error.strerror or error}."
        raise RunError(f"The run's events can't be written. {reason} What is in its checkpoints is kept.") from error


def list_runs(workspace: Workspace) -> list[str]:
    """Names of the runs, newest first."""
    found: dict[str, int] = {}
    for folder in workspace.runs.iterdir():
        with suppress(OSError):  # no run, or moved to the trash meanwhile
            facts = (folder / "run.toml").stat()
            if stat.S_ISREG(facts.st_mode):
                found[folder.name] = facts.st_mtime_ns
    return sorted(found, key=found.__getitem__, reverse=True)


def read_run(workspace: Workspace, name: str, after: int = 0) -> RunView:
    """The run `name`; losses only of steps after `after`. Raises RunError when there is none."""
    folder = workspace.runs / name
    if not (folder / "run.toml").is_file():
        raise RunError(f"There is no run called {name[:60]!r}.")
    return read_run_folder(folder, after)


def here() -> tuple[int, float]:
    """This process, for Started."""
    return os.getpid(), psutil.Process().create_time()
