"""Extremes: every operation with values that nobody types in every argument, and in every key of its tables.

python -m tests.chaos.extremes [--only OPERATION ...] [--values 3] [--parts 2]

In processes of their own, whose memory is capped; "starter" is a copy whose U-Net is tiny there, since it does not
matter what an image shows. Each call must answer, or be refused in one sentence, within 20 s of
the processor, and take at most 1 GB more than the idle process (resident, at its peak); the job that it begins has to
stop when it is asked to. Prints a table.

Some operations take the same tables as another: these get a FEW of the values inside them, unless `--all` is given.
Whatever `check_settings` refuses in a table, `start_training` refuses by the same function before it begins, so that
only what is accepted there is started and queued, once a setting. Not started: `training.compile`, during which torch
can't be interrupted (a public studio forbids it).
"""

import argparse
import logging
import math
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.children import Child, Say
from tests.chaos.starving import little_memory
from tests.small_starter import instead, make

SECONDS, GROWTH, CAP = 20.0, 10**9, 6 * 10**9  # of a call; bytes over idle; of address space over idle
VALUES: list[Any] = [
    0, -1, 10**9, 1e308, math.nan, "NaN", "", None, [], [0] * 2000, [[[]]], {}, True, "x" * 4000, "9" * 4000,
    "é" * 4000, "BREAK " * 660, "a, " * 1333, "(" * 4000,
]  # fmt: skip
NAMES = ["0", "-1", "1e9", "1e308", "NaN", '"NaN"', '""', "null", "lists and tables", "4,000 characters"]
GOOD: dict[str, Any] = {  # so that a call comes as far as the value that is tried
    "dataset": "set", "run": "run", "prompt": "a fish", "steps": 1, "captioner": "starter", "operation": "tidy",
    "adapter": "ink.safetensors", "file": "a.png", "rank": 2, "seeds": 1, "remedy": "x", "image": "own.png",
    "axes": [{"kind": "seed", "text": "1-2"}], "key": "x", "by": 1, "runs": ["run"], "place": "x", "base": "starter",
    "files": ["a.png"], "captioners": ["starter"], "width": 64, "height": 64, "word": "zsk", "words": "fish",
    "name": "made",
}  # fmt: skip
FEW = [-1, 1e308, math.nan, None, "NaN"]
SAME = (
    "draw_grid",
    "measure_adapter",
    "export_adapters",
    "layer_table",
    "inspect_adapter",
    "timestep_histogram",
)  # as generate or merge_adapters
BEGIN = "start_training", "queue_training"
TRAINS = ("start_training", "queue_training", "check_settings")  # their `more` is a run's, others' is a recipe's
LIGHT = ("check_dataset", "list_images", "edit_captions", "save_caption", "move_in_queue", "open_dataset",
         "mend_dataset", "note_run", "compare_runs", "run_status", "image_recipe")  # fmt: skip


@dataclass
class Tried:
    """What became of the calls with one kind of value."""

    calls: int = 0
    refused: int = 0
    most: int = 0  # bytes over idle
    longest: float = 0.0  # seconds
    broke: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Tried") -> None:
        self.calls, self.refused = self.calls + other.calls, self.refused + other.refused
        self.most, self.longest = max(self.most, other.most), max(self.longest, other.longest)
        self.broke += other.broke


def arguments(name: str, values: Sequence[Any], every: bool = False) -> Iterator[tuple[dict[str, Any], Any, str]]:
    """(arguments, the value that is tried, where) of every call of one operation."""
    from studio.services.operations import all_operations

    fields = all_operations()[name].fields
    usual = {key: GOOD[key] for key in fields if key in GOOD}
    usual |= {"adapters": ["ink.safetensors"] * 2} if "adapters" in fields and fields["adapters"].is_required() else {}
    usual |= {"more": {"preview.every": 0, "validation.every": 0}} if name in TRAINS else {}
    yield usual, 0, "as it is meant"
    for key in fields:
        for value in values:
            yield usual | {key: value}, value, key
            if every or name not in SAME or any(value is one for one in FEW):
                for inside, where in tables(name, key, value):
                    if every or name not in BEGIN or _is_new(name, key, inside, where):
                        yield usual | {key: inside}, value, where


_started: set[str] = set()


def _is_new(name: str, key: str, table: Any, where: str) -> bool:
    """Whether this is the first value of a setting of a run that is accepted."""
    from pydantic import ValidationError

    from studio.errors import StudioError
    from studio.training.config import config_from

    if key != "more" or not isinstance(table, dict):
        return True
    if name + where in _started or where.endswith("training.compile"):
        return False
    try:
        config_from({"data.folder": "set", "name": "made"} | table)
    except (StudioError, ValidationError, ValueError):
        return False
    _started.add(name + where)
    return True


def tables(name: str, key: str, value: Any) -> Iterator[tuple[Any, str]]:
    """(a table or list with the value in it, where) for the parameters that take one."""
    from studio.generation import Recipe
    from studio.schema import settings
    from studio.training.config import RunConfig

    if key == "more" and name in TRAINS:
        usual = {"preview.every": 0, "validation.every": 0}
        yield from ((usual | {one.name: value}, f"more: {one.name}") for one in settings(RunConfig))
    elif key == "more":
        yield from (({one: value}, f"more: {one}") for one in Recipe.model_fields)
    elif key in ("adapters", "adapter", "compare"):
        for one in ("file", "run", "strength", "text_strength", "start", "end", "blocks"):
            entry = {"file": "ink.safetensors", one: value}
            yield (entry if key == "adapter" else [entry] * (2 if name == "merge_adapters" else 1)), f"{key}: {one}"
    elif key == "axes":
        for one in ("kind", "text", "picks", "which"):
            yield [{"kind": "seed", "text": "1-2", one: value}], f"axes: {one}"
        for kind in ("strength", "words", "steps", "guidance", "width", "clip_skip", "prompt"):
            yield [{"kind": kind, "text": value}], f"axes: {kind}"
    elif key == "filter":
        for one in ("has", "lacks", "pattern", "words", "smaller_than", "at_least", "captioned", "name"):
            yield {one: value}, f"filter: {one}"
    elif key in ("files", "runs", "captioners", "settings"):
        yield ([value] if key != "settings" else {"model": value, "threshold": value}), f"{key}: inside"


def name_of(value: Any) -> str:
    """The row of the table."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    if isinstance(value, list | dict | bool):
        return "lists and tables"
    if isinstance(value, str) and len(value) > 1000:
        return "4,000 characters"
    return {0: "0", -1: "-1", 10**9: "1e9", 1e308: "1e308", "NaN": '"NaN"', "": '""', None: "null"}[value]


class Logged(logging.Handler):
    """What the log says of errors, tracebacks by their last line."""

    def __init__(self, level: int):
        super().__init__(level)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.lines.append(f"logged {record.getMessage()[:100]} {error!r:.200}")


class Caller:
    """Calls operations in a workspace of its own, and measures them."""

    def __init__(self, root: Path):
        from studio.workspace import Workspace

        self.workspace = Workspace.open(root)
        _furnish(self.workspace)
        self.tried = {name: Tried() for name in NAMES}
        self.idle, self.logged = 0, Logged(logging.ERROR)
        logging.getLogger().addHandler(self.logged)

    def call(self, name: str, given: dict[str, Any], value: Any, where: str) -> None:
        from studio.errors import user_message
        from studio.services.operations import all_operations

        row, operation = self.tried[name_of(value)], all_operations()[name]
        wrong, began = "", time.process_time()
        self.idle = max(self.idle, resident())
        forget_peak()
        try:
            answer = operation(self.workspace, **given)
            if hasattr(answer, "as_answer") and operation.waits:
                answer.wait()
        except Exception as error:
            line = user_message(error)
            row.refused += line is not None
            if line is None or "\n" in line or len(line) > 400:
                wrong = f"{type(error).__name__}: {str(error)[:200]}"
        seconds = time.process_time() - began
        wrong = self._end_jobs() or wrong or "".join(self.logged.lines[:1])
        self.logged.lines.clear()
        grown = peak() - self.idle
        row.calls, row.most, row.longest = row.calls + 1, max(row.most, grown), max(row.longest, seconds)
        if seconds > SECONDS:
            wrong = wrong or f"{seconds:.0f} s"
        if grown > GROWTH:
            wrong = wrong or f"{grown / 1e9:.1f} GB"
        if wrong:
            line = f"{name}, {where} = {str(value)[:40]!r}: {wrong}"
            row.broke[line] += 1
            print(f"BROKE {line}", file=sys.stderr, flush=True)

    def _end_jobs(self) -> str:
        """Stop what was begun, once it has had a moment to do harm; what is wrong with how it ends."""
        from studio.services.jobs import jobs

        begun = [job for job in jobs.everyone() if job.thread]
        for job in begun:
            with suppress(RuntimeError):  # it has not begun yet
                job.thread.join(0.3)  # type: ignore[union-attr]
            job.stop()
        until = time.process_time() + SECONDS
        while any(job.state == "running" for job in begun):
            if time.process_time() > until:
                return f"its job can't be stopped within {SECONDS:.0f} s"
            time.sleep(0.01)
        bugs = [job.error for job in begun if job.state == "failed" and job.error and "Error:" in job.error]
        return bugs[0] if bugs else ""


def _furnish(workspace: Any) -> None:
    """A dataset, a run, an image and an adapter, so that a call comes far."""
    from PIL import Image

    from studio.generation import Recipe, save_image
    from tests.adapters.test_hostile_adapter_files import good
    from tests.training.test_publishing import make

    (workspace.datasets / "set").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (64, 64), "teal").save(workspace.datasets / "set" / f"{name}.png")
        (workspace.datasets / "set" / f"{name}.txt").write_text("a fish, on a red background\n")
    make(workspace, "run")
    (workspace.adapters / "ink.safetensors").write_bytes(good())
    made = save_image(Image.new("RGB", (64, 64)), Recipe(prompt="a fish"), workspace.outputs)
    made.rename(made.with_name("own.png"))


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


def resident() -> int:
    return _status("VmRSS")


def peak() -> int:
    return _status("VmHWM")


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def walk(
    root: Path, names: Sequence[str], values: Sequence[Any], every: bool = False, parts: int = 1, small: bool = True
) -> dict[str, Tried]:
    """Every call of these operations, in forked children with little memory; {kind of value: what became of it}.

    parts: children at once, which share the operations. small: draw and train with a tiny U-Net.
    """
    base = make(root.with_name("base")) if small else None
    children = [
        Child(partial(_walk_part, root / str(part), names[part::parts], values, every, base)) for part in range(parts)
    ]
    told = {name: Tried() for name in NAMES}
    for ended in [one.end() for one in children]:
        if ended.how != "done":
            raise AssertionError(f"a process ended: {ended.how}")
        for name, row in ended.said[-1].items():
            told[name].add(Tried(**row | {"broke": Counter(row["broke"])}))
    return told


def _walk_part(
    root: Path, names: Sequence[str], values: Sequence[Any], every: bool, base: Path | None, say: Say
) -> None:
    import torch

    torch.set_num_threads(1)
    caller = Caller(root)
    with little_memory(CAP), instead(base) if base else nullcontext():
        if not set(names) <= set(LIGHT):  # the base and its libraries are read once
            caller.call("generate", {"prompt": "a fish", "steps": 1, "width": 64, "height": 64}, 0, "first")
        caller.idle, caller.tried = resident(), {name: Tried() for name in NAMES}
        for name in names:
            began, calls = time.monotonic(), 0
            for given, value, where in arguments(name, values, every):
                caller.call(name, given, value, where)
                calls += 1
            print(f"{name}: {calls:,} calls, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    say({name: vars(row) for name, row in caller.tried.items()})


def all_names() -> list[str]:
    from studio.services.operations import all_operations

    return [name for name in all_operations() if name not in ("download_base", "publish_run")]  # they ask the hub


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[], help="names of operations")
    parser.add_argument("--values", type=int, help="only so many of the values")
    parser.add_argument("--parts", type=int, default=2, help="processes at once")
    parser.add_argument("--all", action="store_true", help="also where another operation shows the same: an hour")
    given = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as root:
        tried = walk(
            Path(root) / "workspace", given.only or all_names(), VALUES[: given.values], given.all, given.parts
        )
    print("| value | calls | refused in a line | most memory over idle | longest | broke |\n" + "| --- " * 6 + "|")
    for name, row in tried.items():
        print(f"| {name} | {row.calls:,} | {row.refused:,} | {row.most / 1e6:.0f} MB | {row.longest:.1f} s "
              f"| {row.broke.total()} |")  # fmt: skip
    for row in tried.values():
        for line, many in row.broke.items():
            print(f"BROKE {many} x {line}", file=sys.stderr)
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    return int(any(row.broke for row in tried.values()))


if __name__ == "__main__":
    sys.exit(main())
