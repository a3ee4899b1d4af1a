"""A long life: one run of many steps with previews and checkpoints, then many images with adapters that come and go.

python -m tests.chaos.long [--steps 20000] [--images 2000]

Everything happens in one process, as in the studio. Its memory is read along the way; exit code 1 when what it holds at
the end is more than a tenth above what it held after the first tenth.
"""

import argparse
import gc
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import Recipe, generate
from studio.training import config_from, train
from studio.training.events import Step
from studio.workspace import ASSETS, Workspace

PARTS, FILES, GROWTH = 10, 12, 1.10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--images", type=int, default=2_000)
    given = parser.parse_args()
    flat = True
    with tempfile.TemporaryDirectory() as root:
        workspace = Workspace.open(Path(root))
        print("| | " + " | ".join(f"{10 * part} %" for part in range(1, PARTS + 1)) + " | minutes |")
        print("| --- |" + " --- |" * (PARTS + 1))
        parts = {"steps": (steps(workspace, given.steps), given.steps)}
        parts["images"] = (images(Path(root), given.images), given.images)
        for name, (work, many) in parts.items():
            began, held = time.monotonic(), [megabytes() for _ in _tenths(work, many)]
            row = " | ".join(f"{number:,.0f}" for number in held)
            print(f"| MB in {many:,} {name} | {row} | {(time.monotonic() - began) / 60:.1f} |", flush=True)
            flat = flat and held[-1] < GROWTH * held[0]
    return 0 if flat else 1


def steps(workspace: Workspace, many: int) -> Iterator[None]:
    """A run on the starter; one item a step."""
    settings = {
        "name": "long", "data.folder": str(ASSETS / "datasets" / "silhouette"), "training.steps": many,
        "training.batch_size": 1, "adapter.rank": 8, "training.checkpoint_every": max(1, many // 100),
        "preview.every": max(1, many // 100), "preview.steps": 4, "validation.every": max(1, many // 40),
    }  # fmt: skip
    for event in train(config_from(settings), workspace):
        if isinstance(event, Step):
            yield


def images(folder: Path, many: int) -> Iterator[None]:
    """One item an image; each has one or two adapters, whose files are now and then new ones."""
    base = load_base("starter")
    made = attach(base.model, AdapterSpec(rank=4, targets="attention"))
    first = folder / "first.safetensors"
    made.save(first)
    made.detach()
    for number in range(many):
        files = []
        for place in range(1 + number % 2):
            file = folder / f"adapter-{(number // 5 + place) % FILES}.safetensors"
            if number % 5 == 0 or not file.exists():
                file.unlink(missing_ok=True)
                shutil.copy(first, file)
            files.append((file, 0.1 + number % 7 / 10))
        recipe = Recipe(prompt="red apple", seed=number, steps=1, width=64, height=64, adapters=tuple(files))
        generate(recipe)
        yield


def megabytes() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


def _tenths(work: Iterator[None], many: int) -> Iterator[int]:
    """Once each tenth of the way."""
    for number, _ in enumerate(work, 1):
        if number * PARTS // many > (number - 1) * PARTS // many:
            yield number


if __name__ == "__main__":
    sys.exit(main())
