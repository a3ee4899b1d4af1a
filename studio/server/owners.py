"""Whose call this is. On a person's own machine there is one owner, ""; in public mode every visitor is one.

What a process remembers of somebody (jobs, how they ended) is kept by owner, so that nobody is told of another's.
"""

import weakref
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

Value = TypeVar("Value")

NO_VISITOR = "nobody"  # acts where there is none yet: finds and owns nothing

_acting: ContextVar[str | None] = ContextVar("acting", default=None)
_ask: list[Callable[[], str]] = []  # how a face above finds who asks; the command line has none
_ask_where: list[Callable[[], str]] = []  # and from which address


def ask(how: Callable[[], str], where: Callable[[], str] = str) -> None:
    """From now on `how()` says who asks, where `acting` does not, and `where()` from which address."""
    _ask[:], _ask_where[:] = [how], [where]


def owner() -> str:
    """Who asks now; "" on a person's own machine."""
    pinned = _acting.get()
    if pinned is not None:
        return pinned
    return _ask[0]() if _ask else ""


@contextmanager
def acting(name: str) -> Iterator[None]:
    """What runs inside, in this thread, is done for `name`."""
    token = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(token)


_kept: "weakref.WeakSet[PerOwner]" = weakref.WeakSet()


def forget(name: str) -> None:
    """Everything that this process remembers of `name`."""
    for one in list(_kept):
        one.forget(name)


class PerOwner(MutableMapping[str, Value]):
    """A dictionary of which everyone sees their own."""

    def __init__(self) -> None:
        self._all: dict[str, dict[str, Value]] = {}
        _kept.add(self)

    __hash__ = object.__hash__

    def __getitem__(self, key: str) -> Value:
        return self._mine()[key]

    def __setitem__(self, key: str, value: Value) -> None:
        self._all.setdefault(owner(), {})[key] = value

    def __delitem__(self, key: str) -> None:
        del self._mine()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._mine()))

    def __reversed__(self) -> Iterator[str]:
        return reversed(list(self._mine()))

    def __len__(self) -> int:
        return len(self._mine())

    def _mine(self) -> dict[str, Value]:
        return self._all.get(owner(), {})

    def forget(self, name: str) -> None:
        self._all.pop(name, None)

    def everyone(self) -> list[Value]:
        """The values of all owners, for whoever looks after the process."""
        return [value for mine in list(self._all.values()) for value in list(mine.values())]


_came_from: PerOwner[str] = PerOwner()


def address() -> str:
    """Where the owner who asks now has come from last, also in their background work; "" where that is not known."""
    asked = _ask_where[0]() if _ask_where else ""
    if asked:
        _came_from["address"] = asked
    return _came_from.get("address", "")
