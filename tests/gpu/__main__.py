"""Everything that a machine with a GPU has to show, in one command; writes docs/gpu.md.

python -m tests.gpu [--pretend] [--families sd1 sdxl …] [--checks train draw …] [--no-tables] [--out FILE]

First the checks, each family at tiny size against the CPU. Then, on a real device alone, the tables: SD 1.5 and SDXL at
their true shape with random weights, beside diffusers with peft and the floor; small steps, also compiled and in CUDA
graphs; and drawing with adapters. `--pretend` runs the checks on the pretend device of tests/devices, which any machine
has, and writes a file only where --out says.
"""

import argparse
import contextlib
import datetime
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path

import torch

from studio import devices
from studio.training import export_check
from tests.basemodels.tiny import MAKERS
from tests.gpu.checks import CHECKS, NotTried, Place, forget, prepare

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "gpu.md"
SHAPES = [(side, batch) for side in (512, 1024) for batch in (1, 4)]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--pretend", action="store_true", help="on the pretend device: no GPU is needed")
    parser.add_argument("--families", nargs="+", choices=list(MAKERS), default=list(MAKERS), metavar="FAMILY")
    parser.add_argument("--checks", nargs="+", choices=list(CHECKS), default=list(CHECKS), metavar="CHECK")
    parser.add_argument("--no-tables", action="store_true", help="checks alone")
    parser.add_argument("--out", type=Path, help="the page; docs/gpu.md where a real device was tried")
    given = parser.parse_args()
    if not given.pretend and devices.accelerator() is None:
        print("There is no GPU on this machine: --pretend runs the checks without one.", file=sys.stderr)
        return 2
    export_check.STEPS = 1
    found = {family: checked(family, given.checks, given.pretend) for family in given.families}
    with device_of(given.pretend) as device:
        name = devices.device_name(device)
    tables = "" if given.pretend or given.no_tables else measured()
    out = given.out or (None if given.pretend else PAGE)
    if out:
        out.write_text(page(name, found, given.checks, tables), "utf-8")
    failed = [result for results in found.values() for result in results.values() if result.startswith("✗")]
    print(f"{len(failed)} failed" if failed else "All passed.")
    return bool(failed)


@contextlib.contextmanager
def device_of(pretend: bool):
    """The device to be tried."""
    if not pretend:
        yield devices.best_device()
        return
    from tests.devices.second_device import NAME
    from tests.devices.second_device import pretend as second

    with second():
        yield torch.device(NAME)


@contextlib.contextmanager
def on_the_cpu():
    """As if there were no accelerator."""
    whole = devices.accelerator
    devices.accelerator = lambda: None
    try:
        yield
    finally:
        devices.accelerator = whole


def checked(family: str, checks: list[str], pretend: bool) -> dict[str, str]:
    """{check: "✓", "✗ why" or "– why it was not tried"}, printed as they come."""
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as temporary:
        with on_the_cpu():
            place = prepare(family, Path(temporary), torch.device("cpu"), pretend)
        for check in checks:
            with device_of(pretend) as place.device:
                found[check] = result(check, place)
                forget()
            print(f"{family:14}{check:12}{found[check]}", flush=True)
    return found


def result(check: str, place: Place) -> str:
    try:
        CHECKS[check](place)
        return "✓"
    except NotTried as error:
        return f"– {error}"
    except Exception as error:  # whatever a device throws is what is looked for
        traceback.print_exc()
        line = str(error).strip().splitlines()
        return f"✗ {type(error).__name__}: {line[0][:200] if line else ''}"


def measured() -> str:
    """The tables, each as the benchmark prints it, below its command."""
    commands = [
        ["tests.benchmarks.shapes", "sd1", "sdxl", "--precision", "bf16", "--side", str(side), "--batch", str(batch)]
        + ["--steps", "20", "--variants", "floor", "peft", "ours"]
        for side, batch in SHAPES
    ]
    small = ["--precision", "fp32", "--steps", "100", "--variants", "floor", "peft", "ours", "ours compiled"]
    commands += [["tests.benchmarks.shapes", "starter", "--batch", batch, *small, "ours in graphs"] for batch in "14"]
    commands.append(["tests.benchmarks.drawing"])
    parts = []
    for command in commands:
        line = "python -m " + " ".join(command)
        print(line, flush=True)
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, cwd=ROOT, env=os.environ
        )
        text = done.stdout if not done.returncode else done.stdout + done.stderr[-500:]
        parts.append(f"`{line}`\n\n```text\n{text.strip()}\n```")
    return "\n\n".join(parts)


def page(name: str, found: dict[str, dict[str, str]], checks: list[str], tables: str) -> str:
    """docs/gpu.md."""
    rows = ["| check | " + " | ".join(found) + " |", "| --- |" + " --- |" * len(found)]
    notes: list[str] = []
    for check in checks:
        cells = []
        for results in found.values():
            sign, _, why = results[check].partition(" ")
            cells.append(sign)
            if why and f"{check}: {why}" not in notes:
                notes.append(f"{check}: {why}")
        rows.append(f"| {CHECKS[check].__doc__} | " + " | ".join(cells) + " |")
    about = f"Made by `python -m tests.gpu` on {name}, torch {torch.__version__}, {datetime.date.today()}."
    listed = "\n".join(f"- {note}" for note in notes)
    return (
        "\n\n".join(
            filter(None, ["# On a GPU", about, "\n".join(rows), listed, "## Figures" if tables else "", tables])
        )
        + "\n"
    )


if __name__ == "__main__":
    sys.exit(main())
