"""The run folder: written by the trainer, read by everyone else. No torch here."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from studio.basemodels import base_folder
from studio.errors import ConfigError, RunError
from studio.training.config import RunConfig, config_from, config_from_toml, config_to_toml, dotted
from studio.training.events import (
    Certified,
    Checkpoint,
    Event,
    Failed,
    Finished,
    Preparing,
    Preview,
    RolledBack,
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
    looks: list[Validation] = field(default_factory=list)  # at the held-out pictures
    rate: float = 0.0  # steps a second
    seconds_left: float = 0.0
    previews: list[tuple[int, str, Path]] = field(default_factory=list)  # step, prompt, file
    message: str = ""  # the last thing said in words
    warnings: list[tuple[int, str]] = field(default_factory=list)  # step, what
    setup: str = ""  # device, precision, pictures and buckets
    preparing: tuple[int, int] | None = None  # pictures and captions encoded, of how many
    last: Step | None = None
    certificate: Certified | None = None
    adapter: Path | None = None
    here: bool = False  # the process that began it is this one

    @property
    def validation(self) -> list[tuple[int, float, float]]:
        """(step, loss on the held-out pictures, the base's)."""
        return [(look.step, look.loss, look.base_loss) for look in self.looks]


def new_run(config: RunConfig, workspace: Workspace) -> Path:
    """Make the run's folder. Raises RunError when the name is taken, DatasetError when there is nothing to learn,
    BaseModelError when there is no such base, ConfigError when the machine lacks what the settings ask for.
    """
    from studio.training.optimisers import missing_for  # brings torch

    split(config)  # a bad folder, base or optimiser is said before anything is made
    base_folder(config.base)
    complaint = missing_for(config.training)
    if complaint:
        raise ConfigError(complaint)
    name = safe_name(config.name or Path(config.data.folder).name)
    folder = workspace.runs / name
    if (folder / "run.toml").exists():
        raise RunError(f"There is a run called {name!r} already: choose another name, or resume it.")
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "run.toml", config_to_toml(config.model_copy(update={"name": name})))
    return folder


def extend_run(folder: Path, steps: int) -> RunConfig:
    """Give a run more steps, so that resuming it goes on past its end. Raises RunError, ConfigError."""
    config = config_from_toml(folder / "run.toml")
    if steps <= read_run_folder(folder).step:
        raise RunError(f"{folder.name} has done {read_run_folder(folder).step} steps already: give it more than that.")
    config = config_from(dotted(config) | {"training.steps": steps})
    write_whole(folder / "run.toml", config_to_toml(config))
    return config


def append(folder: Path, event: Event) -> None:
    """Add one event to events.jsonl; a line is whole or, after a crash, the last one is torn and skipped.

    Raises RunError when the disk is full.
    """
    line = json.dumps(to_dict(event)) + "\n"
    try:
        with (folder / "events.jsonl").open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                line = line if stream.read(1) == b"\n" else "\n" + line  # after a torn line, begin a new one
            stream.write(line.encode())
    except OSError as error:
        raise RunError(f"The run's events can't be written ({error.strerror}): free some space and resume.") from error


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
        case Preparing():
            view.preparing = (event.done, event.total)
        case Started():
            view.steps, view.message, view.setup, view.preparing = event.steps, "", event.setup, None
            view.state = "running" if _alive(event) else "interrupted"
            view.here = event.process == os.getpid()
            _forget_after(view, event.step)
        case RolledBack():
            view.message = event.message
            view.warnings.append((event.step, event.message))
            _forget_after(view, event.step)
        case Step():
            view.rate, view.seconds_left, view.last = event.rate, event.seconds_left, event
            if event.step > after:
                view.losses.append((event.step, event.loss, event.smoothed))
        case Validation():
            view.looks.append(event)
        case Preview():
            view.previews.append((event.step, event.prompt, folder / event.file))
        case Warned():
            view.message = event.message
            view.warnings.append((event.step, event.message))
        case Certified():
            view.certificate = event
        case Finished() | Stopped() | Failed():
            view.state, view.message, view.seconds_left = type(event).__name__.lower(), event.message, 0.0
        case Checkpoint():
            pass


def _forget_after(view: RunView, step: int) -> None:
    """What a run does again replaces what it did before."""
    view.losses = [row for row in view.losses if row[0] <= step]
    view.looks = [look for look in view.looks if look.step <= step]
    view.previews = [row for row in view.previews if row[0] <= step]
    view.certificate = None


def _alive(started: Started) -> bool:
    try:
        return abs(psutil.Process(started.process).create_time() - started.process_started) < 1
    except psutil.Error:
        return False


def here() -> tuple[int, float]:
    """This process, for Started."""
    return os.getpid(), psutil.Process().create_time()
