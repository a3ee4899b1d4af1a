"""What a run folder tells. Reading goes on where it stopped: events.jsonl only grows, and may hold 100,000 steps."""

import json
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from studio.training.events import (
    Event,
    ExportChecked,
    Failed,
    Finished,
    Judged,
    Preparing,
    Preview,
    RolledBack,
    Scored,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
    from_dict,
)
from studio.training.scorecard.of_run import from_event, judge_run, verdict_from, with_card
from studio.training.scorecard.scores import Scores
from studio.training.scorecard.verdict import Verdict

LOG = "events.jsonl"
KEPT = 6  # runs whose reading is remembered; one of 100,000 steps takes 20 MB
CHUNK = 4 * 2**20  # bytes read at a time
ENOUGH = 2000  # lines of a block that are read when it is skimmed, beside those that are rare
TAIL = 64  # bytes before the place where reading stopped, by which a file that was replaced is told


@dataclass
class RunView:
    """A run as its folder tells it."""

    name: str
    state: str = "interrupted"  # or "running", "finished", "stopped", "failed"
    step: int = 0
    steps: int = 0
    losses: list[tuple[int, float, float]] = field(default_factory=list)  # step, loss, smoothed
    validations: list[Validation] = field(default_factory=list)  # on the held-out images
    steps_per_second: float = 0.0
    seconds_left: float = 0.0
    previews: list[tuple[int, str, Path]] = field(default_factory=list)  # step, prompt, file
    message: str = ""  # the last thing said in words
    warnings: list[tuple[int, str]] = field(default_factory=list)  # step, what
    setup: str = ""  # device, precision, images and buckets
    preparing: tuple[int, int] | None = None  # images and captions encoded, of how many
    preparing_what: str = ""  # what is done instead of encoding
    last: Step | None = None
    export_check: ExportChecked | None = None
    adapter: Path | None = None
    scores: list[Scores] = field(default_factory=list)  # of checkpoints, by step
    judged: Judged | None = None  # the verdict that was given when the run ended, or was scored again

    @property
    def verdict(self) -> Verdict | None:
        """The one verdict on the run: the one given; else by what was measured so far. None before a measurement."""
        if self.judged is not None:
            return verdict_from(self.judged)
        if not self.scores and not any(one.step for one in self.validations):
            return None
        return judge_run(self.validations, self.scores)

    @property
    def word(self) -> str:
        """The outcome of a run that is over or was scored; else how the loss goes."""
        if self.state in ("running", "paused", "queued") and not self.scores:
            return self.validations[-1].verdict if self.validations else ""
        found = self.verdict
        return found.outcome if found else ""

    @property
    def validation(self) -> list[tuple[int, float, float]]:
        """(step, loss on the held-out images, the base's)."""
        return [(one.step, one.loss, one.base_loss) for one in self.validations]


def read_events(folder: Path) -> list[Event]:
    """All events so far; a torn or foreign line is passed over."""
    try:
        lines = (folder / LOG).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    return [event for values in _parsed(lines) if (event := _event(values))]


def read_run_folder(folder: Path, after: int = 0) -> RunView:
    """The run in `folder`, wherever that is; losses only of steps after `after`. The next reading goes on from here."""
    key = str(folder)
    with _lock:
        log = _kept.setdefault(key, Log(folder))
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return log.poll(after)


def skim_run_folder(folder: Path) -> RunView:
    """The run in `folder` once, for what is told of many: of a long log, some of the losses are left out."""
    with _lock:
        log = _kept.get(str(folder))
    return (log or Log(folder, skim=True)).poll()


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """While this process trains the run in `folder`. So its own runs are known without the system's clock, which may be
    set, and one that ended without a word, as on a full disk, is not taken to go on.
    """
    key = os.getpid(), os.path.realpath(folder)
    _at_work.add(key)
    try:
        yield
    finally:
        _at_work.discard(key)


class Log:
    """One events.jsonl and what it has said so far. skim: take a part of the losses where a block holds many."""

    def __init__(self, folder: Path, skim: bool = False):
        self.folder, self._skim, self._lock = folder, skim, threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self.view = RunView(self.folder.name)
        self.started: Started | None = None  # what began it last, until it has ended
        self.stamp: tuple[int, int, int] | None = None
        self.read, self.tail = 0, b""

    def poll(self, after: int = 0) -> RunView:
        """The run as it is now; what is returned is the caller's own."""
        with self._lock:
            self._catch_up()
            view = self.view
            losses = [row for row in view.losses if row[0] > after] if after else view.losses[:]
            copy = replace(
                view,
                losses=losses,
                validations=view.validations[:],
                previews=view.previews[:],
                warnings=view.warnings[:],
                scores=view.scores[:],
            )
            started = self.started
        if started:
            copy.state = "running" if _alive(started, self.folder) else "interrupted"
        file = self.folder / "adapter.safetensors"
        copy.adapter = file if file.is_file() else None
        return copy

    def _catch_up(self) -> None:
        try:
            with (self.folder / LOG).open("rb") as stream:
                stat = _stamp(stream)
                if stat == self.stamp:
                    return
                stream.seek(max(0, self.read - TAIL))
                if self.stamp and (stat[0] != self.stamp[0] or stream.read(len(self.tail)) != self.tail):
                    self._begin()
                stream.seek(self.read)
                self._take_lines(stream)
                self.stamp = stat
        except FileNotFoundError:
            if self.stamp:
                self._begin()

    def _take_lines(self, stream: BinaryIO) -> None:
        """All whole lines from here on. A last line without its end is taken once it is an event."""
        rest = b""
        while block := stream.read(CHUNK):
            *lines, rest = (rest + block).split(b"\n")
            if self._skim:
                lines = _skimmed(lines)
            for values in _parsed(lines):
                self._take(values)
        end = stream.tell()
        whole = list(_parsed([rest]))
        for values in whole:
            self._take(values)
        self.read = end if whole else end - len(rest)
        stream.seek(max(0, self.read - TAIL))
        self.tail = stream.read(min(TAIL, self.read))

    def _take(self, values: dict[str, Any]) -> None:
        event = _event(values)
        if isinstance(event, Started):
            self.started = event
        elif isinstance(event, Finished | Stopped | Failed):
            self.started = None
        if event:
            _apply(self.view, event, self.folder)


def _apply(view: RunView, event: Event, folder: Path) -> None:
    if not isinstance(event, Scored):  # a checkpoint, perhaps an earlier one
        view.step = event.step
    match event:
        case Step():
            view.steps_per_second, view.seconds_left, view.last = event.steps_per_second, event.seconds_left, event
            view.losses.append((event.step, event.loss, event.smoothed))
        case Preparing():
            view.preparing, view.preparing_what = (event.done, event.total), event.what
        case Started():
            view.steps, view.message, view.setup, view.preparing = event.steps, "", event.setup, None
            _forget_after(view, event.step)
        case RolledBack():
            view.message = event.message
            view.warnings.append((event.step, event.message))
            _forget_after(view, event.step)
        case Validation():
            # Losses on other images can't be compared, and a step that is done again is measured again.
            last = view.validations[-1] if view.validations else None
            if last and (event.held_out != last.held_out or event.step <= last.step):
                view.scores = view.scores if event.held_out == last.held_out else []
                view.validations = [
                    one for one in view.validations if one.held_out == event.held_out and one.step < event.step
                ]
            view.validations.append(event)
        case Preview() if is_inside(event.file):
            row = (event.step, event.prompt, folder / event.file)
            if view.previews and event.step <= view.previews[-1][0]:
                view.previews = [known for known in view.previews if known[2] != row[2]]
            view.previews.append(row)
        case Warned():
            view.message = event.message
            view.warnings.append((event.step, event.message))
        case ExportChecked():
            view.export_check = event
        case Scored():
            card = from_event(event)
            view.scores = with_card(view.scores, card if is_inside(card.sheet) else replace(card, sheet=""))
        case Judged():
            view.judged = event
        case Finished() | Stopped() | Failed():
            view.state, view.message, view.seconds_left = type(event).__name__.lower(), event.message, 0.0
        case _:
            pass


def is_inside(file: str) -> bool:
    """Whether a name leads nowhere but into the run's folder."""
    strange = not file or "\0" in file or len(file) > 200
    return not strange and not os.path.isabs(file) and ".." not in re.split(r"[/\\]", file)


def _forget_after(view: RunView, step: int) -> None:
    """What a run does again replaces what it did before."""
    view.losses = [row for row in view.losses if row[0] <= step]
    view.validations = [one for one in view.validations if one.step <= step]
    view.previews = [row for row in view.previews if row[0] <= step]
    view.scores = [one for one in view.scores if one.step <= step]
    view.export_check = view.judged = None


def _skimmed(lines: list[bytes]) -> list[bytes]:
    """Without some of the steps where there are many; the last line stays, since it says how far the run is."""
    stride, last = len(lines) // ENOUGH, len(lines) - 1
    if stride < 2:
        return lines
    return [x for n, x in enumerate(lines) if n % stride == 0 or n == last or not x.startswith(_STEP)]


def _parsed(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    """The lines that are JSON tables with an "event" in them."""
    lines = [line for line in lines if line.strip()]
    try:
        found = json.loads(b"[" + b",".join(lines) + b"]")  # twice as fast as one by one
    except (ValueError, RecursionError):
        found = [_or_none(line) for line in lines]
    return (values for values in found if isinstance(values, dict) and "event" in values)


def _or_none(line: bytes) -> Any:
    try:
        return json.loads(line.decode("utf-8", errors="replace"))
    except (ValueError, RecursionError):
        return None


def _event(values: dict[str, Any]) -> Event | None:
    try:
        return from_dict(values)
    except (KeyError, TypeError):
        return None


def _stamp(stream: BinaryIO) -> tuple[int, int, int]:
    """(which file, when it changed, bytes)."""
    stat = os.fstat(stream.fileno())
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _alive(started: Started, folder: Path) -> bool:
    if started.process == os.getpid():
        return (os.getpid(), os.path.realpath(folder)) in _at_work
    try:
        return bool(abs(psutil.Process(started.process).create_time() - started.process_started) < 1)
    except (psutil.Error, ValueError, TypeError):
        return False


_STEP = b'{"event": "Step"'  # how the line of a step begins
_kept: "OrderedDict[str, Log]" = OrderedDict()  # the one that was polled last stands last
_at_work: set[tuple[int, str]] = set()  # process, run folder
_lock = threading.Lock()
