"""Training runs: check, start, pause, resume, read."""

import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import ConfigError, NotAllowedError, RunError, StudioError, WorkspaceError
from studio.services import base_models
from studio.services.adapter_files import adapter_path, key_of_path
from studio.services.base_models import STARTER
from studio.services.datasets import open_named
from studio.services.jobs import Job, jobs, latest, remember, running, stop_job
from studio.services.operations import Expanded, operation
from studio.services.parameters import AnyRun, BaseName, DatasetName, RunName, RunSettings, Table
from studio.workspace import Workspace, atomic_copy, checked_name, free_path, safe_name

if TYPE_CHECKING:
    from studio.training import RunConfig, RunView


FOLDERS = ("data.held_out", "data.regularisation")  # settings that name a dataset on the page and a folder in run.toml
FILES = ("adapter.init_from", "training.training_adapter")  # settings that name an adapter, and a file in run.toml
UNFINISHED = ("interrupted", "stopped", "failed")
QUEUED = "queued"
HARDEST = 8
RunTitle = Annotated[str, Field(max_length=80, description="Name of the new run; empty: the dataset's.")]
MoreSteps = Annotated[int, Field(ge=1, le=1_000_000, description="How many steps to add.")]


# Before a run -------------------------------------------------------------------------------------------------------


@operation()
def list_presets(workspace: Workspace, base: BaseName = STARTER) -> dict[str, dict[str, Any]]:
    """Settings to begin with, by name, for `more` of check_settings and start_training. Raises BaseModelError."""
    from studio.basemodels.defaults import variant_of
    from studio.training.presets import presets_of

    return presets_of(variant_of(base_models.line_of(workspace, base)))


def prompts_for(workspace: Workspace, base: str, current: str) -> str | None:
    """A base's own preview prompts, a line each, where the form still holds those of another base; else None."""
    from studio.basemodels.defaults import variant_of
    from studio.training.defaults import default_prompts, prompts_of

    lines = [line.strip() for line in current.splitlines() if line.strip()]
    if lines and lines not in default_prompts():
        return None
    return "\n".join(prompts_of(variant_of(base_models.line_of(workspace, base))))


def config_of(workspace: Workspace, values: dict[str, Any], whole: bool = False) -> "RunConfig":
    """The RunConfig of what was typed, its folders being datasets of the workspace.

    values: dotted settings as for `config_from`, but `dataset` instead of `data.folder`, and `base` a name of the list.
    What is missing is as the base has it; whole: it is all of a run's settings, and nothing is missing.
    """
    from studio.training.config import config_from_whole, dotted
    from studio.training.defaults import config_for
    from studio.training.folders import renamed
    from studio.training.length import with_steps

    if any(key.rpartition(".")[2] == "dataset_config" for key in values):  # a path of this machine
        raise ConfigError("dataset_config is read on the command line alone: here, name the folders in data.folders.")
    values = dict(values)
    name = values.pop("dataset", "")
    if values.get("slider.positive") and str(values.get("slider.images", "")) != "0":
        values["data.folder"] = ""  # the base draws what a slider is trained on
        name = f"{values['slider.positive']} slider"[:60]
    else:
        dataset = open_named(workspace, name)
        name, values["data.folder"] = dataset.name, str(dataset.folder)
    values["name"] = free_path(workspace.runs, safe_name(str(values.get("name") or name))).name
    for key in FOLDERS:  # names of datasets, never paths: whoever opened the page is not the owner of the disk
        if values.get(key):
            values[key] = str(open_named(workspace, values[key]).folder)
    if lines := values.get("data.folders"):
        given = lines if isinstance(lines, list) else [lines]
        values["data.folders"] = [
            renamed(str(one), lambda name: str(open_named(workspace, name).folder)) for one in given
        ]
    for key in FILES:
        if values.get(key):  # a name as well
            values[key] = str(adapter_path(workspace, str(values[key])))
    values["base"] = base_models.line_of(workspace, values.get("base"))
    config = with_steps(config_from_whole(values) if whole else config_for(values))
    workspace.allows.check_run(dotted(config))
    return config


def settings_from(dataset: str, name: str, fields: dict[str, Any]) -> dict[str, Any]:
    """What `config_of` takes, from the parameters of an operation."""
    values = fields["more"] | {
        "dataset": dataset,
        "name": name,
        "training.steps": fields["steps"],
        "adapter.rank": fields["rank"],
        "training.learning_rate": fields["learning_rate"],
    }
    if lines := [line.strip() for line in fields["prompts"].splitlines() if line.strip()]:
        values["preview.prompts"] = lines
    return {key: value for key, value in values.items() if value not in (None, "")}


@operation()
def check_settings(
    workspace: Workspace,
    dataset: DatasetName = "",
    *,
    values: dict[str, Any] | None = None,
    **fields: Expanded[RunSettings],
) -> Job:
    """Try the settings on a few real steps in the background; wait with job_status, then ask check_report.

    values: the settings as the form has them, instead of the other parameters.
    """
    config = config_of(workspace, settings_from(dataset, "", fields) if values is None else values)

    def work(job: Job) -> None:
        from studio.training.preflight import preflight

        job.message = "Trying a few real steps"
        with jobs.device():
            job.result = preflight(config, workspace, stop=job.stop_event)
        job.message = "Ready." if job.result.ready else "Not ready."

    name = Path(config.data.folder).name
    job = jobs.start("check", f"Checking {name}", work, limit=workspace.allows.longest)
    remember(job, name)
    return job


@operation()
def check_report(workspace: Workspace) -> dict[str, Any]:
    """What the newest check found: findings, seconds a step and in all, memory in GB, settings to change."""
    job = newest_check()
    if job is None:
        return {"state": "none"}
    findings = [{"level": "stop", "message": job.error}] if job.error else []
    found = {"ready": job.result.ready, **asdict(job.result)} if job.result else {}
    return {"state": job.state, "ready": False, "findings": findings, "proposal": {}} | found


def newest_check() -> Job | None:
    """The check that runs, or the one that ended last, unless something else was begun after it; else None."""
    newest = next(iter([*latest.values()][::-1]), None)
    return newest.job if newest and newest.job.kind == "check" else None


@operation()
def timestep_histogram(
    workspace: Workspace,
    base: BaseName = STARTER,
    more: Annotated[
        Table | None, Field(description='Settings of a run, such as {"training.timesteps": "mode"}.')
    ] = None,
) -> list[float]:
    """Share of a run's draws in each twentieth of the noise schedule, from no noise to noise alone."""
    from studio.training.defaults import config_for
    from studio.training.timestep_plot import timestep_histogram

    line = base_models.line_of(workspace, base)
    given = {key: value for key, value in (more or {}).items() if key not in ("base", "data.folder")}
    return timestep_histogram(config_for({**given, "data.folder": "-", "base": line}))


# A run that goes on -------------------------------------------------------------------------------------------------


@operation()
def start_training(
    workspace: Workspace,
    dataset: DatasetName = "",
    name: RunTitle = "",
    *,
    values: dict[str, Any] | None = None,
    **fields: Expanded[RunSettings],
) -> str:
    """Start a run in the background. Answers the run's name (name-2 when the name is taken).

    values: the settings as the form has them, instead of the other parameters.
    """
    from studio.training import new_run

    config = config_of(workspace, settings_from(dataset, name, fields) if values is None else values)
    jobs.refuse_if_busy()
    workspace.refuse_if_full()
    begin(workspace, config, new_run(config, workspace))
    return config.name


@operation()
def stop_training(workspace: Workspace) -> bool:
    """Stop the run after its current step; it keeps what it learned. Answers whether anything ran."""
    return stop_job("train")


@operation()
def pause_training(workspace: Workspace) -> bool:
    """Pause the run after a checkpoint, which frees the device for generate. Answers whether anything ran."""
    job = running("train")
    if job and job.limit:
        raise NotAllowedError("A run can't be paused here, since others wait: stop it, and resume it later.")
    if job:
        job.pause_event.set()
    return job is not None


@operation()
def save_now(workspace: Workspace) -> bool:
    """Write a checkpoint of the run after its current step. Answers whether anything ran."""
    return _ask("save")


@operation()
def sample_now(workspace: Workspace) -> bool:
    """Draw the run's previews after its current step. Answers whether anything ran."""
    return _ask("sample")


def _ask(what: str) -> bool:
    job = running("train")
    event = job.asked.get(what) if job else None
    if event:
        event.set()
    return event is not None


@operation()
def resume_training(workspace: Workspace, run: AnyRun = "") -> str:
    """Go on with the paused run, or with one that was stopped or broken off. Answers the run's name."""
    from studio.training import config_from_toml

    name = run

    current, job = current_run(), running("train")
    if job and job.pause_event.is_set() and name in ("", current):
        job.pause_event.clear()
        return current
    if not name:
        raise RunError("No run is paused: choose the run that should go on.")
    jobs.refuse_if_busy()
    view = view_of(workspace, name)
    if view.state not in (*UNFINISHED, QUEUED):
        raise RunError(f"The run {name!r} is {view.state}: only a run that was broken off can go on.")
    folder = workspace.runs / name
    begin(workspace, config_from_toml(folder / "run.toml"), folder)
    return name


@operation()
def extend_training(workspace: Workspace, run: RunName, steps: MoreSteps = 100) -> str:
    """Give a run that has ended more steps and go on with it. Answers the run's name."""
    from studio.training import extend_run

    name, more = run, steps
    jobs.refuse_if_busy()
    view = view_of(workspace, checked_name(name, "run"))
    if view.state == "running":
        raise RunError(f"The run {name!r} is running elsewhere: wait until it has ended.")
    folder = workspace.runs / name
    workspace.allows.check_run({"training.steps": view.step + more})
    begin(workspace, extend_run(folder, view.step + more), folder)
    return name


def begin(workspace: Workspace, config: "RunConfig", folder: Path) -> None:
    """The run in `folder`, in the background, from where it stands; it waits in the queue no more."""
    from studio.services.run_order import dequeue

    def work(job: Job) -> None:
        from studio.training import train

        job.message = "Loading the base model"
        job.total, save, sample = config.training.steps, threading.Event(), threading.Event()
        job.asked = {"save": save, "sample": sample}
        events = train(config, workspace, stop=job.stop_event, folder=folder, save=save, sample=sample)
        _follow(job, jobs.turns(events, job), save)

    remember(jobs.start("train", f"Training {folder.name}", work, limit=workspace.allows.longest), folder.name)
    dequeue(workspace, folder.name)


def _follow(job: Job, events: Iterable[Any], save: threading.Event) -> None:
    """Ask for one event after the other. A pause asks for a checkpoint first and stands still after it.

    The trainer clears `save` when it has tried to write one: also when the disk was full, which must not train on.
    """
    from studio.training.events import Preparing, Step

    saving = False
    for event in events:
        job.done = event.step
        if isinstance(event, Preparing):
            count = f"{event.done:,} of {event.total:,}"
            job.message = f"{count} {event.what}" if event.what else f"Encoding images: {count}"
        elif isinstance(event, Step):
            job.message, job.pace = "", (event.steps_per_second, event.seconds_left)
        if not job.pause_event.is_set():
            saving = False
        elif isinstance(event, Preparing) or (saving and not save.is_set()):
            job.wait_while_paused()
            saving = False
        elif not saving:
            saving = True
            save.set()


def current_run() -> str:
    """The name of the run that goes on now, else an empty string."""
    newest = latest.get("train")
    return newest.name if newest and newest.job is running("train") else ""


# Looking at runs ----------------------------------------------------------------------------------------------------


def list_run_names(workspace: Workspace) -> list[str]:
    """Names of all runs, newest first."""
    from studio.training import list_runs

    return list_runs(workspace)


def run_view(workspace: Workspace, name: str = "") -> "RunView | None":
    """The run `name`, or the one that runs now, or the newest; None when there is none. As `view_of`."""
    if not name:
        names = list_run_names(workspace)
        name = current_run() if current_run() in names else next(iter(names), "")
    return view_of(workspace, name) if name else None


def view_of(workspace: Workspace, name: str) -> "RunView":
    """A run as its folder and the queue have it: its state may also be "paused" or "queued". Raises RunError."""
    from studio.services.run_order import waiting
    from studio.training import read_run

    if name not in list_run_names(workspace):
        raise RunError(f"There is no run called {name[:60]!r}: choose one from the list.")
    view = read_run(workspace, name)
    job = running("train")
    if job and name == current_run():  # its folder may still tell how it ended before it was resumed
        view.state = "paused" if job.paused else "running"
    if view.state != "running" and name in waiting(workspace) and name != current_run():
        view.state = QUEUED
    return view


def run_stamp(workspace: Workspace, name: str) -> tuple[Any, ...]:
    """Changes whenever the run may have changed: cheap to ask every second."""
    try:
        stat = (workspace.runs / checked_name(name, "run") / "events.jsonl").stat()
        return name, stat.st_mtime_ns, stat.st_size
    except (OSError, WorkspaceError):
        return name, 0, 0


def run_settings(workspace: Workspace, name: str) -> dict[str, Any]:
    """The settings that the run was made with, dotted; folders as names of datasets, the base by its name on the list:
    "" where they are elsewhere.
    """
    if name not in list_run_names(workspace):
        raise RunError("Choose a run first, to copy its settings.")
    return settings_from_file(workspace, workspace.runs / name / "run.toml")[0]


def settings_from_file(workspace: Workspace, path: Path) -> tuple[dict[str, Any], list[str]]:
    """(settings as `run_settings`, lines on names that were translated) of a run.toml. Raises ConfigError."""
    from studio.training import config_from_toml
    from studio.training.config import dotted
    from studio.training.folders import parse, renamed

    notes: list[str] = []
    own = {"data.folder": "-"}  # the form has a dataset of its own
    values = dotted(config_from_toml(path, notes.append, own, alone=not workspace.allows.folders))
    for key in ("data.folder", *FOLDERS):
        folder = Path(values[key])
        inside = bool(values[key]) and folder.parent == workspace.datasets and folder.is_dir()
        values[key] = folder.name if inside else ""
    lines = [(parse(line), line) for line in values["data.folders"]]
    values["data.folders"] = [
        renamed(line, lambda folder: Path(folder).name)
        for one, line in lines
        if Path(one.folder).parent == workspace.datasets and Path(one.folder).is_dir()
    ]
    for key in FILES:
        values[key] = key_of_path(workspace, values[key])
    values["dataset"] = values.pop("data.folder")
    values["base"] = base_models.name_of(workspace, values["base"])
    return values, notes


def trigger_words(workspace: Workspace, name: str) -> list[str]:
    """Of all the run's folders."""
    from studio.training import config_from_toml
    from studio.training.folders import triggers_of

    if name not in list_run_names(workspace):
        return []
    return triggers_of(config_from_toml(workspace.runs / name / "run.toml").data)


def hardest_of(workspace: Workspace, name: str, outlying: bool = False) -> list[tuple[Any, float]]:
    """(image, how hard; 1 is usual) of a run, the hardest first; images that are gone are passed over.

    outlying: those alone that are unlike the rest.
    """
    from studio.datasets import open_dataset
    from studio.training import config_from_toml
    from studio.training.difficulty import hardest, standing_out
    from studio.training.selection import name_of, sources_of

    if name not in list_run_names(workspace):
        return []
    place = workspace.runs / name
    rows = standing_out(hardest(place, None))[:HARDEST] if outlying else hardest(place, HARDEST)
    if not rows:
        return []
    data = config_from_toml(workspace.runs / name / "run.toml").data
    named: dict[str, Any] = {}
    bare: dict[str, Any] = {}  # as older runs wrote them, whatever folder an image lay in
    own = [(str(one.place), one.label if number else "") for number, one in enumerate(sources_of(data))]
    for folder, ordinary in [(data.regularisation, data.regularisation), *own[::-1]]:
        try:
            opened = open_dataset(Path(folder)).items if folder else []
        except StudioError:
            continue
        named |= {name_of(item, ordinary): item for item in opened}
        bare |= {item.path.name: item for item in opened}
    items = bare | named
    shown: dict[Path, tuple[Any, float]] = {}  # once each: an older run that went on has both names
    for image, _, hard in rows:
        if item := items.get(image):
            shown.setdefault(item.path, (item, hard))
    return list(shown.values())


def download_copy(workspace: Workspace, run: str) -> Path | None:
    """The run's adapter under its run's name in a folder the browser may read; None while there is none."""
    view = run_view(workspace, run)
    if not view or not view.adapter or not Path(view.adapter).is_file():
        return None
    source = Path(view.adapter)
    target = workspace.cache / "downloads" / f"{safe_name(view.name)}.safetensors"
    if not target.exists() or target.stat().st_mtime != source.stat().st_mtime:  # clocks go backwards, too
        atomic_copy(source, target)
    return target


# Answers ------------------------------------------------------------------------------------------------------------


@operation()
def list_runs(workspace: Workspace) -> list[str]:
    """Names of all runs, newest first."""
    return list_run_names(workspace)


@operation()
def run_status(workspace: Workspace, run: AnyRun = "") -> dict[str, Any]:
    """A run's state, step, speed, losses, verdict, warnings, hardest images and whether its adapter is ready."""
    view = run_view(workspace, run)
    return _answer(workspace, view) if view else {"state": "none"}


def _answer(workspace: Workspace, view: Any) -> dict[str, Any]:
    from studio.training.scorecard.of_run import as_answer

    fields = ("name", "state", "step", "steps", "steps_per_second", "seconds_left", "message", "setup")
    validations = [asdict(one) for one in view.validations]
    export_check = asdict(view.export_check) if view.export_check else None
    return {name: getattr(view, name) for name in fields} | {
        "losses": [list(row) for row in view.losses[-50:]],
        "validations": validations,
        "export_check": export_check,
        "rate": view.steps_per_second,  # this and the next two are version 0.1's names
        "looks": validations,
        "certificate": export_check,
        "verdict": view.word,
        "scorecard": {"verdict": asdict(view.verdict) if view.verdict else None, "scores": as_answer(view.scores)},
        "warnings": [{"step": step, "message": message} for step, message in view.warnings],
        "hardest": [
            {"file": item.path.name, "caption": item.caption, "times_usual": hard}
            for item, hard in hardest_of(workspace, view.name)
        ],
        "previews": [{"step": step, "prompt": prompt} for step, prompt, _ in view.previews],
        "adapter_ready": bool(view.adapter),
    }
