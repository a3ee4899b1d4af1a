"""What a work stands on goes away or is slow: images, base model, clock. Each row returns what was said."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from studio.captioning import caption_dataset
from studio.datasets import images, open_dataset
from studio.training import list_runs, read_run
from studio.training.events import Finished, Preparing, Step, Warned
from studio.workspace import ASSETS
from tests.chaos.starved_work import caption, draw, ends_well, run, space, until
from tests.chaos.starving import refused


def dataset_vanishes_while_it_is_encoded(root: Path) -> str:
    workspace = space(root, encoded=False)
    folder = workspace.datasets / "silhouette"
    said = refused(lambda: until(run(workspace), Preparing, 0, lambda: folder.rename(root / "away")))
    again = refused(lambda: list(run(workspace)))
    (root / "away").rename(folder)
    ends_well(workspace)
    return f"{said} / {again}"


def dataset_vanishes_while_it_is_trained_on(root: Path) -> str:
    workspace = space(root)
    until(run(workspace), Step, 2, lambda: shutil.rmtree(workspace.datasets / "silhouette"))
    ends_well(workspace)
    return "nothing: the run needs only what it has encoded"


def dataset_vanishes_while_it_is_captioned(root: Path) -> str:
    workspace = space(root)
    folder = workspace.datasets / "silhouette"

    def progress(done: int, total: int, path: Path, text: str) -> None:
        if folder.exists():
            folder.rename(root / "away")

    said = refused(lambda: caption(workspace, progress=progress))
    refused(lambda: open_dataset(folder))
    (root / "away").rename(folder)
    assert caption(workspace).written == 24
    return said


def slow_dataset_is_left_when_told(root: Path) -> str:
    """Opening an image takes 0.3 s, as on a network disk far away: a stop is heard within a few of them."""
    workspace, load = space(root, encoded=False), images.Image.open

    def slow(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.3)
        return load(*arguments, **options)

    def waited(work: Callable[[threading.Event], Any], seconds: float) -> float:
        """Seconds from a stop to the end of `work`."""
        stop, told = threading.Event(), []
        timer = threading.Timer(seconds, lambda: (told.append(time.monotonic()), stop.set()))
        timer.start()
        work(stop)
        return time.monotonic() - told[0]

    dataset = open_dataset(workspace.datasets / "silhouette")
    images.Image.open = slow
    listing = waited(lambda stop: list(run(workspace, stop)), 9)  # 7 s go by until the images are known
    decoding = waited(lambda stop: list(run(workspace, stop)), 17)
    captioning = waited(lambda stop: caption_dataset(dataset, mode="overwrite", stop=stop), 2)
    images.Image.open = load
    assert max(listing, decoding, captioning) < 6, (listing, decoding, captioning)
    ends_well(workspace)
    return f"stopped {listing:.1f}, {decoding:.1f} s (training) and {captioning:.1f} s (captioning) after it was told"


def base_model_goes_during_a_run(root: Path) -> str:
    workspace, base = space(root), root / "base"
    shutil.copytree(ASSETS / "starter", base, ignore=shutil.ignore_patterns("recipe", "*.md"))
    seen = until(run(workspace, base=str(base)), Step, 3, lambda: shutil.rmtree(base))
    warned = next(event.message for event in seen if isinstance(event, Warned) and "fresh copy" in event.message)
    assert isinstance(seen[-1], Finished) and read_run(workspace, "run").adapter
    again = refused(lambda: list(run(workspace, base=str(base), **{"training.steps": 8})))
    assert again == refused(lambda: draw(workspace, base=str(base)))
    return f"{warned} / {again}"


def base_model_loses_a_file(root: Path) -> str:
    workspace, base = space(root), root / "base"
    shutil.copytree(ASSETS / "starter", base, ignore=shutil.ignore_patterns("recipe", "*.md"))
    next(iter((base / "unet").glob("*.safetensors"))).unlink()
    return refused(lambda: draw(workspace, base=str(base)))


# The clock ----------------------------------------------------------------------------------------------------------


def clock_goes_back_during_a_run(root: Path) -> str:
    """By an hour, for Python's clock and for what psutil says of processes, as when a wrong clock is corrected."""
    workspace, now, nanoseconds = space(root), time.time, time.time_ns
    boot = psutil._psplatform.boot_time

    def back() -> None:
        time.time, time.time_ns = lambda: now() - 3600, lambda: nanoseconds() - 3600 * 10**9
        psutil._psplatform.boot_time = lambda: boot() - 3600

    states = []
    for event in run(workspace):
        if isinstance(event, Step):
            if event.step == 3:
                back()
            states.append(read_run(workspace, "run").state)
    assert set(states) == {"running"}, states
    ends_well(workspace)
    return "nothing: the run is running all the while"


def files_come_from_the_future(root: Path) -> str:
    """A workspace that was used under a clock a year ahead: what is made now is shown, and no older copy of it."""
    from studio.services.runs import download_copy
    from studio.training.summary import summary
    from studio.training.trash import list_trash, move_to_trash, restore

    workspace = space(root)
    list(run(workspace, **{"training.steps": 2}))
    first = download_copy(workspace, "run").read_bytes()
    summary(workspace, "run")
    ahead = time.time() + 365 * 86400
    for path in workspace.root.rglob("*"):
        os.utime(path, (ahead, ahead))
    assert isinstance(list(run(workspace))[-1], Finished)
    second = download_copy(workspace, "run").read_bytes()
    assert second == (workspace.runs / "run" / "adapter.safetensors").read_bytes() != first
    assert summary(workspace, "run").step == 6
    restore(workspace, move_to_trash(workspace, "run"))
    assert not list_trash(workspace) and list_runs(workspace) == ["run"]
    return "nothing: the newest is shown"


ROWS = {
    function.__name__.replace("_", " "): function
    for function in (
        dataset_vanishes_while_it_is_encoded, dataset_vanishes_while_it_is_trained_on,
        dataset_vanishes_while_it_is_captioned, slow_dataset_is_left_when_told, base_model_goes_during_a_run,
        base_model_loses_a_file, clock_goes_back_during_a_run, files_come_from_the_future,
    )
}  # fmt: skip
