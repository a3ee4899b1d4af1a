"""How far a person is on the way from images to an adapter that was tried: dataset, run, images with its adapter."""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError, WorkspaceError
from studio.services import datasets, gallery, run_order, runs
from studio.services.jobs import running
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.training.summary import Summary

MOST_RUNS = 200  # newest ones that are looked through for one of the dataset


@dataclass(frozen=True)
class Stages:
    """dataset: the one that is open, "" for none, with its images and how many of them have a caption.

    run: the newest run on that dataset, or the newest of all while none is open; "" for none. state: as RunView has it.
    ready: it has ended and left an adapter. tried: images that were generated with that adapter.
    """

    dataset: str = ""
    images: int = 0
    captioned: int = 0
    run: str = ""
    state: str = ""
    step: int = 0
    steps: int = 0
    ready: bool = False
    tried: int = 0

    @property
    def next(self) -> str:
        """What is to be done next: "dataset", "train" or "test"; "" when all of it is done."""
        if not self.images:
            active = self.state in ("running", "paused", "queued")
            return "train" if active else "test" if self.ready and not self.tried else "dataset"
        return "train" if not self.ready else "" if self.tried else "test"


def stages(workspace: Workspace, dataset: str = "") -> Stages:
    """As it is now. A dataset that is not there counts as none."""
    opened = None
    with suppress(StudioError):
        if dataset and (workspace.datasets / checked_name(dataset, "dataset")).is_dir():
            opened = datasets.view(workspace, dataset)
    found: dict[str, Any] = {}
    if opened is not None:
        captioned = sum(bool(item.caption) for item in opened.items)
        found = {"dataset": opened.name, "images": len(opened.items), "captioned": captioned}
    run = _newest_run(workspace, opened.name if opened else "")
    if run is None:
        return Stages(**found)
    state = _state_now(workspace, run)
    job = running("train") if state == "running" else None
    step = max(run.step, job.done) if job else run.step
    found |= {"run": run.name, "state": state, "step": step, "steps": run.steps}
    if since := _adapter_time(workspace, run.name) if state not in ("running", "paused", "queued") else 0:
        found |= {"ready": True, "tried": gallery.count_with(workspace, run.name, since)}
    return Stages(**found)


def stamp(workspace: Workspace, dataset: str) -> tuple[Any, ...]:
    """Changes when `stages` may answer otherwise; a run that goes on moves it a hundred times."""
    job = running("train")
    part = (id(job), job.paused, 100 * job.done // max(1, job.total)) if job else None
    newest = gallery.newest_files(workspace)[:1]
    names = runs.list_run_names(workspace)
    ended = runs.run_stamp(workspace, names[0]) if names and not job else None
    return datasets.stamp(workspace, dataset), tuple(names), part, ended, run_order.waiting(workspace), newest


def _newest_run(workspace: Workspace, dataset: str) -> "Summary | None":
    from studio.training.summary import summary

    for name in runs.list_run_names(workspace)[:MOST_RUNS]:
        with suppress(OSError, StudioError):  # deleted meanwhile, or its run.toml is damaged
            run = summary(workspace, name)
            if not dataset or run.dataset == dataset:
                return run
    return None


def _state_now(workspace: Workspace, run: "Summary") -> str:
    job = running("train")
    if job and run.name == runs.current_run():
        return "paused" if job.paused else "running"
    return runs.QUEUED if run.name in run_order.waiting(workspace) else run.state


def _adapter_time(workspace: Workspace, name: str) -> int:
    """When the run's adapter was written, in nanoseconds; 0 while there is none."""
    with suppress(OSError, WorkspaceError):
        return (workspace.runs / checked_name(name, "run") / "adapter.safetensors").stat().st_mtime_ns
    return 0
