"""Whether whoever asked still waits for the answer: what nobody waits for any more is stopped."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

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


class Stop(threading.Event):
    """Also set when the caller is gone, or once its time is used up.

    other: another event that stops the same. seconds: of time inside `timed`.
    """

    def __init__(self, other: threading.Event | None = None, seconds: float | None = None):
        super().__init__()
        self._gone, self._other, self._left = _gone.get(), other, seconds
        self._since: float | None = None

    @property
    def too_long(self) -> bool:
        """Whether the time is used up."""
        now = time.monotonic()
        return self._left is not None and (
            self._left <= 0 or self._since is not None and now - self._since > self._left
        )

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
            if self._left is not None:
                self._left -= time.monotonic() - self._since
            self._since = None
