"""Runs in bf16 and fp16 against fp32, at tiny size with random weights: how far the losses are apart.

python -m tests.benchmarks.half_precision [FAMILY]... [--steps N]

The device is the machine's own, a CPU where there is no other. Every run draws the same images, noise and timesteps.
"""

import argparse
import contextlib
import io
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageDraw

from studio import devices
from studio.training.events import RolledBack, Step
from tests.basemodels import tiny
from tests.devices.runs import run

FAMILIES = ("sd1", "sdxl", "sd3", "flux-dev", "z-image")
BOUND = {"bf16": 0.03, "fp16": 0.01}  # of the fp32 loss, at any step: rounding of 8 and of 11 bits through tiny models


@dataclass(frozen=True)
class Apart:
    """A half-precision run beside the one in fp32, as shares of the fp32 loss."""

    most: float
    last: float
    finite: bool  # all losses, and no step was taken back
    denoiser: torch.dtype
    vae: torch.dtype


def losses_of(base: Path, images: Path, at: Path, precision: str, steps: int) -> tuple[list[float], bool, list]:
    """(losses, whether all went well, dtypes of denoiser and VAE)."""
    dtypes: list = []

    def watch(event, family):
        if isinstance(event, Step):
            dtypes[:] = [family.model.dtype, family.pipeline.vae.dtype]

    more = {"training.precision": precision, "training.steps": steps, "training.learning_rate": 1e-2}
    events = run(base, images, at, watch, **more)
    found = [event.loss for event in events if isinstance(event, Step)]
    fine = all(map(math.isfinite, found)) and not any(isinstance(event, RolledBack) for event in events)
    return found, fine, dtypes


def compare(base: Path, images: Path, at: Path, steps: int) -> Iterator[tuple[str, Apart]]:
    """(precision, how it went) of bf16 and fp16."""
    whole, fine, _ = losses_of(base, images, at / "fp32", "fp32", steps)
    for precision in BOUND:
        found, well, (denoiser, vae) = losses_of(base, images, at / precision, precision, steps)
        away = [abs(one - other) / other for one, other in zip(found, whole, strict=True)]
        yield precision, Apart(max(away), away[-1], fine and well, denoiser, vae)


def discs(folder: Path) -> Path:
    """Four images with captions."""
    folder.mkdir(parents=True)
    for number, colour in enumerate(["red", "green", "blue", "white"]):
        image = Image.new("RGB", (64, 64), colour)
        ImageDraw.Draw(image).ellipse((8 * number, 8, 60, 50), fill="yellow")
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{colour}, a yellow disc")
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("families", nargs="*", metavar="FAMILY", default=list(FAMILIES), help=", ".join(tiny.MAKERS))
    parser.add_argument("--steps", type=int, default=8)
    given = parser.parse_args()
    print(f"{devices.device_name(devices.best_device())}, {given.steps} steps; loss apart from fp32's")
    print("| tiny model | precision | at most | last step | non-finite | VAE |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = discs(folder / "images")
        for name in given.families:
            with contextlib.redirect_stderr(io.StringIO()):
                base = tiny.save(name, folder)
            for precision, apart in compare(base, images, folder / f"runs-{name}", given.steps):
                vae = str(apart.vae).removeprefix("torch.")
                row = (
                    name,
                    precision,
                    f"{apart.most:.2%}",
                    f"{apart.last:.2%}",
                    "none" if apart.finite else "SOME",
                    vae,
                )
                print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
