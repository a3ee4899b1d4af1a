"""Runs on the starter whose outcome is known by how they are made. See `tests.benchmarks.verdicts`."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from studio.training.scorecard import verdict as v
from studio.workspace import ASSETS

SETS = ASSETS / "datasets"
TRIGGER = "zsk"
OTHER_NAMES = ["spoon", "hat", "cow", "bell", "boat", "drum", "train", "leaf", "moon", "camera", "shirt", "bear"]


@dataclass(frozen=True)
class Plant:
    """style: the set it is made of. outcomes: the right answers. make: changes the copied folder, given the seed."""

    name: str
    style: str
    outcomes: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    make: Callable[[Path, int], None] = lambda folder, seed: None
    healthy: bool = False  # its best checkpoint is looked for, by held-out loss


def images_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def few(folder: Path, seed: int, count: int = 4) -> None:
    keep = random.Random(seed).sample(images_of(folder), count)
    for file in images_of(folder):
        if file not in keep:
            file.unlink()
            file.with_suffix(".txt").unlink()


def shuffled(folder: Path, seed: int) -> None:
    files = images_of(folder)
    words = [file.with_suffix(".txt").read_text("utf-8") for file in files]
    turn = 1 + random.Random(seed).randrange(len(files) - 1)
    for place, file in enumerate(files):
        file.with_suffix(".txt").write_text(words[(place + turn) % len(files)], "utf-8")


def wrong(folder: Path, seed: int) -> None:
    draw = random.Random(seed)
    for file in images_of(folder):
        colour = draw.choice(["red", "green", "yellow", "cyan", "pink", "white", "orange", "gray"])
        file.with_suffix(".txt").write_text(f"{draw.choice(OTHER_NAMES)}, on a {colour} background", "utf-8")


def trigger_only(folder: Path, seed: int) -> None:
    for file in images_of(folder):
        file.with_suffix(".txt").write_text(TRIGGER, "utf-8")


def empty(folder: Path, seed: int) -> None:
    for file in images_of(folder):
        file.with_suffix(".txt").write_text("", "utf-8")


def one_caption(folder: Path, seed: int) -> None:
    for file in images_of(folder):
        file.with_suffix(".txt").write_text("moody cat", "utf-8")


def one_wrong(folder: Path, seed: int) -> None:
    files = images_of(folder)
    one, other = random.Random(seed).sample(files, 2)
    one.with_suffix(".txt").write_text(other.with_suffix(".txt").read_text("utf-8"), "utf-8")


def doubled(folder: Path, seed: int) -> None:
    few(folder, seed, 12)
    for file in images_of(folder):
        shutil.copy(file, file.with_name(f"{file.stem}-copy.png"))
        shutil.copy(file.with_suffix(".txt"), file.with_name(f"{file.stem}-copy.txt"))


def half_corrupt(folder: Path, seed: int) -> None:
    draw = np.random.default_rng(seed)
    files = images_of(folder)
    for file in random.Random(seed).sample(files, len(files) // 2):
        side = Image.open(file).size
        Image.fromarray(draw.integers(0, 256, (side[1], side[0], 3), dtype=np.uint8)).save(file)


def by_the_base(folder: Path, seed: int) -> None:
    """The captions' images, drawn by the base itself: there is nothing to learn."""
    from studio.basemodels import load_base
    from studio.generation import Recipe, draw

    base = load_base("starter")
    few(folder, seed, 12)
    for place, file in enumerate(images_of(folder)):
        prompt = file.with_suffix(".txt").read_text("utf-8").strip()
        draw(base, Recipe(prompt=prompt, seed=900 + 50 * seed + place, steps=15)).save(file)


SHORT, LONG, USUAL = {"training.steps": 8}, {"training.steps": 120}, {"training.steps": 60}
HOT = {"training.steps": 24, "training.learning_rate": 0.02}
COLD = {"training.steps": 24, "training.learning_rate": 1e-7}
NO_WORD = {"data.trigger": ""}
SAME = {"validation.fraction": 0.25, "data.held_out": ""}  # held out of the same folder, with its faults
CAT = {"data.trigger": "", "validation.fraction": 0.25, "data.held_out": ""}
HOT_LONG = LONG | {"training.learning_rate": 3e-3, "training.schedule": "constant"}

PLANTS = (
    Plant("silhouette rate too high", "silhouette", (v.BROKEN,), HOT),
    Plant("silhouette too short", "silhouette", (v.UNFINISHED,), SHORT),
    Plant("silhouette rate too low", "silhouette", (v.NOTHING,), COLD),
    Plant("pixel shuffled captions", "pixel", (v.CAPTIONS,), USUAL | SAME, shuffled),
    Plant("silhouette four, too long", "silhouette", (v.OVERFITTED, v.MEMORIZED), HOT_LONG, few),
    Plant("pixel trigger on everything", "pixel", (v.COLLAPSED, v.ONE_CAPTION), USUAL | SAME, trigger_only),
    Plant("known already", "silhouette", (v.KNOWN,), {"training.steps": 40} | SAME | NO_WORD, by_the_base),
    Plant("pixel wrong captions", "pixel", (v.CAPTIONS,), USUAL | SAME, wrong),
    Plant("silhouette half corrupt", "silhouette", (v.IMAGES,), USUAL | SAME, half_corrupt),
    Plant("silhouette good", "silhouette", (v.LEARNED, v.PARTLY), USUAL, healthy=True),
    Plant("pixel good", "pixel", (v.LEARNED, v.PARTLY), USUAL, healthy=True),
    Plant("cat good", "moody-cat", (v.LEARNED, v.PARTLY), USUAL | CAT, healthy=True),
    Plant("cat one caption", "moody-cat", (v.ONE_CAPTION,), USUAL | CAT, one_caption),
    Plant("pixel too short", "pixel", (v.UNFINISHED,), SHORT),
    Plant("pixel rate too high", "pixel", (v.BROKEN,), HOT),
    Plant("cat rate too high", "moody-cat", (v.BROKEN,), HOT | CAT),
    Plant("pixel rate too low", "pixel", (v.NOTHING,), COLD),
    Plant("pixel four, too long", "pixel", (v.OVERFITTED, v.MEMORIZED), HOT_LONG, few),
    Plant("silhouette wrong captions", "silhouette", (v.CAPTIONS,), USUAL | SAME, wrong),
    Plant("silhouette shuffled captions", "silhouette", (v.CAPTIONS,), USUAL | SAME, shuffled),
    Plant("silhouette empty captions", "silhouette", (v.COLLAPSED, v.ONE_CAPTION), USUAL | SAME | NO_WORD, empty),
    Plant("silhouette one mislabelled", "silhouette", (v.LEARNED, v.PARTLY), USUAL, one_wrong, healthy=True),
    Plant("pixel duplicates", "pixel", (v.LEARNED, v.PARTLY), USUAL, doubled, healthy=True),
)
