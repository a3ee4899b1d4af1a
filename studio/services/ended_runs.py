"""A run that is over, measured in the background: its checkpoints scored, its words dropped, its images left out."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from studio.errors import RunError
from studio.services.jobs import Job, jobs, remember
from studio.services.runs import run_view
from studio.workspace import Workspace

if TYPE_CHECKING:
    from studio.training.reading import RunView


def ended_run(workspace: Workspace, run: str, what: str) -> "RunView":
    """The run of this name, "" for the newest. Raises RunError where there is none, or it goes on.

    what: is done with it, for the sentence: "its words are measured".
    """
    view = run_view(workspace, run)
    if view is None:
        raise RunError(f"There is no run yet: {what} when one has ended.")
    if view.state in ("running", "paused"):
        raise RunError(f"{view.name} is {view.state}: {what} when it has ended.")
    return view


def start_on(workspace: Workspace, run: str, kind: str, title: str, work: Callable[[Job], None]) -> Job:
    """Start `work` about the run, which loads its base first; `newest_about` finds the job by its kind and the run."""

    def loading(job: Job) -> None:
        job.message = "Loading the base model"
        work(job)

    job = jobs.start(kind, title, loading, limit=workspace.allows.longest)
    remember(job, run)
    return job
