"""Which words of a run's captions carry what it learned: measure it when the run is over, or read it."""

from typing import Annotated, Any

from pydantic import Field

from studio.services.ended_runs import ended_run, start_on
from studio.services.jobs import Job, followed
from studio.services.operations import operation
from studio.services.parameters import AnyRun
from studio.services.runs import run_view
from studio.workspace import Workspace, checked_name

Words = Annotated[
    int,
    Field(ge=1, le=60, description="How many words and tags to drop in turn, triggers and the most frequent first."),
]
ImagesAWord = Annotated[
    int, Field(ge=3, le=64, description="On how many images each is measured, held-out ones first.")
]


@operation()
def measure_words(workspace: Workspace, run: AnyRun = "", words: Words = 12, images: ImagesAWord = 8) -> Job:
    """Drop each word of a run's captions in turn and compare losses, in the background: job_status, then run_words."""
    view = ended_run(workspace, run, "its words are measured")
    folder = workspace.runs / view.name

    def work(job: Job) -> None:
        from studio.training.caption_words.effects import keep
        from studio.training.caption_words.measure import measure_words

        report = followed(job, measure_words(folder, workspace, words, images, job.stop_event))
        if report is not None:
            keep(folder, report)
            job.result = report.as_answer()
            job.message = next((one.sentence for one in report.findings), "No word stands out.")

    return start_on(workspace, view.name, "words", f"Measuring the words of {view.name}", work)


@operation()
def run_words(workspace: Workspace, run: AnyRun = "") -> dict[str, Any]:
    """What was measured of a run's words: how much each carries, a sentence for each that matters, and remedies."""
    view = run_view(workspace, run)
    report = words_of(workspace, view.name) if view else None
    if view is None or report is None:
        return {"run": view.name if view else "", "effects": [], "findings": []}
    return {"run": view.name, **report.as_answer()}


def words_of(workspace: Workspace, name: str) -> Any:
    """The WordReport of a run; None where its words were not measured."""
    from studio.training.caption_words.effects import read

    return read(workspace.runs / checked_name(name, "run")) if name else None
