"""Captioners: write captions, compare two, find captions that fit badly."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import DatasetError
from studio.services import base_models
from studio.services.datasets import find_item, open_named
from studio.services.jobs import Job, counting, fetching, jobs, remember
from studio.text import pluralize
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.captioning import Compared, Scores, TriggerReport
    from studio.captioning.running import Mode


def start_captioning(
    workspace: Workspace,
    dataset: str,
    trigger: str = "",
    overwrite: bool = False,
    captioner: str = "starter",
    settings: Mapping[str, Any] | None = None,
    mode: "Mode | None" = None,
    download: bool = False,
) -> Job:
    """A background job that writes captions; its message says what it did and what it skipped."""
    from studio.captioning import captioner_settings

    _check_captioner(workspace, captioner, settings)
    pictures, chosen = open_named(workspace, dataset), captioner_settings(captioner, settings)
    trigger = " ".join((trigger or "").split())

    def work(job: Job) -> None:
        from studio.captioning import caption_dataset

        def progress(done: int, total: int, path: Path, caption: str) -> None:
            job.done, job.total, job.message = done, total, f"{Path(path).name}: {caption}"

        job.total, job.message = len(pictures.items), "Loading the captioner"
        report = caption_dataset(
            pictures, captioner, trigger, overwrite, job.stop_event, progress,
            mode=mode, settings=chosen, download=download, download_progress=fetching(job, "the model"),
        )  # fmt: skip
        lines = [f"{pictures.name}: {pluralize(report.written, 'caption')} written{', then stopped' * report.stopped}."]
        if report.kept:
            changed = f", {report.triggered} with {trigger!r} put in front" if report.triggered else ""
            lines.append(f"{report.kept} kept{changed}.")
        job.message = "\n".join([" ".join(lines), *(f"Skipped {line}" for line in report.unreadable)])

    job = jobs.start("caption", f"Captioning {pictures.name}", work, limit=workspace.allows.longest)
    remember(job, pictures.name)
    return job


def start_comparing(
    workspace: Workspace,
    dataset: str,
    captioners: Sequence[tuple[str, Mapping[str, Any]]],
    files: list[str],
    download: bool = False,
) -> Job:
    """What each captioner says of a few pictures; nothing is written. The result is (files, list of Compared)."""
    from studio.captioning import captioner_settings

    if not captioners:
        raise DatasetError("Choose the captioners to compare.")
    for name, settings in captioners:
        _check_captioner(workspace, name, settings)
    opened = open_named(workspace, dataset)
    items = [find_item(opened, file) for file in files]
    chosen = [(name, captioner_settings(name, settings)) for name, settings in captioners]

    def work(job: Job) -> None:
        from studio.captioning import compare

        pictures, job.total = [item.load(1024) for item in items], len(chosen)
        found: list[Compared] = compare(
            chosen, pictures, job.stop_event, counting(job), download, fetching(job, "the model")
        )
        said = f"{pluralize(len(found), 'captioner')} compared on {pluralize(len(files), 'picture')}."
        job.result, job.message = (files, found), said

    job = jobs.start("compare", f"Comparing captioners on {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


def start_scoring(workspace: Workspace, dataset: str, trigger: str = "", clip: str = "", download: bool = False) -> Job:
    """How well each caption fits its picture; the result is Scores, the worst fit first.

    clip: a CLIP's folder or hub id; "": the built-in one
    """
    _check_captioner(workspace, clip.strip(), {"model": clip.strip()})
    opened = open_named(workspace, dataset)

    def work(job: Job) -> None:
        from studio.captioning import score

        def progress(done: int, total: int) -> None:
            job.done, job.total, job.message = done, total, f"{done:,} of {total:,}"

        job.total, job.message = len(opened.items), "Loading the image encoder"
        found: Scores = score(
            opened, clip.strip() or None, job.stop_event, progress,
            trigger=trigger, download=download, download_progress=fetching(job, "the model"),
        )  # fmt: skip
        lines = [f"{pluralize(len(found.rows), 'caption')} scored, the worst fit first.", *found.unreadable]
        job.result, job.message = found, "\n".join(lines)

    job = jobs.start("score", f"Scoring the captions of {opened.name}", work, limit=workspace.allows.longest)
    remember(job, opened.name)
    return job


def _check_captioner(workspace: Workspace, name: str, settings: Mapping[str, Any] | None) -> None:
    """Raises NotAllowedError for a model that may not be used, or for a folder where none may be named."""
    from studio.hub import is_hub_id

    workspace.allows.check_model(name)
    model = (settings or {}).get("model")
    if model and not (isinstance(model, str) and is_hub_id(model)):
        workspace.allows.need("folders")


def look_at_trigger(workspace: Workspace, word: str) -> "TriggerReport":
    """What a candidate for a trigger is to the chosen base."""
    from studio.captioning import trigger_report

    return trigger_report(word, base_models.counter(workspace).tokenizer)
