"""What work costs, counted and not timed: a busy machine changes no count."""

import sys
from collections.abc import Callable


def calls(work: Callable[[], object]) -> int:
    """How many functions, of Python and of C, `work` calls in this thread."""
    count, before = 0, sys.getprofile()

    def note(frame, event: str, _) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


def growth(work: Callable, small: object, double: object) -> float:
    """How many times as many calls `work(double)` makes as `work(small)`: 2 when they grow in proportion, 4 when they
    grow with the square. What is made once and kept, as a compiled pattern, does not count.
    """
    work(small), work(double)
    return calls(lambda: work(double)) / calls(lambda: work(small))
