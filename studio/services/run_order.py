"""Runs that wait for the device, by name and in order, in a file of the workspace that survives a restart."""

import json
import threading
from collections.abc import Callable

from studio.training.runs import list_runs
from studio.workspace import Workspace, atomic_write

FILE = "queue.json"
_lock = threading.Lock()


def waiting(workspace: Workspace) -> list[str]:
    """Names of the runs that wait, the next one first; one whose folder is gone is passed over."""
    try:
        names = json.loads((workspace.root / FILE).read_text("utf-8"))["runs"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    if not names or not isinstance(names, list):
        return []
    here = set(list_runs(workspace))
    return [name for name in dict.fromkeys(n for n in names if isinstance(n, str)) if name in here]


def enqueue(workspace: Workspace, name: str) -> None:
    _change(workspace, lambda names: [*(n for n in names if n != name), name])


def dequeue(workspace: Workspace, name: str) -> None:
    if name in waiting(workspace):
        _change(workspace, lambda names: [n for n in names if n != name])


def move(workspace: Workspace, name: str, by: int) -> None:
    """`by` places further back, or forward where it is negative."""

    def moved(names: list[str]) -> list[str]:
        if name not in names:
            return names
        place = max(0, min(len(names) - 1, names.index(name) + by))
        others = [n for n in names if n != name]
        return [*others[:place], name, *others[place:]]

    _change(workspace, moved)


def _change(workspace: Workspace, change: Callable[[list[str]], list[str]]) -> None:
    with _lock:
        atomic_write(workspace.root / FILE, json.dumps({"runs": change(waiting(workspace))}))
