"""`python -m studio train`: start, check or resume a run, and print its course. Its flags are RunConfig's settings."""

import time
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from studio.cli.terminal import (
    DONE,
    INTERRUPTED,
    USER,
    WorkspaceOption,
    change,
    flags_of,
    opened,
    say,
    stop_on_signals,
    with_flags,
)
from studio.errors import ConfigError, DatasetError, RunError
from studio.workspace import safe_name

if TYPE_CHECKING:
    from studio.training.config import RunConfig

EVERY = 2.0  # seconds between two lines about steps
SHORT = {  # settings with a short flag beside their dotted one
    "data.resolution": "--resolution",
    "data.trigger": "--trigger",
    "adapter.rank": "--rank",
    "adapter.alpha": "--alpha",
    "training.steps": "--steps",
    "training.batch_size": "--batch-size",
    "training.learning_rate": "--learning-rate",
    "preview.prompts": "--prompt",
}
OWN = ("name", "base", "data.folder")  # settings with a flag of another name


def command() -> Callable[..., int]:
    """`train` with a flag for every setting of RunConfig."""
    from studio.training.config import RunConfig

    return with_flags(train, flags_of(RunConfig, SHORT, without=OWN))


def train(
    context: typer.Context,
    run: Annotated[str, typer.Argument(metavar="[RUN.toml]", help="Settings, as a run folder keeps them.")] = "",
    data: Annotated[str, typer.Option(metavar="FOLDER", help="The folder of images and captions.")] = "",
    base: Annotated[str, typer.Option(metavar="NAME", help="The base model (starter).")] = "",
    name: Annotated[str, typer.Option(metavar="N", help="The run's name (the folder's name).")] = "",
    preset: Annotated[
        str, typer.Option(metavar="NAME", help="Begin from a preset, like 'style' or 'Pony, style'.")
    ] = "",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="section.key=value", help="Change one setting.")
    ] = None,
    resume: Annotated[
        str, typer.Option(metavar="RUN_FOLDER", help="Go on with a run; past its end with --steps N.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what will go wrong and how long it takes, then stop.")
    ] = False,
    check: Annotated[bool, typer.Option("--check", hidden=True)] = False,
    list_settings: Annotated[
        bool, typer.Option("--list-settings", help="List every setting with its default, then stop.")
    ] = False,
    settings: Annotated[bool, typer.Option("--settings", hidden=True)] = False,
    workspace: WorkspaceOption = "",
    **flags: Any,
) -> int:
    """Train a LoRA on a folder of images.

    A line is printed at each preview, checkpoint and validation, and every two seconds for the steps. Ctrl-C lets the
    run write its checkpoint and stops it; a second Ctrl-C breaks off at once.
    """
    if list_settings or settings:
        return _print_settings()
    wanted = dict(map(_change, changes or ())) | {key: value for key, value in flags.items() if value is not None}
    slider = bool(wanted.get("slider.positive")) and not (run or data or resume)
    if sum(map(bool, (run, data, resume, slider))) != 1:
        raise ConfigError("Say what to train on: --data FOLDER, or a RUN.toml, or --resume RUN_FOLDER.")
    from studio.training import new_run, read_run_folder, train
    from studio.training.defaults import usual_line
    from studio.training.distributed import Distributed

    space, processes = opened(context, workspace), Distributed()
    if resume:
        folder = Path(resume).expanduser().resolve()
        if name or base or preset or dry_run or check:
            raise ConfigError("--resume goes on with the run's own settings: only --steps N may be added.")
        config = _resumed(folder, wanted)
    else:
        config = _config(run, data, base, name, preset, wanted)
        if dry_run or check:
            return _dry_run(config, space)
        # Under `accelerate launch` the first process makes the folder and sends its name to the others.
        folder = Path(processes.broadcast(str(new_run(config, space)) if processes.is_main else ""))
        if processes.is_main:
            say(usual_line(config))
    with stop_on_signals() as stop:
        last = ""
        for kind, line in course(train(config, space, stop=stop, folder=folder), folder):
            say(line)
            last = kind
    adapter = read_run_folder(folder).adapter
    if adapter and processes.is_main:  # two processes that print at once write into each other's line
        print(adapter)
    return INTERRUPTED if last == "Stopped" else DONE


def _print_settings() -> int:
    """Every setting of a run, its default and what it does."""
    from studio.schema import settings_of
    from studio.training.config import RunConfig

    for name, default, description in settings_of(RunConfig):
        print(f"{name:34}{default:12}{description}")
    return DONE


def _resumed(folder: Path, changes: dict[str, Any]) -> "RunConfig":
    """The settings of the run to go on with, given more steps where that is asked."""
    from studio.training import extend_run, read_run_folder
    from studio.training.config import config_from_toml

    if not (folder / "run.toml").is_file():
        raise RunError(f"{folder} is not a run folder: it has no run.toml.")
    steps = changes.pop("training.steps", None)
    if changes:
        raise ConfigError("--resume goes on with the run's own settings: only --steps N may be added.")
    view = read_run_folder(folder)
    if view.state == "running":
        raise RunError(f"{view.name} is running now: stop it first, or wait for its end.")
    if steps:
        if not str(steps).isdigit():
            raise ConfigError(f"training.steps: must be a whole number (you gave {steps!r}).")
        return extend_run(folder, int(steps))
    if view.state == "finished":
        raise RunError(f"{view.name} is finished: give it more steps with --steps N.")
    return config_from_toml(folder / "run.toml")


def _dry_run(config: "RunConfig", workspace: Any) -> int:
    """Print a preflight's report; exit 2 when the run would fail."""
    from studio.training.preflight import as_text, preflight

    report = preflight(config, workspace)
    print(as_text(report))
    return DONE if report.ready else USER


def _config(run: str, data: str, base: str, name: str, preset: str, changes: dict[str, Any]) -> "RunConfig":
    """The run's settings: RUN.toml or --data, then --base, --name and every flag and --set on top; else the base's."""
    from studio.training.config import config_from, holds_every_setting, resolved, values_from_toml
    from studio.training.defaults import config_for

    values: dict[str, Any] = {}
    whole = False
    if run:
        path = Path(run)
        if not path.is_file():
            raise ConfigError(f"There is no file {path}: give a RUN.toml, or --data FOLDER.")
        values = values_from_toml(path, say)
        whole = holds_every_setting(values)
    elif data:
        folder = Path(data).expanduser().resolve()
        if not folder.is_dir():
            raise DatasetError(f"There is no folder {data}: give a folder of images.")
        values = {"data.folder": str(folder), "name": folder.name}
    else:  # a slider, which needs no images
        values = {"name": safe_name(f"{changes['slider.positive']} slider"[:60])}
    values |= {key: value for key, value in (("base", base), ("name", name)) if value}
    values |= resolved(changes, say)
    if preset:
        from studio.training.presets import preset as settings_of_preset

        values = settings_of_preset(preset, str(values.get("base") or "starter")) | values
    return config_from(values) if whole else config_for(values)


def _change(text: str) -> tuple[str, Any]:
    """("section.key", value) of a --set; a value in brackets is a TOML list, anything else stays text."""
    key, value = change(text, "training.steps=400")
    if not value.startswith("["):
        return key, value
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f'{key}: not a list; write it like ["one", "two"] (you gave {value[:60]!r}).') from error


def course(events: Iterable, folder: Path) -> Iterator[tuple[str, str]]:
    """(kind, line) for the events worth a line; what it says is read from the run folder, as the page reads it."""
    from studio.training import read_run_folder

    due = 0.0
    for event in events:
        kind = type(event).__name__
        if kind == "Failed":  # the error itself comes next, and is printed once
            continue
        if kind in ("Step", "Preparing"):
            if time.monotonic() < due:
                continue
            due = time.monotonic() + EVERY
        yield kind, _line(kind, read_run_folder(folder), folder)


def _line(kind: str, view, folder: Path) -> str:
    at = f"step {view.step} of {view.steps}"
    if kind == "Preparing" and view.preparing:
        return f"{view.preparing[0]} of {view.preparing[1]} {view.preparing_what or 'images and captions encoded'}"
    if kind == "Started":
        return f"{view.name}: {view.steps} steps, in {folder}"
    if kind == "Step" and view.losses:
        speed = f"  {view.steps_per_second:.2f} steps/s" if view.steps_per_second else ""
        left = f"  {_duration(view.seconds_left)} left" if view.seconds_left else ""
        return f"{at}  loss {view.losses[-1][2]:.4f}{speed}{left}"
    if kind == "Validation" and view.validation:
        _, held, base = view.validation[-1]
        against = f", {100 * (held / base - 1):+.1f} % against the base" if base else ""
        return f"{at}  held-out loss {held:.4f}{against}"
    if kind == "Preview" and view.previews:
        return f"{at}  preview {view.previews[-1][2]}"
    if kind == "Checkpoint":
        return f"{at}  checkpoint saved"
    if kind == "Scored" and view.scores:
        return f"{at}  {view.scores[-1].line()}"
    if kind == "Judged" and view.verdict:
        return f"{at}  {view.verdict.sentence} {view.verdict.remedy}".rstrip()
    if kind == "Finished":
        return f"{at}  {view.message}"
    if kind == "Stopped":
        return f"{view.message} The checkpoint is in {folder}."
    if kind == "ExportChecked" and view.export_check:
        return f"{at}  {view.export_check.message}"
    if kind in ("Warned", "RolledBack") and view.message:
        return f"{at}  {view.message}"
    return f"{at}  {kind.lower()}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
