"""Work in a forked child, which has everything imported already and may be killed or starved at it."""

import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

Say = Callable[[Any], None]
NEVER = 10**9
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate")


class Ended(NamedTuple):
    """said: what the child reported, in its order. how: "killed", "done", or how else it ended. seconds: it lived."""

    said: list[Any]
    how: str
    seconds: float


class Child:
    """A fork that does `work(say)`. What it says is JSON, a line each on a pipe: a line is whole or not there."""

    def __init__(self, work: Callable[[Say], None], quiet: bool = False):
        reading, writing = os.pipe()
        sys.stdout.flush()
        self.began, self.pid = time.monotonic(), os.fork()
        if not self.pid:
            os.close(reading)
            _child(work, writing, quiet)
        os.close(writing)
        self._pipe, self._heard = reading, b""

    def hear(self, seconds: float) -> Any:
        """The next thing that it says. Raises TimeoutError, EOFError."""
        until = time.monotonic() + seconds
        while b"\n" not in self._heard:
            if not select.select([self._pipe], [], [], max(0, until - time.monotonic()))[0]:
                raise TimeoutError(f"the child said nothing for {seconds} s")
            if not (block := os.read(self._pipe, 1 << 16)):
                raise EOFError("the child ended")
            self._heard += block
        line, _, self._heard = self._heard.partition(b"\n")
        return json.loads(line)

    def end(self, after: float = NEVER) -> Ended:
        """Wait for its end, or kill it `after` seconds from its beginning."""
        said, killed = [], False
        while True:
            left = self.began + after - time.monotonic()
            if left <= 0 and not killed:
                os.kill(self.pid, signal.SIGKILL)
                killed = True
            try:
                said.append(self.hear(NEVER if killed else left))
            except TimeoutError:
                continue
            except EOFError:
                break
        os.close(self._pipe)
        _, status = os.waitpid(self.pid, 0)
        lived = time.monotonic() - self.began
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            return Ended(said, "killed" if number == signal.SIGKILL else signal.Signals(number).name, lived)
        return Ended(said, "done" if os.WEXITSTATUS(status) == 0 else f"exit {os.WEXITSTATUS(status)}", lived)

    def kill(self) -> None:
        self.end(after=0)


def _child(work: Callable[[Say], None], pipe: int, quiet: bool) -> None:
    code = 1
    os.set_inheritable(pipe, True)  # should the work become another program, its end is still seen
    try:
        if quiet:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        work(lambda thing: os.write(pipe, json.dumps(thing).encode() + b"\n") and None)
        code = 0
    except BaseException:
        with_limits_off()
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def count_changes(end_at: int = NEVER) -> Callable[[], int]:
    """Count this process's changes of files from now on, and end it by SIGKILL just before number `end_at`.

    Moments chosen by the clock hardly ever fall between two neighbouring changes; these do, and again with the same
    number. A change: a file opened for writing, flushed to the disk, renamed or removed, a folder made or removed.
    """
    count = 0

    def change() -> None:
        nonlocal count
        count += 1
        if count == end_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple) -> None:
        if event in _CHANGES or (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITING and arguments[0] != os.devnull
        ):
            change()

    flush = os.fsync

    def flushed(handle: int) -> None:
        change()
        flush(handle)

    os.fsync = flushed
    sys.addaudithook(hook)
    return lambda: count


def with_limits_off() -> None:
    """What was limited is no longer."""
    for kind in (resource.RLIMIT_AS, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard, hard))
