"""Whether whoever asked still waits for the answer: what nobody waits for any more is stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from studio.server.owners import owner

MANY, SHARE = 5, 3  # where more than so many others wait, one has this part of what one has while any do
_who_waits: list[Callable[[str], int]] = []  # how a face above knows; elsewhere no visitor waits
_gone: ContextVar[Callable[[], bool] | None] = ContextVar("gone", default=None)


@contextmanager
def asked(is_gone: Callable[[], bool]) -> Iterator[None]:
    """What runs inside, in this thread, is done for a caller who waits for it until `is_gone()`."""
    token = _gone.set(is_gone)
    try:
        yield
    finally:
        _gone.reset(token)


def is_gone() -> bool:
    """Whether the caller is gone. False for the page's own work and for the command line."""
    check = _gone.get()
    return check is not None and check()


def ask_who_waits(how: Callable[[str], int]) -> None:
    """From now on `how(owner)` says how many others wait for the device."""
    _who_waits[:] = [how]


class Stop(threading.Event):
    """Also set when the caller is gone, or once its time is used up.

    other: another event that stops the same. seconds: of time inside `timed`. shared: the same while others wait; a
    part of it where they are many.
    """

    def __init__(self, other: threading.Event | None = None, seconds: float | None = None, shared: float | None = None):
        super().__init__()
        self._gone, self._other, self._most, self._shared = _gone.get(), other, seconds, shared
        self._owner, self._used = owner(), 0.0
        self._since: float | None = None

    @property
    def too_long(self) -> bool:
        """Whether the time is used up."""
        used = self._used + (time.monotonic() - self._since if self._since is not None else 0.0)
        if self._most is not None and used >= self._most:
            return True
        if self._shared is None or used < self._shared / SHARE:
            return False
        others = max((ask(self._owner) for ask in _who_waits), default=0)
        return others > MANY or (others > 0 and used >= self._shared)

    def is_set(self) -> bool:
        asked = super().is_set() or (self._other is not None and self._other.is_set())
        return asked or self.too_long or (self._gone is not None and self._gone())

    @contextmanager
    def timed(self) -> Iterator[None]:
        """The time in here counts."""
        self._since = time.monotonic()
        try:
            yield
        finally:
            self._used += time.monotonic() - self._since
            self._since = None
