"""Adapter files of the workspace: list, find by key, add a dropped one.

Everything from the browser is a name inside the workspace, never a path. Mistakes raise a StudioError.
"""

import filecmp
import os
from pathlib import Path

from studio.errors import AdapterError
from studio.workspace import Workspace, checked_name, copy_whole, free_path, safe_name


def list_adapters(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on a picture: `run:NAME` for runs, `file:NAME` for dropped files."""
    from studio.training import list_runs

    runs = [name for name in list_runs(workspace) if (workspace.runs / name / "adapter.safetensors").is_file()]
    files = sorted(path.name for path in workspace.adapters.glob("*.safetensors"))
    return [(name, f"run:{name}") for name in runs] + [(f"{Path(f).stem} (file)", f"file:{f}") for f in files]


def adapter_name(key: str) -> str:
    """What the adapter of a key is called: `ink` for `run:ink` and for `file:ink.safetensors`."""
    return key.partition(":")[2].removesuffix(".safetensors")


def adapter_path(workspace: Workspace, key: str) -> Path:
    """The file behind `run:NAME`, `run:NAME@STEP` (a checkpoint) or `file:NAME`.

    Raises AdapterError when it isn't in the workspace.
    """
    from studio.training import list_runs, read_run

    kind, _, name = str(key).partition(":")
    name = checked_name(name, "adapter")
    if kind == "run" and name in list_runs(workspace):
        path = read_run(workspace, name).adapter
        if path and Path(path).is_file():
            return Path(path)
        raise AdapterError(f"The run {name!r} has no adapter yet: wait until it has finished.")
    run, _, step = name.partition("@")
    if kind == "run" and step.isascii() and step.isdigit() and len(step) < 12 and run in list_runs(workspace):
        path = workspace.runs / run / "checkpoints" / f"{int(step):06d}" / "adapter.safetensors"
        if path.is_file():
            return path
        raise AdapterError(f"The run {run!r} keeps no checkpoint of step {int(step)}: choose another one.")
    path = workspace.adapters / name
    if kind == "file" and path.suffix == ".safetensors" and path.is_file():
        return path
    raise AdapterError(f"There is no adapter called {name!r}: choose one from the list or drop its file.")


def add_adapter_file(workspace: Workspace, path: Path) -> str:
    """Check a dropped file and copy it into the workspace; returns its key. The same bytes are kept once."""
    from studio.adapters import read_adapter

    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} is not a .safetensors file: drop the adapter's .safetensors file.")
    read_adapter(path).refuse_if_damaged()
    name = safe_name(path.stem) + ".safetensors"
    workspace.refuse_if_full()
    target = workspace.adapters / name
    if not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        target = free_path(workspace.adapters, name)
        copy_whole(path, target)
        os.utime(target)  # it is new here, however old the file is
    return f"file:{target.name}"
