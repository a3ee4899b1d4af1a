"""What work costs, counted and not timed: a busy machine changes no count."""

import sys
from collections.abc import Callable


def calls(work: Callable[[], object], named: str = "") -> int:
    """How many functions, of Python and of C, `work` calls in this thread; `named`: those with it in their name."""
    count, before = 0, sys.getprofile()

    def note(frame, event: str, function) -> None:
        nonlocal count
        if event in ("call", "c_call"):
            count += named in (frame.f_code.co_name if event == "call" else function.__name__)

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
