"""Adapter files of the workspace: list, find by key, add a dropped one.

Everything from the browser is a name inside the workspace, never a path. Mistakes raise a StudioError.
"""

import filecmp
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from studio.errors import AdapterError, GenerationError, StudioError
from studio.services.operations import operation
from studio.services.parameters import Upload
from studio.workspace import Workspace, atomic_copy, checked_name, free_path, safe_name


@operation()
def list_adapters(workspace: Workspace) -> list[dict[str, str]]:
    """Adapters that an image can be drawn with: {"run": NAME} or {"file": NAME} each."""
    return [{kind: name} for kind, _, name in (key.partition(":") for _, key in adapter_choices(workspace))]


@operation(upload="file")
def add_adapter(
    workspace: Workspace, file: Annotated[Upload | None, Field(description="One .safetensors file.")] = None
) -> str:
    """Check an adapter file and keep it in the workspace. Answers the name to give to generate."""
    if not file:
        raise GenerationError("There is no file to add: give one .safetensors file.")
    return add_adapter_file(workspace, file).partition(":")[2]


def adapter_choices(workspace: Workspace) -> list[tuple[str, str]]:
    """(label, key) of what can be put on an image: `run:NAME` for runs, `file:NAME` for dropped files."""
    from studio.training import list_runs

    runs = [name for name in list_runs(workspace) if (workspace.runs / name / "adapter.safetensors").is_file()]
    files = sorted(path.name for path in workspace.adapters.glob("*.safetensors"))
    return [(name, f"run:{name}") for name in runs] + [(f"{Path(f).stem} (file)", f"file:{f}") for f in files]


def adapter_name(key: str | Path) -> str:
    """What the adapter of a key is called: `ink` for `run:ink`, for `file:ink.safetensors` and for a path to it."""
    if isinstance(key, Path):
        return key.parent.name if key.stem == "adapter" else key.stem
    if key.partition(":")[0] not in ("run", "file"):
        return key.removesuffix(".safetensors")
    return key.partition(":")[2].removesuffix(".safetensors")


def key_of(workspace: Workspace, name: str) -> str | None:
    """The key of the adapter that a prompt, a program or a person calls `name`; None when there is none.

    A run's name, RUN@STEP for a checkpoint, or a dropped file's name with or without its suffix; case is ignored.
    """
    wanted = name.strip().lower().removesuffix(".safetensors")
    keys = [key for _, key in adapter_choices(workspace) if adapter_name(key).lower() == wanted]
    if not keys and "@" in name:
        with suppress(StudioError):
            adapter_path(workspace, f"run:{name.strip()}")
            keys = [f"run:{name.strip()}"]
    return next(iter(keys), None)


def key_of_path(workspace: Workspace, path: str) -> str:
    """The key of a file that lies in the workspace; "" for none, and for one that lies elsewhere."""
    place = Path(path)
    if path and place.is_file() and place.parent == workspace.adapters:
        return f"file:{place.name}"
    if path and place.is_file() and place.name == "adapter.safetensors" and place.parent.parent == workspace.runs:
        return f"run:{place.parent.name}"
    return ""


def checked_key(value: Any) -> Any:
    """ "run:NAME" or "file:NAME" of {"run": NAME}, {"file": NAME} or the key itself; a Path of Python's own stays."""
    if isinstance(value, dict):
        if isinstance(value.get("path"), Path):  # of Python's own: JSON holds none
            return value["path"]
        for kind in ("run", "file"):
            if isinstance(value.get(kind), str):
                return f"{kind}:{value[kind]}"
    elif isinstance(value, Path) or (isinstance(value, str) and value.strip()):
        return value
    raise ValueError('Each adapter must be {"run": NAME} or {"file": NAME}, and may have a "strength"')


def given_key(value: Any) -> Any:
    """`checked_key` of what stands inside a list. Raises AdapterError."""
    try:
        return checked_key(value)
    except ValueError as error:
        raise AdapterError(f"{error}.") from None


AdapterName = Annotated[
    Any,
    BeforeValidator(checked_key),
    Field(description='Adapter: {"run": NAME}, {"run": "NAME@STEP"} for a checkpoint, or {"file": NAME}.'),
]


def adapter_path(workspace: Workspace, key: str | Path) -> Path:
    """The file behind `run:NAME`, `run:NAME@STEP` (a checkpoint), `file:NAME`, or such a name without its kind.

    A Path comes from this machine's own command line, never from a request. Raises AdapterError when there is none.
    """
    if isinstance(key, Path):
        if key.is_file():
            return key
        raise AdapterError(f"There is no adapter {key}: give a .safetensors file or the name of a finished run.")
    if str(key).partition(":")[0] not in ("run", "file"):
        key = key_of(workspace, str(key)) or f"file:{key}"
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
    workspace.refuse_if_full(path.stat().st_size)
    target = workspace.adapters / name
    if not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
        target = free_path(workspace.adapters, name)
        atomic_copy(path, target)
        os.utime(target)  # it is new here, however old the file is
    return f"file:{target.name}"
