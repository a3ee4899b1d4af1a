"""A plan for a run: from minutes and memory, or from nothing, to settings with a reason for each."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from studio.services import base_models
from studio.services.base_models import STARTER
from studio.services.jobs import Job, followed, jobs, latest, newest_about, remember
from studio.services.operations import operation
from studio.services.parameters import BaseName, DatasetName, Table
from studio.services.runs import config_of
from studio.workspace import Workspace

Minutes = Annotated[
    float | None, Field(gt=0, le=100_000, description="Minutes that the run may take. Empty: as long as is usual.")
]
Gigabytes = Annotated[
    float | None, Field(gt=0, le=10_000, description="Memory that the run may take, in GB. Empty: what is free.")
]
UntilRight = Annotated[bool, Field(description="End the run when its scorecards say that it has learned.")]
Goal = Annotated[
    Literal["", "style", "character", "object"],
    Field(description="What is to be learned, as the base's presets know it. Empty: its first preset."),
]
Own = Annotated[
    Table | None, Field(description='Settings that stay as they are given, such as {"training.batch_size": 4}.')
]


@operation()
def plan_training(
    workspace: Workspace,
    dataset: DatasetName = "",
    goal: Goal = "",
    minutes: Minutes = None,
    memory: Gigabytes = None,
    until_right: UntilRight = False,
    base: BaseName = STARTER,
    more: Own = None,
    *,
    values: dict[str, Any] | None = None,
    standard: dict[str, Any] | None = None,
) -> Job:
    """Plan a run by a few real steps in the background: see job_status, then planned_training. Nothing is started.

    values: the settings as the form has them, instead of goal, base and more. standard: those of its preset; what
    differs was set by the person, and stays.
    """
    from studio.training.planner.plan import Wish

    if values is None:
        values, fixed = _values(workspace, dataset, goal, base, more or {})
    else:
        fixed = differing(values, standard or {})
    config = config_of(workspace, values)
    wish = Wish(minutes, memory, until_right, frozenset(fixed))

    def work(job: Job) -> None:
        from studio.training.planner.plan import plan_for
        from studio.training.planner.probes import measure

        job.message = "Loading the base model"
        found = followed(job, measure(config, wish, workspace, job.stop_event))
        if found is not None:
            job.result = plan_for(config, wish, found)
            job.message = job.result.sentence

    name = Path(config.data.folder).name
    job = jobs.start("plan", f"Planning for {name}", work, limit=workspace.allows.longest)
    remember(job, name)
    return job


@operation()
def planned_training(workspace: Workspace, dataset: DatasetName = "") -> dict[str, Any]:
    """The newest plan for a dataset: settings with their values and reasons, minutes and memory as predicted.

    Its `settings` are what `more` of start_training takes.
    """
    newest = latest.get("plan")
    job = newest.job if newest and dataset in ("", newest.name) else None
    if job is None:
        return {"state": "none", "plan": None}
    return {"state": job.state, "error": job.error, "plan": job.result.as_answer() if job.result else None}


def plan_about(dataset: str) -> Any:
    """The Plan of the newest planning, if it is about this dataset; else None."""
    job = newest_about("plan", dataset)
    return job.result if job else None


def differing(values: dict[str, Any], standard: dict[str, Any]) -> set[str]:
    """Names of the settings that are not as the preset has them. What is each run's own counts as the person's."""
    return {key for key, value in values.items() if key in standard and str(standard[key]) != str(value)}


def _values(
    workspace: Workspace, dataset: str, goal: str, base: str, more: dict[str, Any]
) -> tuple[dict[str, Any], set[str]]:
    """(settings as the form would have them, those of them that stay)."""
    from studio.training.config import resolved
    from studio.training.presets import preset

    own = resolved({key: value for key, value in more.items() if key not in ("base", "data.folder", "name")})
    of_goal = preset(goal, base_models.line_of(workspace, base)) if goal else {}
    return of_goal | own | {"dataset": dataset, "base": base}, set(own)
