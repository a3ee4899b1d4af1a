"""Background work: one job that holds the device at a time, and beside it one of each kind that needs no device.

Everyone has jobs of their own; whoever comes while somebody else's job holds the device stands in line behind it. A
image may slip in between two training steps.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar

from studio.errors import BusyError, StudioError, user_message
from studio.server import zero_gpu
from studio.server.callers import is_gone
from studio.server.owners import PerOwner, acting, address, owner

log = logging.getLogger(__name__)
Event = TypeVar("Event")
Value = TypeVar("Value")
MOST, AT_ONE_ADDRESS = 24, 6  # jobs of all visitors together, and of those from one address
OFTEN = 0.5  # seconds between two looks whether the caller is still there


class Job:
    """One piece of background work. `done`, `total` and `message` are written by the work and read by anyone."""

    def __init__(self, kind: str, title: str, limit: float | None = None):
        self.kind, self.title, self.limit = kind, title, limit
        self.owner, self.address = owner(), address()
        self.began = time.monotonic()  # seconds; when the device was got
        self.ahead = 0  # jobs of others that come first
        self.waits_for = ""  # what holds the device meanwhile: "an image"
        self.pace: tuple[float, float] | None = None  # how many a second and seconds left, where the work says so
        self.done, self.total, self.message = 0, 0, ""
        self.state = "running"  # "done", "stopped" or "failed" at the end
        self.error: str | None = None  # one line
        self.result: Any = None  # what the work found out, where it is asked for that
        self.stop_event = threading.Event()
        self.pause_event = threading.Event()
        self.asked: dict[str, threading.Event] = {}  # what else the work can be asked for while it goes on, by name
        self.paused = False  # whether the work stands still now; it may be a step after it was asked to
        self.thread: threading.Thread | None = None

    def as_answer(self) -> dict[str, Any]:
        """What endpoints and the command line say of it."""
        return {name: getattr(self, name) for name in ("kind", "title", "state", "done", "total", "message", "error")}

    def stop(self) -> None:
        """Ask the work to end at its next opportunity, also while it is paused."""
        self.stop_event.set()

    def wait(self) -> None:
        """Until it has ended, for whoever asked from outside; a caller who hangs up stops it."""
        while self.thread and self.thread.is_alive():
            self.thread.join(OFTEN)
            if is_gone():
                self.stop()

    def wait_while_paused(self) -> None:
        """For the work: stand still until `pause_event` is cleared or the job is to stop."""
        self.paused = True
        while self.pause_event.is_set() and not self.stop_event.wait(0.1):
            pass
        self.paused = False


class Jobs:
    """The process's jobs, and the device's turns."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turn = threading.Condition()
        self._held = False
        self._images: list[object] = []  # those that wait for the device, in the order they came
        self._line: list[Job] = []  # jobs that need the device, in the order they came; the first has it
        self._newest: PerOwner[Job] = PerOwner()  # "device": the newest job that needs it, also after its end
        self.beside: PerOwner[Job] = PerOwner()  # the newest of each kind that does not

    @property
    def current(self) -> Job | None:
        """The asker's newest job that needs the device, also after its end."""
        return self._newest.get("device")

    def start(
        self, kind: str, title: str, work: Callable[[Job], None], device: bool = True, limit: float | None = None
    ) -> Job:
        """Run `work(job)` in a background thread. Raises BusyError while another job of the asker holds the device.

        device: False for work on files alone, which waits only for its own kind.
        limit: seconds after which it is asked to stop.
        """
        with self._lock:
            if owner() and len(self.everyone()) >= MOST:
                raise BusyError("Many people are here now: try again in a few minutes.")
            here = [one for one in self.everyone() if one.address and one.address == address()] if owner() else []
            if len(here) >= AT_ONE_ADDRESS:
                raise BusyError("Your network has as much going on here as it may: wait until some of it has ended.")
            if device:
                self.refuse_if_busy()
                job = self._newest["device"] = Job(kind, title, limit)
                self._line.insert(_place_in(self._line, job), job)
                job.ahead = self._line.index(job)
            else:
                _refuse_if_running(self.beside.get(kind))
                job = self.beside[kind] = Job(kind, title, limit)
        arrive = zero_gpu.carried()
        job.thread = threading.Thread(target=self._run, args=(job, work, arrive), name=f"job-{kind}", daemon=True)
        try:
            job.thread.start()
        except RuntimeError:  # no memory for one more; the device must not wait for it
            job.thread = None
            self._end(job, "failed")
            raise
        return job

    def refuse_if_busy(self) -> None:
        """Raises BusyError while a job of the asker holds the device, or waits for it."""
        _refuse_if_running(self.current)

    def running(self) -> list[Job]:
        """All of the asker's that runs now, what holds the device first."""
        return [job for job in (self.current, *self.beside.values()) if job and job.state == "running"]

    def everyone(self) -> list[Job]:
        """All that runs now, whoever it belongs to: for whoever looks after the process."""
        return [job for job in [*self._newest.everyone(), *self.beside.everyone()] if job.state == "running"]

    def _run(self, job: Job, work: Callable[[Job], None], arrive: Callable[[], Any]) -> None:
        timer, state = None, "failed"
        arrive()
        with acting(job.owner):
            try:
                first = self._stand_in_line(job)
                job.began = time.monotonic()
                if job.limit and first:
                    timer = threading.Timer(job.limit, job.stop)
                    timer.daemon = True
                    timer.start()
                if first:
                    work(job)
                state = "stopped" if job.stop_event.is_set() else "done"
                if job.limit and state == "stopped" and time.monotonic() - job.began >= job.limit:
                    job.message = f"Stopped after {job.limit / 60:.0f} minutes, the most that a job may take here."
            except StudioError as error:
                job.error = job.message = str(error)
            except Exception as error:
                log.exception("%s failed", job.title)
                reason = user_message(error) or f"{type(error).__name__}: {error}"
                job.error = job.message = f"{job.title} failed: {reason}".splitlines()[0]
            finally:
                if timer:
                    timer.cancel()
                self._end(job, state)

    def _end(self, job: Job, state: str) -> None:
        with self._turn:
            if job in self._line:
                self._line.remove(job)
            job.state = state
            self._turn.notify_all()

    def _stand_in_line(self, job: Job) -> bool:
        """Wait until no one is before it; False when it was stopped meanwhile."""
        with self._turn:
            while job in self._line and (ahead := self._line.index(job)):
                job.ahead = ahead
                behind = "you are next" if ahead == 1 else f"{ahead} are before you"
                job.message = f"Somebody else's work is going on: {behind}."
                if job.stop_event.is_set():
                    return False
                self._turn.wait(0.2)
            if job.ahead:
                job.ahead, job.message = 0, ""
        return True

    @contextmanager
    def device(
        self, stop: threading.Event | None = None, waiting: Callable[[int], None] | None = None
    ) -> Iterator[None]:
        """Hold the device for an image, in the order in which they came; goes before the next turn of a job. BusyError
        when stopped before that.

        waiting: called with how many images come first while something else holds it
        """
        me = object()
        with self._turn:
            self._images.append(me)
            try:
                while self._held or self._images[0] is not me:
                    if waiting:
                        waiting(self._images.index(me))
                    if stop is not None and stop.is_set():
                        raise BusyError("Stopped while it waited for its turn.")
                    self._turn.wait(None if stop is None else OFTEN)
                self._held = True
            finally:
                self._images.remove(me)
                self._turn.notify_all()
        try:
            yield
        finally:
            self._release()

    def turns(self, events: Iterable[Event], job: Job | None = None) -> Iterator[Event]:
        """Go through `events`, holding the device only while the next one is made. job: says what it waits for."""
        iterator = iter(events)
        while True:
            with self._turn:
                if job:
                    job.waits_for = "an image" if self._held or self._images else ""
                while self._held or self._images:
                    self._turn.wait()
                if job:
                    job.waits_for = ""
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


def _place_in(line: list[Job], job: Job) -> int:
    """Behind what holds the device. The second of an address comes behind the first of every other, and so on."""
    mine, before = sum(one.address == job.address for one in line), Counter[str]()
    for place, one in enumerate(line):
        if place and before[one.address] > mine:
            return place
        before[one.address] += 1
    return len(line)


def _refuse_if_running(job: Job | None) -> None:
    if job and job.state == "running":
        raise BusyError(f"{job.title} is still going on: wait for it, or stop it first.")


jobs = Jobs()


# The newest job of each kind ------------------------------------------------------------------------------------------


class Latest(NamedTuple):
    """The newest job of a kind, and the dataset or run that it is about."""

    job: Job
    name: str


latest: PerOwner[Latest] = PerOwner()  # by kind, so that a tab opened later sees how a job ended


def remember(job: Job, name: str) -> None:
    """`job` is the newest of its kind, about the dataset or run `name`."""
    latest.pop(job.kind, None)  # so that the newest of all stands last
    latest[job.kind] = Latest(job, name)


def newest_about(kind: str, name: str) -> Job | None:
    """The newest job of this kind, also after its end, if it is about the dataset or run `name`."""
    newest = latest.get(kind)
    return newest.job if newest and newest.name == name else None


def stop_job(kind: str) -> bool:
    """Ask the running job of this kind to stop; False when none runs. The job ends after its current step."""
    job = running(kind)
    if job:
        job.stop()
    return job is not None


def running(kind: str | None = None) -> Job | None:
    """The job of `kind` that runs now, or the one that holds the device; None when there is none."""
    if kind is None:
        job = jobs.current
        return job if job and job.state == "running" else None
    return next((job for job in jobs.running() if job.kind == kind), None)


def counting(job: Job) -> Callable[..., None]:
    """What the work of `job` calls with (done, total) or (done, total, what it is at), which becomes its progress."""

    def progress(done: int, total: int, at: str = "") -> None:
        job.done, job.total, job.message = done, total, at or job.message

    return progress


def followed(job: Job, work: Generator[tuple[int, int, str], None, Value]) -> Value:
    """What `work` returns; it yields (done, in all, what), which becomes the job's progress, and gives up the device
    between two of them.
    """
    found: list[Value] = []

    def following() -> Iterator[tuple[int, int, str]]:
        found.append((yield from work))

    for job.done, job.total, job.message in jobs.turns(following()):
        pass
    return found[0]


def fetching(job: Job, what: str) -> Callable[[int, int], None]:
    """The same for a download of `what`, in bytes."""

    def progress(done: int, total: int) -> None:
        job.done, job.total = done, total
        job.message = f"Fetching {what}: {done / 1e9:.2f} of {total / 1e9:.2f} GB"

    return progress
