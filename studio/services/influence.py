"""Images that hurt: two short branches of a run, with and without an image, and both held-out losses."""

from typing import Annotated, Any

from pydantic import Field

from studio.errors import RunError
from studio.services.ended_runs import ended_run, start_on
from studio.services.jobs import Job, followed
from studio.services.operations import operation
from studio.services.parameters import AnyRun
from studio.services.runs import run_view
from studio.workspace import Workspace, checked_name

ImageOfRun = Annotated[
    str, Field(max_length=1024, description="An image that the run trains on; empty: the one it finds hardest.")
]
BranchSteps = Annotated[
    int, Field(ge=0, le=5000, description="Steps of a branch. 0: as many as show the image about eight times.")
]


@operation()
def measure_influence(
    workspace: Workspace, run: AnyRun = "", image: ImageOfRun = "", branch_steps: BranchSteps = 0
) -> Job:
    """Train a run on for a few steps with and without an image, aside and in the background: job_status, then
    image_influence.
    """
    view = ended_run(workspace, run, "its images are measured")
    name = image or next(iter(images_of(workspace, view.name)), "")
    if not name:
        raise RunError(f"{view.name} has not said which images are hard: name one of its images.")
    folder = workspace.runs / view.name

    def work(job: Job) -> None:
        from studio.training.branches import measure_influence
        from studio.training.influence import keep

        found = followed(job, measure_influence(folder, workspace, name, branch_steps, job.stop_event))
        if found is not None:
            keep(folder, found)
            job.result, job.message = found.as_answer(), found.sentence

    return start_on(workspace, view.name, "influence", f"Measuring {name}", work)


@operation()
def image_influence(workspace: Workspace, run: AnyRun = "") -> dict[str, Any]:
    """What was measured of a run's images, the newest first: both held-out losses, whether each image hurts."""
    view = run_view(workspace, run)
    found = measured_images(workspace, view.name) if view else []
    return {"run": view.name if view else "", "images": [one.as_answer() for one in found]}


def measured_images(workspace: Workspace, name: str) -> list[Any]:
    """The Influences of a run, the newest first."""
    from studio.training.influence import read

    return read(workspace.runs / checked_name(name, "run")) if name else []


def images_of(workspace: Workspace, name: str) -> list[str]:
    """Names of the images that a run trained on, the hardest first; [] where it has not said."""
    from studio.training.difficulty import hardest

    return [image for image, _, _ in hardest(workspace.runs / checked_name(name, "run"), 500)]
