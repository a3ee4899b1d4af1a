"""Reproduce a run: one file of it, which is trained again here or elsewhere, and compared bit for bit."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.errors import RunError
from studio.services.jobs import jobs
from studio.services.operations import operation
from studio.services.parameters import AnyRun, DatasetName, Upload
from studio.services.runs import begin, config_of, run_view
from studio.workspace import Workspace, checked_name, safe_name

SUFFIX = ".rerun.json"
RerunFile = Annotated[Upload | None, Field(description="A file of export_rerun.")]
Anyway = Annotated[bool, Field(description="Train although the losses can't be the same.")]
OtherBase = Annotated[str, Field(max_length=1024, description="Base model, a name of list_bases; empty: the run's.")]


@operation(file="download")
def export_rerun(workspace: Workspace, run: AnyRun = "") -> Path:
    """A run as one file to reproduce it: settings, hashes of images, captions and base, versions, losses, scores."""
    from studio.training.rerun import rerun_of, write

    view = run_view(workspace, run)
    if view is None:
        raise RunError("There is no run yet: nothing can be exported.")
    target = workspace.cache / "downloads" / f"{safe_name(view.name)}{SUFFIX}"
    target.parent.mkdir(parents=True, exist_ok=True)
    write(target, rerun_of(workspace.runs / view.name))
    return target


@operation(upload="file")
def check_rerun(
    workspace: Workspace, file: RerunFile = None, dataset: DatasetName = "", base: OtherBase = ""
) -> dict[str, Any]:
    """What is not as it was when the file's run was trained: images, captions, base, versions, device."""
    from studio.training.rerun_check import check

    record, config = _read(workspace, file, dataset, base)
    found = check(record, config, workspace)
    return {
        "run": record.name,
        "can_be_the_same": not any(one.decides for one in found),
        "differences": [one.sentence for one in found],
    }


@operation(upload="file")
def reproduce_run(
    workspace: Workspace,
    file: RerunFile = None,
    dataset: DatasetName = "",
    base: OtherBase = "",
    anyway: Anyway = False,
) -> str:
    """Train the file's run again in the background. Answers the new run's name, for compare_rerun."""
    record, config = _read(workspace, file, dataset, base)
    jobs.refuse_if_busy()
    workspace.refuse_if_full()
    folder = new_rerun(workspace, record, config, anyway)
    begin(workspace, config.model_copy(update={"name": folder.name}), folder)
    return folder.name


@operation()
def compare_rerun(workspace: Workspace, run: AnyRun = "") -> dict[str, Any]:
    """A run that was trained again beside the one it repeats: the same, bit for bit, or where it parts."""
    view = run_view(workspace, run)
    found = comparison_of(workspace, view.name) if view else None
    if view is None or found is None:
        raise RunError("This run repeats no other one: begin it with reproduce_run.")
    return {"run": view.name, **found.as_answer()}


def comparison_of(workspace: Workspace, name: str) -> Any:
    """The Comparison of a run; None for one that repeats none. Raises RunError."""
    from studio.training.rerun_compare import compare

    return compare(workspace.runs / checked_name(name, "run"))


def new_rerun(workspace: Workspace, record: Any, config: Any, anyway: bool) -> Path:
    """The folder of a run that repeats the record's, with what it is compared with. Raises RunError where that can't be
    the same, unless it is wanted anyway.
    """
    from studio.training.rerun import EXPECTED, write
    from studio.training.rerun_check import check
    from studio.training.runs import new_run

    reasons = [one.sentence for one in check(record, config, workspace) if one.decides]
    if reasons and not anyway:
        raise RunError(f"It can't be the same run. {' '.join(reasons)} Mend that, or train it anyway.")
    folder = new_run(config, workspace)
    write(folder / EXPECTED, record)
    return folder


def _read(workspace: Workspace, file: Path | None, dataset: str, base: str) -> tuple[Any, Any]:
    """(the record, its settings here)."""
    from studio.training.rerun import FROM_VISITORS, MOST_BYTES, read

    if not file:
        raise RunError("There is no file: give one that was downloaded under Reproduce.")
    record = read(file, FROM_VISITORS if workspace.allows.room else MOST_BYTES)
    values = record.settings | {"dataset": dataset or str(record.settings.get("data.folder", ""))}
    values["name"] = f"{record.name[:60]}-again"
    if base:
        values["base"] = base
    return record, config_of(workspace, values, whole=True)
