"""What must hold on an accelerator, each tried on a family at tiny size with random weights.

A check gets a `Place` and raises AssertionError with figures, or `NotTried` with the reason.
"""

import gc
import importlib.util
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from studio import devices
from studio.basemodels import load_base, loading
from studio.errors import BaseModelError
from studio.generation import Recipe, draw
from studio.training import train_step
from studio.training.events import ExportChecked, Finished, Step, Warned
from tests.basemodels import tiny
from tests.benchmarks.half_precision import BOUND, discs
from tests.devices.runs import run

TINY = Recipe(prompt="red apple", seed=1, steps=2, width=64, height=64, guidance=3.0)
SAME = 1e-3  # of a loss in fp32: another order of summation
PIXELS = 2.0  # steps of 1/255, mean over the image
FP8 = torch.float8_e4m3fn


class NotTried(Exception):
    """Why a check has no meaning here."""


@dataclass
class Place:
    """Where a family is tried. `here` holds what the CPU gave."""

    family: str
    folder: Path
    images: Path
    device: torch.device
    pretend: bool
    runs: int = 0
    here: dict = field(default_factory=dict)

    def losses(self, base: str = "", **more) -> list[float]:
        """Of a run of three steps that ends well."""
        self.runs += 1
        given = {"training.steps": 3, "training.batch_size": 4, "adapter.targets": "attention", **more}
        events = run(base or self.folder, self.images, self.folder.parent / f"{self.family}-{self.runs}", **given)
        assert isinstance(events[-1], Finished), str(events[-1])
        proof = next(event for event in events if isinstance(event, ExportChecked))
        assert proof.difference <= PIXELS and not proof.unused, proof.message
        self.warnings = [event.message for event in events if isinstance(event, Warned)]
        return [event.loss for event in events if isinstance(event, Step)]

    def image(self, base: str = "", precision: str = "fp32") -> Image.Image:
        return draw(load_base(base or str(self.folder), shared=False, precision=precision), TINY)


def prepare(family: str, at: Path, device: torch.device, pretend: bool) -> Place:
    """Make the tiny model, and let the CPU train and draw it: call this where there is no accelerator yet."""
    images = at / "images"
    place = Place(family, tiny.save(family, at), images if images.is_dir() else discs(images), device, pretend)
    place.here = {"losses": place.losses(), "image": place.image()}
    forget()
    return place


def forget() -> None:
    """No base stays in memory."""
    loading._last.clear()
    loading._shared.clear()
    gc.collect()
    devices.empty_cache()


def near(found: list[float], wanted: list[float], bound: float) -> None:
    away = max(abs(one - other) / abs(other) for one, other in zip(found, wanted, strict=True))
    assert away <= bound, f"losses {away:.2%} apart, more than {bound:.2%}"


def alike(found: Image.Image, wanted: Image.Image, bound: float = PIXELS) -> None:
    away = float(np.abs(np.asarray(found, np.float32) - np.asarray(wanted, np.float32)).mean())
    assert away <= bound, f"images {away:.2f} of 255 apart, more than {bound:g}"


def trains(place: Place) -> None:
    """Trains as the CPU does, in fp32"""
    near(place.losses(), place.here["losses"], SAME)


def draws(place: Place) -> None:
    """Draws as the CPU does, in fp32"""
    alike(place.image(), place.here["image"])


def half(place: Place) -> None:
    """Trains in the device's half precision near fp32"""
    precision = devices.default_precision(place.device)
    if precision == "fp32":
        raise NotTried("the device has none that is used by default")
    near(place.losses(**{"training.precision": precision}), place.here["losses"], BOUND[precision])


def everything(place: Place) -> None:
    """Trains text encoders with DoRA, EMA, masks, validation and previews"""
    text = place.family != "z-image"
    place.losses(
        **{
            "adapter.kind": "dora", "adapter.text_encoder": text, "training.ema": 0.9, "data.masks": True,
            "validation.every": 2, "validation.fraction": 0.25, "preview.every": 3, "preview.steps": 1,
        }
    )  # fmt: skip


def offloads(place: Place) -> None:
    """Trains and draws with blocks fetched from main memory"""
    base = f"{place.folder}?offload=true"
    alike(place.image(base), place.here["image"])
    near(place.losses(base), place.here["losses"], SAME)


def eight_bits(place: Place) -> None:
    """Trains a base in 8 bits"""
    if importlib.util.find_spec("torchao") is None:
        raise NotTried("torchao is not installed")
    near(place.losses(f"{place.folder}?quantise=8bit"), place.here["losses"], 0.1)


def four_bits(place: Place) -> None:
    """Trains a base in 4 bits"""
    if not devices.supports_bitsandbytes(place.device) or importlib.util.find_spec("bitsandbytes") is None:
        raise NotTried("bitsandbytes is not there for this device")
    try:
        near(place.losses(f"{place.folder}?quantise=4bit"), place.here["losses"], 0.3)
    except BaseModelError as error:
        raise NotTried(str(error)) from error


def eight_bit_floats(place: Place) -> None:
    """Draws with the denoiser stored in fp8 and cast layer by layer"""
    base = load_base(str(place.folder), shared=False, precision="fp32")
    base.model.enable_layerwise_casting(storage_dtype=FP8, compute_dtype=torch.float32)
    stored = {p.dtype for p in base.model.parameters()}
    assert FP8 in stored, f"nothing is stored in fp8: {stored}"
    pixels = np.asarray(draw(base, TINY), np.float32)
    assert np.isfinite(pixels).all() and pixels.std() > 0


def compiles(place: Place) -> None:
    """Trains with compiled blocks"""
    if place.pretend:
        raise NotTried("torch.compile has no kernels for the pretend device")
    near(place.losses(**{"training.compile": True}), place.here["losses"], SAME)


def goes_on_in_pieces(place: Place) -> None:
    """Goes on in smaller pieces when memory runs out"""
    with at_most(2):
        near(place.losses(), place.here["losses"], SAME)
    assert any("Memory ran out with 4 images" in line for line in place.warnings), place.warnings


@contextmanager
def at_most(images: int):
    """A step through more images at once is out of memory."""
    whole = train_step.loss_of

    def loss_of(base, latents, *more, **rest):
        if len(latents) > images and latents.requires_grad is False and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("planted: out of memory.")
        return whole(base, latents, *more, **rest)

    train_step.loss_of = loss_of
    try:
        yield
    finally:
        train_step.loss_of = whole


CHECKS: dict[str, Callable[[Place], None]] = {
    "train": trains,
    "draw": draws,
    "half": half,
    "everything": everything,
    "offload": offloads,
    "8bit": eight_bits,
    "4bit": four_bits,
    "fp8": eight_bit_floats,
    "compile": compiles,
    "memory": goes_on_in_pieces,
}
