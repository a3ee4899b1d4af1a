"""Captioners: write captions, compare two, find captions that fit badly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field

from studio.errors import DatasetError
from studio.services import base_models
from studio.services.datasets import find_item, open_named
from studio.services.jobs import Job, counting, fetching, jobs, remember, stop_job
from studio.services.operations import operation
from studio.services.parameters import DatasetName, Download, Files, List, Table, Trigger
from studio.text import pluralize
from studio.workspace import Workspace

if TYPE_CHECKING:
    from pydantic import BaseModel

    from studio.captioning import Compared, Scores, TriggerReport


SERVER = "server"  # the captioner that asks another program
CaptionerName = Annotated[str, Field(max_length=200, description="Captioner: a name of list_captioners.")]
CaptionerSettings = Annotated[Table, Field(description="Settings of the captioner.")]
ModeName = Annotated[
    str, Field(max_length=20, description="Captions that are there: skip, overwrite, append or refresh; empty: skip.")
]
Overwrite = Annotated[bool, Field(description="Replace captions that are there already.")]


@operation()
def list_captioners(workspace: Workspace) -> dict[str, Any]:
    """Every captioner that can be used here: what it is and its settings with their defaults."""
    from studio.captioning import list_captioners as kinds
    from studio.schema import settings_of

    usable = usable_captioners(workspace)

    return {
        name: {
            "about": kind.about,
            "settings": [
                {"name": setting, "default": default, "about": about}
                for setting, default, about in settings_of(kind.settings)
            ],
        }
        for name, kind in kinds().items()
        if name in usable
    }


@operation()
def caption_dataset(
    workspace: Workspace,
    dataset: DatasetName,
    trigger: Trigger = "",
    overwrite: Overwrite = False,
    captioner: CaptionerName = "starter",
    mode: ModeName = "",
    settings: CaptionerSettings = {},  # noqa: B006
    download: Download = False,
) -> Job:
    """Caption a dataset in the background; job_status says how it goes, its message at the end what was skipped."""
    chosen = _chosen(workspace, captioner, settings)
    opened = open_named(workspace, dataset)
    trigger = " ".join((trigger or "").split())

    def work(job: Job) -> None:
        from studio.captioning import caption_dataset as write_captions

        def progress(done: int, total: int, path: Path, caption: str) -> None:
            job.done, job.total, job.message = done, total, f"{Path(path).name}: {caption}"

        job.total, job.message = len(opened.items), "Loading the captioner"
        report = write_captions(
            opened,
            captioner,
            trigger,
            overwrite,
            job.stop_event,
            progress,
            mode=cast(Any, mode or None),
            settings=chosen,
            download=download,
            download_progress=fetching(job, "the model"),
        )
        lines = [f"{opened.name}: {pluralize(report.written, 'caption')} written{', then stopped' * report.stopped}."]
        if report.kept:
            changed = f", {report.triggered} with {trigger!r} put in front" if report.triggered else ""
            lines.append(f"{report.kept} kept{changed}.")
        if report.unsure:
            lines.append(f"{pluralize(len(report.unsure), 'name')} left out as unsure.")
        unsure = (f"{file}: unsure: {guess}" for file, guess in report.unsure.items())
        job.message = "\n".join([" ".join(lines), *(f"Skipped {line}" for line in report.unreadable), *unsure])

    job = jobs.start("caption", f"Captioning {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


@operation()
def stop_captioning(workspace: Workspace) -> bool:
    """Stop captioning after the current image. Answers whether anything ran."""
    return stop_job("caption")


@operation(waits=True, answer=lambda workspace, found: {"files": found[0], "captions": found[1]})
def compare_captioners(
    workspace: Workspace,
    dataset: DatasetName,
    captioners: Annotated[List, Field(max_length=8, description="Names of list_captioners.")],
    files: Files,
    download: Download = False,
) -> Job:
    """What each captioner writes for a few images, at its default settings; nothing is saved."""
    return start_comparing(workspace, dataset, [(str(name), {}) for name in captioners], files, download)


def start_comparing(
    workspace: Workspace,
    dataset: str,
    captioners: Sequence[tuple[str, Mapping[str, Any]]],
    files: list[str],
    download: bool = False,
) -> Job:
    """What each captioner says of a few images; nothing is written. The result is (files, list of Compared)."""
    if not captioners:
        raise DatasetError("Choose the captioners to compare.")
    chosen = [(name, _chosen(workspace, name, settings)) for name, settings in captioners]
    opened = open_named(workspace, dataset)
    items = [find_item(opened, file) for file in files]

    def work(job: Job) -> None:
        from studio.captioning import compare

        images, job.total = [item.load(1024) for item in items], len(chosen)
        found: list[Compared] = compare(
            chosen, images, job.stop_event, counting(job), download, fetching(job, "the model")
        )
        summary = f"{pluralize(len(found), 'captioner')} compared on {pluralize(len(files), 'image')}."
        job.result, job.message = (files, found), summary

    job = jobs.start("compare", f"Comparing captioners on {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


@operation(waits=True)
def score_captions(
    workspace: Workspace,
    dataset: DatasetName,
    trigger: Trigger = "",
    clip: Annotated[str, Field(max_length=1024, description="Image encoder: a CLIP of the Hub; empty: built in.")] = "",
    download: Download = False,
) -> Job:
    """How well each caption fits its image, the worst fit first: a cosine of the image encoder."""
    _check_captioner(workspace, clip.strip(), {"model": clip.strip()})
    opened = open_named(workspace, dataset)

    def work(job: Job) -> None:
        from studio.captioning import score

        def progress(done: int, total: int) -> None:
            job.done, job.total, job.message = done, total, f"{done:,} of {total:,}"

        job.total, job.message = len(opened.items), "Loading the image encoder"
        found: Scores = score(
            opened,
            clip.strip() or None,
            job.stop_event,
            progress,
            trigger=trigger,
            download=download,
            download_progress=fetching(job, "the model"),
        )
        lines = [f"{pluralize(len(found.rows), 'caption')} scored, the worst fit first.", *found.unreadable]
        job.result, job.message = found, "\n".join(lines)

    job = jobs.start("score", f"Scoring the captions of {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


def _chosen(workspace: Workspace, name: str, settings: Mapping[str, Any] | None) -> "BaseModel":
    """The captioner's settings, checked, with the server that the owner of the studio opened. Raises NotAllowedError,
    ConfigError.
    """
    from studio.captioning import captioner_settings

    if name != SERVER:
        _check_captioner(workspace, name, settings)
        return captioner_settings(name, settings)
    workspace.allows.check_model(name)
    chosen: Any = captioner_settings(name, settings)
    at: BaseModel = chosen.at(workspace.allows.caption_server, workspace.allows.caption_key)
    return at


def usable_captioners(workspace: Workspace) -> list[str]:
    """Names of the captioners without those that this studio does not open."""
    from studio.captioning import list_captioners as kinds

    return [name for name in kinds() if name != SERVER or workspace.allows.caption_server]


def _check_captioner(workspace: Workspace, name: str, settings: Mapping[str, Any] | None) -> None:
    """Raises NotAllowedError for a model that may not be used, or for a folder where none may be named."""
    from studio.hub import is_hub_id

    workspace.allows.check_model(name)
    model = (settings or {}).get("model")
    if model and not (isinstance(model, str) and is_hub_id(model)):
        workspace.allows.need("folders")


@operation()
def trigger_report(workspace: Workspace, word: Trigger) -> "TriggerReport":
    """How the base's tokenizer splits a candidate for a trigger word, and whether it means something already."""
    from studio.captioning.triggers import trigger_report as report

    return report(word, base_models.counter(workspace).tokenizer)
