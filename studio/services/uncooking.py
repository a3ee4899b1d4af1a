"""Un-cook an adapter: scales of its blocks at which held-out loss and drift are lowest, as one new file."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.errors import DatasetError
from studio.services import base_models, datasets
from studio.services.adapter_files import AdapterName, adapter_name, adapter_path
from studio.services.base_models import STARTER
from studio.services.evaluation import run_config, trigger_words
from studio.services.jobs import Job, followed, jobs, latest, newest_about, remember
from studio.services.operations import operation
from studio.services.parameters import BaseName
from studio.workspace import Workspace, free_path, safe_name

Unseen = Annotated[
    str,
    Field(
        max_length=255,
        description="Dataset of a few images that the adapter has not learned from. Empty: what its run held out.",
    ),
]


@operation()
def uncook_adapter(
    workspace: Workspace,
    adapter: AdapterName,
    against: Unseen = "",
    base: BaseName = STARTER,
) -> Job:
    """Search scales for the blocks of an adapter that is too strong, in the background: see job_status, then uncooked.

    What is clearly better on images that it has not learned from is written as a new adapter; else nothing is. base: of
    an adapter that came as a file; a run has its own.
    """
    from studio.training.selection import split

    file, name = adapter_path(workspace, adapter), adapter_name(adapter)
    if against:
        opened = datasets.open_named(workspace, against)
        triggers = trigger_words(workspace, adapter)
        config = _config_for(base_models.line_of(workspace, base), opened.folder, triggers)
        chosen = split(config)
        items = chosen.items
    else:
        found = run_config(workspace, adapter)
        if found is None:
            raise DatasetError(f"{name} came as a file: choose a dataset of a few images that it has not learned from.")
        config, chosen = found, _as_held_out(workspace, adapter, found)
        items = chosen.held_out
    workspace.refuse_if_full()
    target = free_path(workspace.adapters, f"{safe_name(name)}-uncooked.safetensors")

    def work(job: Job) -> None:
        from studio.training.uncook.measure import uncook

        job.message = "Loading the base model"
        found = followed(job, uncook(file, name, config, chosen, items, workspace, target, job.stop_event))
        if found is not None:
            job.result, job.message = found, found.sentence

    job = jobs.start("uncook", f"Un-cooking {name}", work, limit=workspace.allows.longest)
    remember(job, str(adapter))
    return job


@operation()
def uncooked(workspace: Workspace) -> dict[str, Any]:
    """What the newest un-cooking found: scales, losses and drift before and after, and the file that was written."""
    newest = latest.get("uncook")
    if newest is None:
        return {"state": "none", "found": None}
    job = newest.job
    return {"state": job.state, "error": job.error, "found": job.result.as_answer() if job.result else None}


def found_of(adapter: str) -> Any:
    """The Uncooked of the newest un-cooking, if it is of this adapter; else None."""
    job = newest_about("uncook", adapter)
    return job.result if job else None


def _config_for(line: str, folder: Path, triggers: tuple[str, ...]) -> Any:
    """All images of the folder, none of them held out, with the trigger in front where a caption lacks it."""
    from studio.training.defaults import config_for

    own = {"data.trigger": triggers[0]} if triggers else {}
    return config_for({"base": line, "data.folder": str(folder), "validation.every": 0, **own})


def _as_held_out(workspace: Workspace, adapter: str, config: Any) -> Any:
    """As the run split its images. Raises DatasetError where nothing was held out."""
    from studio.training import made_of
    from studio.training.selection import split

    name = adapter.partition(":")[2].partition("@")[0]
    chosen = split(config, record=made_of.image_record(workspace.runs / name))
    if not chosen.held_out:
        raise DatasetError(f"{name} held out no images: choose a dataset of a few that it has not learned from.")
    return chosen
