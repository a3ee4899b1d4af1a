"""The strength at which each adapter was drawn last, by its file's content: a file that comes again has it again."""

import json
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import StudioError
from studio.services.adapter_files import adapter_path
from studio.workspace import Workspace, atomic_write, sha256_of

if TYPE_CHECKING:
    from studio.generation import AppliedAdapter

MOST = 2000  # files
HIGHEST = 2.0  # of a row's slider, to either side
_lock = threading.Lock()


def remember(workspace: Workspace, applied: Iterable["AppliedAdapter"]) -> None:
    """The strengths of an image that was drawn; those of a run that is under way change with it, and are left out."""
    new = {digest: one.strength for one in applied if not one.live and (digest := sha256_of(one.file))}
    if not new:
        return
    with _lock:
        known = _read(workspace)
        if all(known.get(digest) == strength for digest, strength in new.items()):
            return
        known = {key: one for key, one in known.items() if key not in new} | new
        atomic_write(_file(workspace), json.dumps(dict(list(known.items())[-MOST:])), lasting=False)


def strength_of(workspace: Workspace, key: str) -> float:
    """The last strength of the adapter of this key; 1 where it was never drawn."""
    try:
        digest = sha256_of(adapter_path(workspace, key))
    except StudioError:  # of a run under way
        return 1.0
    return _read(workspace).get(digest, 1.0)


def _file(workspace: Workspace) -> Path:
    return workspace.cache / "strengths.json"


def _read(workspace: Workspace) -> dict[str, float]:
    """Whatever is damaged counts as nothing."""
    try:
        found = json.loads(_file(workspace).read_bytes())
        pairs = [(key, value) for key, value in found.items() if isinstance(value, int | float)]
        return {key: float(value) for key, value in pairs if abs(value) <= HIGHEST}
    except (OSError, ValueError, AttributeError, RecursionError):
        return {}
