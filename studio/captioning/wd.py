"""WD v3 taggers (SmilingWolf on huggingface.co): Danbooru tags with ONNX Runtime.

A folder holds `model.onnx` (images in, a probability for each tag out) and `selected_tags.csv` with the columns
tag_id, name, category (9 rating, 4 character, 0 general) and count, one row for each output.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from studio.captioning.batching import free_memory
from studio.captioning.generators import MODEL_WORDS, ModelSettings, explained
from studio.errors import BaseModelError

FILES = ("model.onnx", "selected_tags.csv")
PROVIDERS = ("CUDAExecutionProvider", "DmlExecutionProvider", "CPUExecutionProvider")  # the fastest first
GENERAL, CHARACTER, RATING = 0, 4, 9
_WORD = re.compile(r"[^\W\d_]{2}")
_LONG = 4096  # pixels; an image longer than that is shrunk before it is padded to a square


class WdSettings(ModelSettings):
    model: str = Field("SmilingWolf/wd-eva02-large-tagger-v3", min_length=1, max_length=500, description=MODEL_WORDS)
    general_threshold: float = Field(0.35, ge=0, le=1, description="Least probability of a general tag")
    character_threshold: float = Field(0.85, ge=0, le=1, description="Least probability of a character's name")
    characters: bool = Field(True, description="Name characters")
    rating: bool = Field(False, description="Put the rating at the end (general, sensitive, questionable, explicit)")
    spaces: bool = Field(True, description="Spaces for underscores, but not in faces like ^_^")
    blacklist: str = Field("", max_length=10_000, description="Tags never written, with commas between them")


class WdTagger:
    """settings.batch_size images go in at once, or as many as the model was made for."""

    side = 0  # whole images, as its makers do

    def __init__(self, folder: Path, settings: WdSettings):
        self.settings, self.batch_size = settings, settings.batch_size
        try:
            import onnxruntime
        except ImportError as error:
            raise BaseModelError(
                "The WD tagger needs ONNX Runtime, which is not installed: pip install onnxruntime."
            ) from error
        self.tags, self.categories = read_tags(folder / FILES[1])
        with explained(settings.model):
            options = onnxruntime.SessionOptions()
            options.log_severity_level = 3  # errors alone; warnings about its own optimisations say nothing here
            providers = [name for name in PROVIDERS if name in onnxruntime.get_available_providers()]
            self.session: Any = onnxruntime.InferenceSession(str(folder / FILES[0]), options, providers=providers)
            entry = self.session.get_inputs()[0]
            shape = entry.shape
        if len(shape) != 4 or shape[3] != 3 or not isinstance(shape[1], int) or shape[1] != shape[2]:
            raise BaseModelError(f"{settings.model} is not a WD v3 tagger: its input is {shape}, not N x S x S x 3.")
        self.entry, self.size = entry.name, shape[1]
        self.fixed = shape[0] if isinstance(shape[0], int) and shape[0] > 0 else 0  # 0: any number at once
        self._banned = {_plain(tag) for tag in settings.blacklist.split(",") if tag.strip()}

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """Characters, then general tags, each by falling probability, then the rating; ", " between them."""
        return [", ".join(self.choose(row)) for row in self.probabilities(images)]

    def probabilities(self, images: Sequence[Image.Image]) -> np.ndarray:
        """(images, tags), 0 to 1."""
        if not images:
            return np.zeros((0, len(self.tags)), np.float32)
        pixels = np.stack([preprocess(image, self.size) for image in images])
        step = self.fixed or len(pixels)
        rows = []
        for start in range(0, len(pixels), step):
            part = pixels[start : start + step]
            wanted = np.concatenate([part, np.zeros((step - len(part), *part.shape[1:]), np.float32)])
            rows.append(self.session.run(None, {self.entry: wanted})[0][: len(part)])
        found = np.concatenate(rows)
        if found.shape[1] != len(self.tags):
            raise BaseModelError(
                f"{self.settings.model}: the model gives {found.shape[1]} tags and {FILES[1]} names {len(self.tags)}."
            )
        return found

    def choose(self, row: np.ndarray) -> list[str]:
        """The tags to write of one image's probabilities, (tags,)."""
        chosen = []
        order = np.argsort(-row, kind="stable")
        if self.settings.characters:
            chosen += self._above(row, order, CHARACTER, self.settings.character_threshold)
        chosen += self._above(row, order, GENERAL, self.settings.general_threshold)
        if self.settings.rating:
            chosen += [i for i in order if self.categories[i] == RATING][:1]
        tags = (self.tags[i] for i in chosen)
        return [spaced(tag) if self.settings.spaces else tag for tag in tags if _plain(tag) not in self._banned]

    def _above(self, row: np.ndarray, order: Iterable[int], category: int, least: float) -> list[int]:
        return [i for i in order if self.categories[i] == category and row[i] > least]

    def close(self) -> None:
        self.session = None
        free_memory()


def preprocess(image: Image.Image, size: int) -> np.ndarray:
    """(size, size, 3) float32, 0 to 255, blue first: alpha on white, centred on a white square, bicubic."""
    if image.mode not in ("RGB", "L"):
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("RGB")
    if max(image.size) > _LONG:  # a square of its length could be larger than the memory
        image.thumbnail((_LONG, _LONG), Image.Resampling.BICUBIC)
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square, np.float32)[:, :, ::-1])


def spaced(tag: str) -> str:
    """Spaces for underscores. A tag without two letters in a row is a face, like >_< or o_o, and stays."""
    return tag.replace("_", " ") if _WORD.search(tag) else tag


def read_tags(file: Path) -> tuple[list[str], list[int]]:
    """(names, categories) in the order of the model's outputs. Raises BaseModelError."""
    try:
        with open(file, encoding="utf-8", newline="") as stream:
            rows = [(row["name"], int(row["category"])) for row in csv.DictReader(stream)]
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise BaseModelError(
            f"{file.parent.name} has no {FILES[1]} that can be read: it belongs beside {FILES[0]}."
        ) from error
    return [name for name, _ in rows], [category for _, category in rows]


def _plain(tag: str) -> str:
    return tag.strip().lower().replace(" ", "_")
