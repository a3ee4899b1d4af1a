"""Which cases of a cross product run by default; `python -m pytest -m full` runs the rest. See docs/dev/testing.md."""

from collections.abc import Iterable

import pytest


def default(values: Iterable, *kept) -> list:
    """Values for `parametrize`: those in `kept` (if none is named, the first) run by default, all others in `full`.

    With several `parametrize` above each other, a case runs by default when each of its values does.
    """
    values = list(values)
    kept = kept or (values[0],)
    lacking = [value for value in kept if value not in values]
    assert not lacking, f"no such case: {lacking}"
    return [value if value in kept else in_full(value) for value in values]


def in_full(*values):
    """One case of `parametrize` that runs in `full`."""
    return pytest.param(*values, marks=pytest.mark.full)
