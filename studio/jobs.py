"""Background work: one job that holds the device at a time, and beside it one of each kind that needs no device.

A picture may slip in between two training steps.
"""

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from studio.errors import BusyError, StudioError

log = logging.getLogger(__name__)
Event = TypeVar("Event")


class Job:
    """One piece of background work. `done`, `total` and `message` are written by the work and read by anyone."""

    def __init__(self, kind: str, title: str):
        self.kind, self.title = kind, title
        self.done, self.total, self.message = 0, 0, ""
        self.state = "running"  # "done", "stopped" or "failed" at the end
        self.error: str | None = None  # one line
        self.result: Any = None  # what the work found out, where it is asked for that
        self.stop_event = threading.Event()
        self.pause_event = threading.Event()
        self.paused = False  # whether the work stands still now; it may be a step after it was asked to
        self.thread: threading.Thread | None = None

    def stop(self) -> None:
        """Ask the work to end at its next opportunity, also while it is paused."""
        self.stop_event.set()

    def wait(self) -> None:
        """Until it has ended, for whoever asked from outside."""
        if self.thread:
            self.thread.join()

    def wait_while_paused(self) -> None:
        """For the work: stand still until `pause_event` is cleared or the job is to stop."""
        self.paused = True
        while self.pause_event.is_set() and not self.stop_event.wait(0.1):
            pass
        self.paused = False


class Jobs:
    """The process's jobs, and the device's turns."""

    def __init__(self):
        self._lock = threading.Lock()
        self._turn = threading.Condition()
        self._held, self._waiting = False, 0
        self.current: Job | None = None  # the newest job that needs the device, also after its end
        self.beside: dict[str, Job] = {}  # the newest of each kind that does not

    def start(self, kind: str, title: str, work: Callable[[Job], None], device: bool = True) -> Job:
        """Run `work(job)` in a background thread. Raises BusyError while another job that needs the device runs.

        device: False for work on files alone, which waits only for its own kind.
        """
        with self._lock:
            if device:
                self.refuse_if_busy()
                job = self.current = Job(kind, title)
            else:
                _refuse_if_running(self.beside.get(kind))
                job = self.beside[kind] = Job(kind, title)
        job.thread = threading.Thread(target=self._run, args=(job, work), name=f"job-{kind}", daemon=True)
        job.thread.start()
        return job

    def refuse_if_busy(self) -> None:
        """Raises BusyError while a job holds the device."""
        _refuse_if_running(self.current)

    def running(self) -> list[Job]:
        """All that runs now, what holds the device first."""
        return [job for job in (self.current, *self.beside.values()) if job and job.state == "running"]

    def _run(self, job: Job, work: Callable[[Job], None]) -> None:
        try:
            work(job)
            job.state = "stopped" if job.stop_event.is_set() else "done"
        except StudioError as error:
            job.error, job.message, job.state = str(error), str(error), "failed"
        except Exception as error:
            log.exception("%s failed", job.title)
            job.error = f"{job.title} failed: {type(error).__name__}: {error}".splitlines()[0]
            job.message, job.state = job.error, "failed"

    @contextmanager
    def device(self) -> Iterator[None]:
        """Hold the device for a picture; goes before the next turn of a job."""
        with self._turn:
            self._waiting += 1
            try:
                while self._held:
                    self._turn.wait()
            finally:
                self._waiting -= 1
            self._held = True
        try:
            yield
        finally:
            self._release()

    def turns(self, events: Iterable[Event]) -> Iterator[Event]:
        """Go through `events`, holding the device only while the next one is made."""
        iterator = iter(events)
        while True:
            with self._turn:
                while self._held or self._waiting:
                    self._turn.wait()
                self._held = True
            try:
                event = next(iterator)
            except StopIteration:
                return
            finally:
                self._release()
            yield event

    def _release(self) -> None:
        with self._turn:
            self._held = False
            self._turn.notify_all()


def _refuse_if_running(job: Job | None) -> None:
    if job and job.state == "running":
        raise BusyError(f"{job.title} is still going on: wait for it, or stop it first.")


jobs = Jobs()
