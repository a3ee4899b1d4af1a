"""A run on 5,000 images: python -m tests.benchmarks.large_set [--images 5000] [--side 512]

Makes images of noise-like gradients as JPEG in a temporary folder, then prints: how fast the cache is built beside
plain Pillow decoding of the same files on as many threads (the floor), how long a run with a warm cache takes to its
first step, and the process's memory on a few images and on all.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

FEW = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--run", type=Path, nargs=2, metavar=("DATA", "WORKSPACE"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        return one_run(*given.run)
    with tempfile.TemporaryDirectory() as folder:
        few, many = Path(folder) / "few", Path(folder) / "many"
        make(few, FEW, given.side)
        make(many, given.images, given.side)
        floor = decoding(many)
        print(f"Pillow alone: {given.images / floor:.0f} images/s ({floor:.1f} s)")
        for title, data in (("few, cold", few), ("many, cold", many), ("many, warm", many)):
            print(f"{title:12}", measured(data, Path(folder) / "workspace"))


def make(folder: Path, count: int, side: int) -> None:
    """JPEG files of several shapes, each with a caption."""
    folder.mkdir()
    chance = np.random.default_rng(0)
    for number in range(count):
        width, height = ((side, side), (side * 5 // 4, side * 4 // 5), (side * 4 // 5, side * 5 // 4))[number % 3]
        coarse = chance.integers(0, 255, (9, 9, 3), np.uint8)
        image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05}.jpg", quality=90)
        (folder / f"{number:05}.txt").write_text(f"image {number % 50}, a gradient")


def decoding(folder: Path) -> float:
    """Seconds that Pillow needs to decode all files, and cut each to 128 pixels, on every core."""

    def decode(path: Path) -> None:
        with Image.open(path) as image:
            image.convert("RGB").resize((128, 128), Image.Resampling.LANCZOS)

    began = time.monotonic()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(decode, sorted(folder.glob("*.jpg"))))
    return time.monotonic() - began


def measured(data: Path, workspace: Path) -> str:
    """What a run in a process of its own says of itself."""
    command = [sys.executable, "-m", "tests.benchmarks.large_set", "--run", str(data), str(workspace)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def one_run(data: Path, root: Path) -> None:
    """Train two steps and print seconds to the first event, to the cache, to the first step, and the memory."""
    from studio.training import config_from, train
    from studio.workspace import Workspace, free_path

    workspace = Workspace.open(root)
    name = free_path(workspace.runs, data.name).name
    changes = {"name": name, "data.folder": str(data), "training.steps": 2, "preview.every": 0, "validation.every": 0}
    began, prepared, encoded, peak = time.monotonic(), 0.0, 0, 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, psutil.Process().memory_info().rss / 1e9)

    threading.Thread(target=watch, daemon=True).start()
    first = 0.0
    for event in train(config_from(changes), workspace):
        kind, now = type(event).__name__, time.monotonic() - began
        if kind == "Preparing":
            first = first or now
            encoded, prepared = event.total, now
        if kind == "Step" and event.step == 1:
            built = f"{encoded} encoded, {encoded / max(0.01, prepared - first):.0f}/s; " if encoded else ""
            print(f"{built}first step after {now:.1f} s; {peak:.2f} GB at the most")
            break
    ended.set()


if __name__ == "__main__":
    main()
