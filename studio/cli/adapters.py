"""The commands about adapter files: inspect, convert, resize, merge. They call the operations of services/adapters."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.terminal import DONE, WorkspaceOption, finished, opened, say
from studio.errors import AdapterError, ConfigError
from studio.workspace import Workspace

FILE = "a .safetensors file, a run's name, RUN@STEP for a checkpoint, or an adapter dropped on the page"
File = Annotated[str, typer.Argument(metavar="FILE", help=f"{FILE[0].upper()}{FILE[1:]}.")]
Out = Annotated[str, typer.Argument(metavar="OUT", help="The .safetensors file to write.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


def inspect(
    context: typer.Context,
    file: File,
    base: Annotated[str, typer.Option(metavar="NAME", help="Also say how it fits this base model.")] = "",
    compare: Annotated[
        list[str] | None, typer.Option(metavar="FILE", help="With --base: how much it overlaps this adapter.")
    ] = None,
    beside: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    as_json: AsJson = False,
    workspace: WorkspaceOption = "",
) -> int:
    """Say what is in an adapter file."""
    from studio.services.adapters import inspect_adapter

    space, others = opened(context, workspace), [*(compare or ()), *(beside or ())]
    if others and not base:
        raise ConfigError("--compare compares on a base model's layers: say which with --base NAME.")
    found = inspect_adapter(
        space,
        _named(file, space),
        "",
        [{"path": _named(one, space), "name": one} for one in others],
        bool(base),
        line=base,
    )
    print(json.dumps(found["details"], indent=2) if as_json else found["text"])
    return DONE


def convert(
    context: typer.Context,
    file: File,
    out: Out,
    layout: Annotated[str, typer.Option(metavar="kohya|diffusers", help="Whose names its layers get.")],
    base: Annotated[str, typer.Option(metavar="NAME", help="The base whose layers it names (starter).")] = "starter",
    workspace: WorkspaceOption = "",
) -> int:
    """Write an adapter file in another program's layout."""
    from studio.services.adapters import convert_adapter

    space = opened(context, workspace)
    return written(convert_adapter(space, _named(file, space), layout, line=base, out=target_of(out)), out)


def resize(
    context: typer.Context,
    file: File,
    out: Out,
    rank: Annotated[int, typer.Option(metavar="N", help="The largest rank that a layer keeps.")],
    workspace: WorkspaceOption = "",
) -> int:
    """Reduce an adapter to a smaller rank, and say what was lost."""
    from studio.services.adapters import resize_adapter

    space = opened(context, workspace)
    return written(resize_adapter(space, _named(file, space), rank, out=target_of(out)), out)


def merge(
    context: typer.Context,
    files: Annotated[
        list[str], typer.Argument(metavar="FILE:STRENGTH... OUT", help="Two adapters or more, then the file to write.")
    ],
    rank: Annotated[
        int | None, typer.Option(metavar="N", help="Cut the sum to this rank (exact if not given).")
    ] = None,
    workspace: WorkspaceOption = "",
) -> int:
    """Make one adapter of several at their strengths."""
    from studio.services.adapters import merge_adapters

    *given, out = files
    if len(given) < 2:
        raise ConfigError("Merging needs two adapters or more, and the file to write last.")
    space = opened(context, workspace)
    pairs = [named_adapter(text, space) for text in given]
    applied = [{"path": path, "strength": strength} for path, strength in pairs]
    return written(merge_adapters(space, applied, rank, out=target_of(out)), out)


def written(job: Any, out: str) -> int:
    """Wait for the file that a job makes; its notes, then its name."""
    for line in finished(job).notes:
        say(line)
    print(out)
    return DONE


def target_of(out: str) -> Path:
    """The file to write. Raises AdapterError."""
    path = Path(out).expanduser()
    if path.is_dir() or not path.parent.is_dir():
        raise AdapterError(f"Can't write {out}: choose a file in a folder that exists.")
    return path


def named_adapter(text: str, workspace: Workspace) -> tuple[Path, float]:
    """(file, strength) of FILE[:STRENGTH]. A colon that no number follows belongs to the name, as in C:\\a.bin."""
    name, strength = text, 1.0
    head, colon, tail = text.rpartition(":")
    if colon and head and not Path(text).exists():
        try:
            name, strength = head, float(tail)
        except ValueError:
            if Path(head).exists():
                raise AdapterError(f"The strength after the colon must be a number (you gave {tail!r}).") from None
    if not math.isfinite(strength):
        raise AdapterError(f"The strength after the colon must be a finite number (you gave {tail!r}).")
    return _named(name, workspace), strength


def _named(name: str, workspace: Workspace) -> Path:
    """A file of this machine, or what the workspace calls so."""
    from studio.services.adapter_files import adapter_path, key_of

    for path in (Path(name).expanduser(), workspace.runs / name / "adapter.safetensors"):
        if path.is_file():
            return path
    if key := key_of(workspace, name):
        return adapter_path(workspace, key)
    raise AdapterError(f"There is no adapter {name}: give {FILE}.")
