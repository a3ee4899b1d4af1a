"""The queue of runs: what waits for the device, and the thread that begins one after the other.

After a restart nobody has said that the queue should go on, so it waits to be told; after a stop too.
"""

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import BusyError, RunError, StudioError
from studio.server.owners import acting, owner
from studio.services import runs
from studio.services.jobs import running
from studio.services.operations import Expanded, operation
from studio.services.parameters import DatasetName, Places, RunName, RunSettings
from studio.workspace import Workspace, checked_name

if TYPE_CHECKING:
    from studio.training import RunConfig


log = logging.getLogger(__name__)
POLL = 0.2  # seconds between two checks whether the device is free
_going: dict[Path, threading.Event] = {}  # by workspace; set: it is to wait again
_lock = threading.Lock()


@operation()
def queue_training(
    workspace: Workspace,
    dataset: DatasetName = "",
    name: runs.RunTitle = "",
    *,
    values: dict[str, Any] | None = None,
    **fields: Expanded[RunSettings],
) -> str:
    """Put a run in the queue: it begins once the device is free. Answers the run's name.

    values: the settings as the form has them, instead of the other parameters.
    """
    from studio.services.run_order import enqueue, waiting
    from studio.training import new_run

    settings = runs.settings_from(dataset, name, fields) if values is None else values
    config, before = runs.config_of(workspace, settings), waiting(workspace)
    twin = next((name for name in before if _settings(workspace, name, config.name) == config), None)
    if twin:
        raise RunError(f"{twin} waits already with just these settings: change one of them first.")
    workspace.refuse_if_full()
    new_run(config, workspace)
    enqueue(workspace, config.name)
    if not before and running():  # else it waits with the others until the queue is started
        start_queue(workspace)
    return config.name


def _settings(workspace: Workspace, name: str, called: str) -> "RunConfig | None":
    """The RunConfig of the run `name` as if it were `called` so; None when it can't be read."""
    from studio.training import config_from_toml

    try:
        return config_from_toml(workspace.runs / name / "run.toml").model_copy(update={"name": called})
    except StudioError:
        return None


def queue_of(workspace: Workspace) -> list[Any]:
    """Summaries of the runs that wait, the next one first."""
    from studio.services.run_order import waiting
    from studio.training.summary import summaries

    names = waiting(workspace)
    return summaries(workspace, names)[0] if names else []


def queue_stamp(workspace: Workspace) -> tuple[Any, ...]:
    """Changes with the queue: cheap to ask every second."""
    from studio.services.run_order import waiting

    return tuple(waiting(workspace)), going(workspace)


@operation()
def list_queue(workspace: Workspace) -> dict[str, Any]:
    """Runs that wait, the next one first, and whether they start automatically."""
    return {"waiting": [run.name for run in queue_of(workspace)], "going": going(workspace)}


def going(workspace: Workspace) -> bool:
    """Whether the next run begins by itself."""
    return workspace.root in _going


@operation()
def start_queue(workspace: Workspace) -> bool:
    """Begin the waiting runs one after the other, each as soon as the device is free."""
    with _lock:
        if workspace.root in _going:
            return True
        paused = _going[workspace.root] = threading.Event()
    threading.Thread(target=_keep_going, args=(workspace, paused, owner()), name="queue", daemon=True).start()
    return True


@operation()
def pause_queue(workspace: Workspace) -> bool:
    """Begin no further run until start_queue. The one that runs goes on."""
    with _lock:
        event = _going.pop(workspace.root, None)
    if event:
        event.set()
    return True


@operation()
def move_in_queue(workspace: Workspace, run: RunName, by: Places) -> list[str]:
    """Move a waiting run some places back, or forward where the number is negative. Answers the queue."""
    from studio.services.run_order import move, waiting

    move(workspace, checked_name(run, "run"), by)
    return waiting(workspace)


@operation()
def leave_queue(workspace: Workspace, run: RunName) -> bool:
    """Take a run out of the queue. One that never began goes into the trash; one that did stays as it is."""
    name = run
    from studio.services.run_order import dequeue, waiting
    from studio.training.reading import LOG
    from studio.training.trash import move_to_trash

    if checked_name(name, "run") not in waiting(workspace):
        raise RunError(f"{name} does not wait any more.")
    dequeue(workspace, name)
    if not (workspace.runs / name / LOG).exists() and name != runs.current_run():
        move_to_trash(workspace, name)
    return True


def _keep_going(workspace: Workspace, paused: threading.Event, who: str) -> None:
    with acting(who):
        root = workspace.root
        try:
            while not paused.is_set() and _wait_for_the_device(paused) and _begin_next(workspace):
                pass
        except StudioError:  # the workspace is gone
            log.info("the queue ended", exc_info=True)
        finally:
            with _lock:
                if _going.get(root) is paused:
                    del _going[root]


def _wait_for_the_device(paused: threading.Event) -> bool:
    """False when the queue should wait to be told, as after a stop; a run that fails doesn't keep the next one."""
    job = running()
    if job is None:
        return True
    while job.state == "running":
        if paused.wait(POLL):
            return False
    timed_out = job.limit is not None and time.monotonic() - job.began >= job.limit
    return job.state != "stopped" or timed_out


def _begin_next(workspace: Workspace) -> bool:
    """Begin the first of the queue; False when there is none."""
    from studio.services.run_order import dequeue, waiting
    from studio.training.events import Failed
    from studio.training.runs import append

    name = next(iter(waiting(workspace)), None)
    if name is None:
        return False
    try:
        runs.resume_training(workspace, name)
    except BusyError:
        time.sleep(POLL)  # somebody was quicker
    except StudioError as error:
        dequeue(workspace, name)
        with suppress(StudioError):
            append(workspace.runs / name, Failed(0, str(error)))
    return True
