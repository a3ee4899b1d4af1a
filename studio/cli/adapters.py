"""The commands about adapter files: inspect, convert, resize, merge."""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

from studio.cli.terminal import DONE, say
from studio.errors import AdapterError, ConfigError
from studio.server.settings import Parser
from studio.workspace import Workspace

FILE = "a .safetensors file, or a finished run's name"
OUT = "the .safetensors file to write"


def adapter_commands(add: Callable[..., Parser]) -> None:
    """Add the parsers of these commands. add: (name, command, about) to a parser."""
    sub = add("inspect", inspect_command, "Say what is in an adapter file.")
    sub.add_argument("file", metavar="FILE", help=FILE)
    sub.add_argument("--base", metavar="NAME", help="also say how it fits this base model")
    sub.add_argument(
        "--beside", metavar="FILE", action="append", default=[], help="with --base: how much it overlaps this adapter"
    )
    sub.add_argument("--json", action="store_true", help="print it as JSON")

    sub = add("convert", convert_command, "Write an adapter file in another program's layout.")
    sub.add_argument("file", metavar="FILE", help=FILE)
    sub.add_argument("out", metavar="OUT", help=OUT)
    sub.add_argument("--layout", required=True, choices=("kohya", "diffusers"), help="whose names its layers get")
    sub.add_argument("--base", metavar="NAME", default="starter", help="the base model whose layers it names (starter)")

    sub = add("resize", resize_command, "Cut an adapter to a smaller rank, and say what was lost.")
    sub.add_argument("file", metavar="FILE", help=FILE)
    sub.add_argument("out", metavar="OUT", help=OUT)
    sub.add_argument("--rank", metavar="N", type=int, required=True, help="the largest that a layer keeps")

    sub = add("merge", merge_command, "Make one adapter of several at their strengths.")
    sub.add_argument("files", metavar="FILE:STRENGTH", nargs="+", help=f"two or more, each {FILE}")
    sub.add_argument("out", metavar="OUT", help=OUT)
    sub.add_argument("--rank", metavar="N", type=int, help="cut the sum to this rank (exact if not given)")


def inspect_command(given: argparse.Namespace) -> int:
    """Describe an adapter file and, with --base, how it fits that model and how strongly it moves each block."""
    from studio.adapters import describe, describe_text, read_adapter

    workspace = Workspace.open(given.workspace)
    file = read_adapter(_named_file(given.file, workspace))
    description = describe(file)
    lines = [describe_text(description)]
    if given.base:
        from studio.adapters.advice import advice, verdict
        from studio.adapters.examine import examine
        from studio.basemodels import load_base

        others = {name: read_adapter(_named_file(name, workspace)) for name in given.beside}
        found = examine(file, load_base(given.base).modules(), others)
        fit, where = found.fit, found.where
        moved = {block: where.of_block(block) for block in where.blocks} if where else {}
        energy = {block: cell.share for block, cell in moved.items() if cell.applied}
        description["fit"] = {"base": given.base, "matched": fit.matched, "total": fit.total, "unused": fit.unused}
        description |= {"energy": energy, "overlap": found.overlaps, "advice": advice(found)}
        lines.append(f"on {given.base}: {verdict(found)}")
        lines += [f"  {block:<34} moves its weights by {100 * share:.2f} %" for block, share in energy.items()]
        lines += description["advice"]
    elif given.beside:
        raise ConfigError("--beside compares on a base model's layers: say which with --base NAME.")
    print(json.dumps(description, indent=2) if given.json else "\n".join(lines))
    return DONE


def convert_command(given: argparse.Namespace) -> int:
    """Write FILE as OUT. Flattened names need the base model, whose layers tell where the dots were."""
    from studio.adapters import place_layers, read_adapter, write_adapter

    file = read_adapter(_named_file(given.file, Workspace.open(given.workspace)))
    from studio.basemodels import load_base
    from studio.generation.exporting import kept_metadata

    layers, unused = place_layers(file, load_base(given.base).modules())
    if unused:
        count, (key, why) = f"{len(unused)} of {len(file.layers)}", unused[0]
        raise AdapterError(f"{count} layers have no place in {given.base} ({key}: {why}): name its own --base.")
    write_adapter(given.out, layers, given.layout, kept_metadata(file.metadata))
    print(given.out)
    return DONE


def resize_command(given: argparse.Namespace) -> int:
    """Write FILE cut to a rank as OUT."""
    from studio.adapters import read_adapter, resize, write_adapter
    from studio.generation.exporting import kept_metadata

    file = read_adapter(_named_file(given.file, Workspace.open(given.workspace)))
    layers, error = resize(file.layers, given.rank)
    write_adapter(given.out, layers, file.layout, kept_metadata(file.metadata))
    say(f"The update changed by {100 * error:.2f} % (‖old − new‖ / ‖old‖).")
    print(given.out)
    return DONE


def merge_command(given: argparse.Namespace) -> int:
    """Write the sum of the FILEs as OUT."""
    from studio.adapters import merge, read_adapter, write_adapter

    if len(given.files) < 2:
        raise ConfigError("Merging needs two adapters or more, and the file to write last.")
    pairs = [named_adapter(text, Workspace.open(given.workspace)) for text in given.files]
    files = [read_adapter(path) for path, _ in pairs]
    if len({file.layout for file in files}) > 1:
        raise AdapterError("The adapters are in different layouts: convert one of them first.")
    layers, error = merge([(file.layers, strength) for file, (_, strength) in zip(files, pairs)], given.rank)
    said = {"modelspec.merged_from": ", ".join(f"{file.name}:{s:g}" for file, (_, s) in zip(files, pairs))}
    write_adapter(given.out, layers, files[0].layout, said)
    if given.rank:
        say(f"Cutting to rank {given.rank} changed the sum by {100 * error:.2f} %.")
    print(given.out)
    return DONE


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
        raise AdapterError(f"The strength after the colon must be an ordinary number (you gave {tail!r}).")
    return _named_file(name, workspace), strength


def _named_file(name: str, workspace: Workspace) -> Path:
    for path in (Path(name).expanduser(), workspace.runs / name / "adapter.safetensors"):
        if path.is_file():
            return path
    raise AdapterError(f"There is no adapter {name}: give a .safetensors file or the name of a finished run.")
