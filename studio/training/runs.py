"""The run folder: written by the trainer, read by everyone else. No torch here."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio.basemodels import base_folder
from studio.errors import RunError
from studio.training.config import RunConfig, config_to_toml
from studio.training.events import (
    Checkpoint,
    Event,
    Failed,
    Finished,
    Preview,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
    from_dict,
    to_dict,
)  # fmt: skip
from studio.training.selection import split
from studio.workspace import Workspace, safe_name, write_whole


@dataclass
class RunView:
    """A run as its folder tells it."""

    name: str
    state: str = "interrupted"  # or "running", "finished", "stopped", "failed"
    step: int = 0
    steps: int = 0
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, smoothed
    validation: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, the base's loss
    rate: float = 0.0  # steps a second
    seconds_left: float = 0.0
    previews: list[tuple[int, str, Path]] = field(default_factory=list)  # step, prompt, file
    message: str = ""  # the last thing said in words
    adapter: Path | None = None
    here: bool = False  # the process that began it is this one


def new_run(config: RunConfig, workspace: Workspace) -> Path:
    """Make the run's folder. Raises RunError when the name is taken, DatasetError when there is nothing to learn,
    BaseModelError when there is no such base.
    """
    split(config)  # a bad folder or base is said before anything is made
    base_folder(config.base)
    name = safe_name(config.name or Path(config.data.folder).name)
    folder = workspace.runs / name
    if (folder / "run.toml").exists():
        raise RunError(f"There is a run called {name!r} already: choose another name, or resume it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "run.toml", config_to_toml(config.model_copy(update={"name": name})))
    return folder


def append(folder: Path, event: Event) -> None:
    """Add one event to events.jsonl; a line is whole or, after a crash, the last one is torn and skipped."""
    with (folder / "events.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(to_dict(event)) + "\n")


def read_events(folder: Path) -> list[Event]:
    """All events so far; a torn or foreign line is passed over."""
    try:
        lines = (folder / "events.jsonl").read_text("utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            events.append(from_dict(json.loads(line)))
        except (ValueError, KeyError, TypeError):
            continue
    return events


def list_runs(workspace: Workspace) -> list[str]:
    """Names of the runs, newest first."""
    found = [f for f in workspace.runs.iterdir() if (f / "run.toml").is_file()]
    return [f.name for f in sorted(found, key=lambda f: (f / "run.toml").stat().st_mtime_ns, reverse=True)]


def read_run(workspace: Workspace, name: str, after: int = 0) -> RunView:
    """The run `name`; losses only of steps after `after`. Raises RunError when there is none."""
    folder = workspace.runs / name
    if not (folder / "run.toml").is_file():
        raise RunError(f"There is no run called {name!r}.")
    return read_run_folder(folder, after)


def read_run_folder(folder: Path, after: int = 0) -> RunView:
    """The run in `folder`, wherever that is."""
    view = RunView(folder.name)
    for event in read_events(folder):
        _take(view, event, folder, after)
    file = folder / "adapter.safetensors"
    view.adapter = file if file.is_file() else None
    return view


def _take(view: RunView, event: Event, folder: Path, after: int) -> None:
    view.step = event.step
    match event:
        case Started():
            view.steps, view.message = event.steps, ""
            view.state = "running" if _alive(event) else "interrupted"
            view.here = event.process == os.getpid()
            # What a resumed run does again replaces what it did before.
            view.losses = [row for row in view.losses if row[0] <= event.step]
            view.validation = [row for row in view.validation if row[0] <= event.step]
            view.previews = [row for row in view.previews if row[0] <= event.step]
        case Step():
            view.rate, view.seconds_left = event.rate, event.seconds_left
            if event.step > after:
                view.losses.append((event.step, event.loss, event.smoothed))
        case Validation():
            view.validation.append((event.step, event.loss, event.base_loss))
        case Preview():
            view.previews.append((event.step, event.prompt, folder / event.file))
        case Warned():
            view.message = event.message
        case Finished() | Stopped() | Failed():
            view.state, view.message, view.seconds_left = type(event).__name__.lower(), event.message, 0.0
        case Checkpoint():
            pass


def _alive(started: Started) -> bool:
    try:
        return abs(psutil.Process(started.process).create_time() - started.process_started) < 1
    except psutil.Error:
        return False


def here() -> tuple[int, float]:
    """This process, for Started."""
    return os.getpid(), psutil.Process().create_time()
