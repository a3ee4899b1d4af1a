"""The scorecard and the verdict of a run: read it, or fill it when the run is over."""

from dataclasses import asdict
from typing import Annotated, Any

from pydantic import Field

from studio.services.ended_runs import ended_run, start_on
from studio.services.jobs import Job, jobs, latest
from studio.services.operations import operation
from studio.services.parameters import AnyRun
from studio.services.runs import run_view
from studio.workspace import Workspace

Cards = Annotated[int, Field(ge=1, le=12, description="How many checkpoints to score, the kept one among them.")]
Encoder = Annotated[
    str, Field(max_length=1024, description="A CLIP beside the base's own means: a folder or owner/name. Empty: none.")
]


@operation()
def score_run(workspace: Workspace, run: AnyRun = "", checkpoints: Cards = 1, encoder: Encoder = "") -> Job:
    """Score checkpoints of a run that has ended in the background: see job_status, then run_scorecard."""
    view = ended_run(workspace, run, "it is scored")
    encoder = encoder.strip()
    workspace.allows.check_model(encoder)
    if encoder:
        from studio.hub import is_hub_id

        if not is_hub_id(encoder):
            workspace.allows.need("folders")
    folder = workspace.runs / view.name

    def work(job: Job) -> None:
        from studio.captioning.scoring import load_clip
        from studio.training.scorecard.on_demand import score_run

        def progress(done: int, total: int, what: str) -> None:
            job.done, job.total, job.message = done, total, what

        clip = load_clip(encoder) if encoder else None
        try:
            for _ in jobs.turns(score_run(folder, checkpoints, clip, stop=job.stop_event, progress=progress)):
                pass
        finally:
            if clip is not None:
                clip.close()
        job.result = run_scorecard(workspace, folder.name)
        job.message = job.result["verdict"]["sentence"] if job.result["verdict"] else "Scored."

    return start_on(workspace, view.name, "score", f"Scoring {view.name}", work)


@operation()
def run_scorecard(workspace: Workspace, run: AnyRun = "") -> dict[str, Any]:
    """The verdict on a run (what to take, at which strength, what is wrong, what helps) and its scorecards."""
    view = run_view(workspace, run)
    return {"run": "", "verdict": None, "scores": []} if view is None else {"run": view.name, **answer(view)}


def answer(view: Any) -> dict[str, Any]:
    """The verdict and the scorecards of a RunView, as JSON holds them."""
    from studio.training.scorecard.of_run import as_answer

    verdict = view.verdict
    return {
        "verdict": asdict(verdict) | {"usable": verdict.usable} if verdict else None,
        "scores": as_answer(view.scores),
        "scoring": view.judged.scoring if view.judged else 0.0,
    }


def scoring_of(name: str) -> Job | None:
    """The job that scores this run now."""
    newest = latest.get("score")
    return newest.job if newest and newest.name == name and newest.job.state == "running" else None
