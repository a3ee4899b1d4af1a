"""Masks made by a model that finds the main thing of an image: rembg's, an extra (pip install "lora-studio[masks]")."""

import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops

from studio.datasets.dataset import Dataset, Item
from studio.datasets.masks import write_masks
from studio.errors import DatasetError, lacking, out_of_memory

MISSING = 'Masks by a model need the package rembg, which is not installed: pip install "lora-studio[masks]".'
ENOUGH = 2048  # pixels a side; the models look at 1024 and less


def is_installed() -> bool:
    """Whether rembg is there; it is not imported for that, which takes seconds."""
    from importlib.util import find_spec

    return find_spec("rembg") is not None


class MaskMaker:
    """A model of rembg, loaded. download: fetch it where it is not on this machine; without it nothing is fetched.

    Raises DatasetError where rembg or the model is missing, or can't be loaded.
    """

    def __init__(self, model: str, download: bool = False):
        self.model, rembg = model, _rembg()
        if not download and not _is_here(rembg, model):
            raise DatasetError(
                f"The mask model {model} is not on this machine: allow the download, or choose one that is."
            )
        try:
            self.session = rembg.new_session(model)
        except Exception as error:  # a broken file, no connection: pooch, requests and ONNX Runtime raise their own
            raise DatasetError(f"The mask model {model} can't be loaded: {_first_line(error)}.") from error
        self._remove = rembg.remove

    def mask(self, image: Image.Image) -> Image.Image:
        """The grey mask of an RGB image, of the image's size: white on the main thing. Raises DatasetError."""
        try:
            found = self._remove(image, session=self.session, only_mask=True)
            if not isinstance(found, Image.Image):
                raise TypeError(f"an answer of the kind {type(found).__name__}")
            mask = found.convert("L")
        except Exception as error:
            if lacking(error) or out_of_memory(error):
                raise
            raise DatasetError(f"the mask model {self.model} failed: {_first_line(error)}.") from error
        return mask if mask.size == image.size else mask.resize(image.size, Image.Resampling.BILINEAR)


@dataclass(frozen=True)
class Made:
    """What became of one image. problem: why it has no new mask, in a line; "" where it has."""

    file: str
    problem: str = ""


def make_masks(
    dataset: Dataset,
    files: Iterable[str],
    maker: MaskMaker,
    invert: bool = False,
    batch: str = "",
    stop: threading.Event | None = None,
) -> Iterator[Made]:
    """Give each of the images a mask by a model; each is written as it is made, all are undone together.

    invert: learn from what is around the main thing. Where the model finds nothing, or nothing but the main thing with
    `invert`, the image keeps what it has. Raises DatasetError when the folder can't be written.
    """
    items = dataset.by_file()
    for file in files:
        if stop is not None and stop.is_set():
            return
        yield Made(file, _make(dataset, items[file], file, maker, invert, batch))


def _make(dataset: Dataset, item: Item, file: str, maker: MaskMaker, invert: bool, batch: str) -> str:
    try:
        image = item.load(ENOUGH)
        if max(image.size) > 2 * ENOUGH:  # only JPEGs come smaller
            image.thumbnail((ENOUGH, ENOUGH))
        mask = maker.mask(image)
    except DatasetError as error:
        text = str(error)
        return text if text.startswith(item.path.name) else f"{file}: {text}"
    mask = ImageChops.invert(mask) if invert else mask
    values = np.asarray(mask)
    if values.max() < 128:
        return f"{file}: the model found nothing, its mask stays as it was."
    if values.min() >= 250:
        return f"{file}: the model took all of it, its mask stays as it was."
    change = write_masks(dataset, {file: mask}, "Make masks", f"model:{maker.model}", batch)
    return change.left[0] if change.left else ""


def _rembg() -> Any:
    try:
        import rembg
    except (ImportError, SystemExit) as error:  # without ONNX Runtime it ends the program
        raise DatasetError(MISSING) from error
    return rembg


def _is_here(rembg: Any, model: str) -> bool:
    """Whether the model's file is on this machine, in the folders of older or newer releases of rembg."""
    from importlib import import_module

    name = f"{model}.onnx"
    for one in getattr(import_module("rembg.sessions"), "sessions_class", ()):
        if one.name() == model and hasattr(one, "resolve_existing"):
            return one.resolve_existing(name) is not None
    home = os.getenv("U2NET_HOME") or os.path.join(os.getenv("XDG_DATA_HOME", "~"), ".u2net")
    return (Path(home).expanduser() / name).is_file()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:200].rstrip(".")
