"""Checkpoints: a folder a step, complete or not there, from which a run goes on exactly."""

import io
import shutil
from pathlib import Path

import torch

from studio.adapters import Adapter
from studio.workspace import write_whole


def save(folder: Path, step: int, adapter: Adapter, optimizer: torch.optim.Optimizer, extra: dict) -> Path:
    """Write checkpoints/<step>/ under a temporary name and rename it."""
    target = folder / "checkpoints" / f"{step:06d}"
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    adapter.save(part / "adapter.safetensors", metadata={"studio.step": str(step)})
    stream = io.BytesIO()
    state = {"step": step, "adapter": adapter.state_dict(), "optimizer": optimizer.state_dict(), **extra}
    torch.save(state, stream)
    write_whole(part / "state.pt", stream.getvalue())
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return target


def newest(folder: Path) -> dict | None:
    """The state of the last whole checkpoint, or None when there is none."""
    found = sorted(f for f in (folder / "checkpoints").glob("[0-9]*") if f.suffix == "" and (f / "state.pt").is_file())
    for checkpoint in reversed(found):
        try:
            return torch.load(checkpoint / "state.pt", weights_only=True, map_location="cpu")
        except Exception:  # a torn file: the one before it will do
            continue
    return None
