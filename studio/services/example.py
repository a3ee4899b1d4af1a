"""The guided example: the whole way on a sample, made of the operations that a person would use one after the other.

open_dataset → start_training → an image with the new adapter, whose recipe the page takes to show it beside the base.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from studio.errors import StudioError
from studio.services import generation, generation_jobs, runs
from studio.services.datasets import open_named
from studio.services.jobs import Job, jobs, latest, remember, running
from studio.text import duration, pluralize
from studio.workspace import Workspace

KIND = "example"
SAMPLE = "silhouette"
PROMPT = "red apple, on a yellow background"
SEED = 0  # of the previews too, so that the run's images are those of the result
STEPS = 80  # 60 are enough for the verdict "learned" on this sample, see docs/scorecard.md
# One preview prompt, seldom: on a CPU an image costs as much as a dozen steps.
SETTINGS = {
    "training.steps": STEPS,
    "preview.prompts": [PROMPT],
    "preview.every": STEPS // 2,
    "preview.seed": SEED,
    "validation.every": STEPS // 2,
}
STAGES = ("dataset", "train", "test")
OFTEN = 0.3  # seconds between two looks at what it waits for


@dataclass
class Example:
    """What there is so far. stage: one of STAGES; images: of the sample; image: the name of the one that was generated;
    ended: what happened, in a sentence or two.
    """

    stage: str = "dataset"
    dataset: str = ""
    images: int = 0
    run: str = ""
    image: str = ""
    ended: str = ""


def start_example(workspace: Workspace) -> Job:
    """Begin it in the background; the job's result is an `Example`. Raises BusyError while the device is held."""
    workspace.refuse_if_full()
    jobs.refuse_if_busy()

    def work(job: Job) -> None:
        found = job.result = Example()
        began = time.monotonic()
        job.total, job.message = 100 * len(STAGES), "Opening the sample"
        dataset = open_named(workspace, SAMPLE)
        found.dataset, found.images = dataset.name, len(dataset.items)
        if job.stop_event.is_set():
            return
        found.run = runs.start_training(workspace, values={"dataset": SAMPLE, "name": f"{SAMPLE}-example", **SETTINGS})
        found.stage, job.done = "train", 100
        if not _follow(job, latest["train"].job):
            return
        found.stage, job.done = "test", 200
        applied = generation.applied_fields(workspace, f"run:{found.run}", strength=1.0)
        recipe = generation.compose(workspace, [applied], prompt=PROMPT, seed=SEED)
        drawn = generation_jobs.start_generation(workspace, [recipe])
        if not _follow(job, drawn):
            return
        found.image = Path(drawn.result.images[0][1]).name
        found.ended = _ended(found, time.monotonic() - began)
        job.done, job.message = job.total, found.ended

    job = jobs.start(KIND, "Guided example", work, device=False)
    remember(job, SAMPLE)
    return job


def stop_example() -> None:
    """Stop it, and what it has begun; what is there already stays."""
    if job := running(KIND):
        job.stop()


def newest_example() -> Job | None:
    """The one that runs, or the one that ended last."""
    return latest[KIND].job if KIND in latest else None


def _follow(job: Job, part: Job) -> bool:
    """Wait for a part; True when it was done. A stop is passed on, and what stopped or failed ends the example."""
    first = job.done
    while part.state == "running":
        if job.stop_event.is_set():
            part.stop()
        steps = f"step {part.done:,} of {part.total:,}" if part.done else "loading the base model"
        job.message = part.message or steps
        job.done = first + 100 * part.done // max(1, part.total)
        if part.thread:
            part.thread.join(OFTEN)
    if part.state == "failed":
        raise StudioError(part.error or "The example failed.")
    if part.state == "stopped":
        job.stop()
    return part.state == "done"


def _ended(found: Example, seconds: float) -> str:
    made = f"{pluralize(found.images, 'image')} of the sample “{found.dataset}” became the adapter “{found.run}”"
    shown = "Below, one prompt and one seed, without and with it: move its strength, or try a prompt of your own."
    return f"In {duration(seconds)}, {made}. {shown}"
