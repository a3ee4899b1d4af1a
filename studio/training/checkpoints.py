"""Checkpoints: a folder a step, complete or not there, from which a run goes on exactly."""

import io
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from studio.workspace import atomic_write, remove_folder

STATES = 2  # how many keep their optimizer's state: the newest, and one more should that be torn


def pack(state: dict[str, Any]) -> bytes:
    """A state as it stands now; training on does not change it."""
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    return state


def save(folder: Path, step: int, packed: bytes, write_adapter: Callable[[Path], None], keep: int) -> Path:
    """Write checkpoints/<step>/ under a temporary name and rename it; then drop the oldest beyond `keep`.

    Raises OSError when the disk is full; what was there before is then still whole.
    """
    target = folder / "checkpoints" / f"{step:06d}"
    part = target.with_name(target.name + ".part")
    for left in target.parent.glob("*.part"):  # by a run that was killed here, perhaps at another step
        shutil.rmtree(left, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        write_adapter(part / "adapter.safetensors")
        atomic_write(part / "state.pt", packed)
        remove_folder(target)  # it is there when its state was torn
        part.rename(target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        raise
    older = [checkpoint for checkpoint in every(folder) if checkpoint != target]
    for checkpoint in older[: 1 - STATES]:
        (checkpoint / "state.pt").unlink(missing_ok=True)
    for checkpoint in older[: 1 - keep] if keep > 1 else older:
        remove_folder(checkpoint)
    return target


def every(folder: Path) -> list[Path]:
    """The folders of whole checkpoints, by step."""
    found = (folder / "checkpoints").glob("[0-9]*")
    return sorted((f for f in found if f.name.isdigit() and f.is_dir()), key=lambda f: int(f.name))


def newest(folder: Path) -> dict[str, Any] | None:
    """The state of the last whole checkpoint, or None when there is none."""
    found = (state_of(checkpoint) for checkpoint in reversed(every(folder)))
    return next((state for state in found if state is not None), None)


def state_of(checkpoint: Path) -> dict[str, Any] | None:
    """The state in a checkpoint's folder; None where its file is torn, or was dropped for newer ones."""
    try:
        return unpack((checkpoint / "state.pt").read_bytes())
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError):
        return None
