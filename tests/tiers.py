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
    return [value if value in kept else in_full(*(value if isinstance(value, tuple) else (value,))) for value in values]


def in_full(*values):
    """One case of `parametrize` that runs in `full`."""
    return pytest.param(*values, marks=pytest.mark.full)


def cross(rows: Iterable, columns: Iterable, row=None, column=None) -> list:
    """Pairs for `parametrize`, of which one row and one column run by default (if none is named, the first of each)."""
    rows, columns = list(rows), list(columns)
    row, column = rows[0] if row is None else row, columns[0] if column is None else column
    assert row in rows and column in columns, f"no such case: {row}, {column}"
    return [(r, c) if r == row or c == column else in_full(r, c) for r in rows for c in columns]
