"""The built-in captioner: names what the starter knows by its shape, offline, and says so where it is not sure.

How sure it is was measured in styles that it never saw, on known things and foreign ones (assets/starter/recipe/
calibrate.py): a name is written only where it is right nine times in ten. The background is read from the image's rim.
Style is left out: a caption says what a style LoRA keeps. The starter's CLIP is here for scores of captions.
"""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from studio.captioning.batching import free_memory
from studio.captioning.shapes import Shapes, pixels
from studio.errors import BaseModelError, lacking
from studio.libraries import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)
from studio.workspace import ASSETS

FILE_NAME = "file_name"  # in an image's `info`: what its file is called, as a hint
_FLAT, _NEAR = 20.0, 100.0  # of 255: spread of a plain background, and farthest distance from the colour it is called
_HINT_RANK = 0.25  # a name in the file's name is believed when it stands in this share of the names, best first


class Caption(str):
    """A caption that knows how sure it is.

    guess: the likeliest name, whether or not the caption has it; chance: that it is right, 0 to 1, as calibrated.
    """

    guess: str
    chance: float
    asserted: bool

    @property
    def unsure(self) -> str:
        """ "panda 14 %" where the name was left out; else ""."""
        return "" if self.asserted else f"{self.guess} {round(100 * self.chance)} %"


@dataclass(frozen=True)
class Calibration:
    """chance = sigmoid(bias + likeness x + lead y), of the first name's log probability and its lead over the next."""

    bias: float = 0.0
    likeness: float = 0.0
    lead: float = 0.0
    threshold: float = 2.0  # nothing is asserted

    def chance(self, first: float, second: float) -> float:
        z = self.bias + self.likeness * first + self.lead * (first - second)
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, z))))


class StarterCaptioner:
    """Loaded once, then `caption` as often as wanted, then `close`."""

    side = 256  # four times what it looks at
    batch_size = 16

    def __init__(self, folder: Path = ASSETS / "starter"):
        try:
            words = json.loads((folder / "vocabulary.json").read_text("utf-8"))
            self.names = list(words["names"])
            self.palette = {name: tuple(rgb) for name, rgb in words["palette"].items()}
            self.calibration = Calibration(**words["calibration"])
            self.shapes = Shapes.read(folder / "namer.safetensors")
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            self.processor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor")
            self.text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
            self.image = CLIPVisionModelWithProjection.from_pretrained(
                folder / "image_encoder", dtype=torch.float32
            ).eval()
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError) as error:
            if lacking(error):
                raise
            raise BaseModelError(
                "The built-in captioner can't be loaded: restore the folder assets/starter."
            ) from error

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """(N, width) unit vectors."""
        tokens = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        return F.normalize(self.text(input_ids=tokens.input_ids).pooler_output, dim=-1)

    @torch.no_grad()
    def embed_images(self, images: list[Image.Image]) -> Tensor:
        """(N, width) unit vectors."""
        pixels = self.processor(images=images, return_tensors="pt").pixel_values
        return F.normalize(self.image(pixel_values=pixels).image_embeds, dim=-1)

    def caption(self, images: Sequence[Image.Image]) -> list[str]:
        """ "red apple, on a blue background" for each image: what is certain of it, as a `Caption`; "" for nothing."""
        if not images:
            return []
        with torch.no_grad():
            scores = self.shapes(pixels(list(images))).log_softmax(1)
        return [self._caption(image, row) for image, row in zip(images, scores, strict=True)]

    def _caption(self, image: Image.Image, scores: Tensor) -> Caption:
        values, order = scores.topk(2)
        name, chance = self.names[int(order[0])], self.calibration.chance(*values.tolist())
        asserted = chance >= self.calibration.threshold
        hint = named_in(str(image.info.get(FILE_NAME, "")), self.names)
        if hint and int((scores > scores[self.names.index(hint)]).sum()) < _HINT_RANK * len(self.names):
            name, asserted = hint, True
        colour = background_of(image, self.palette)
        parts = [name] if asserted else []
        if colour:
            parts.append(f"on {'an' if colour[0] in 'aeiou' else 'a'} {colour} background")
        made = Caption(", ".join(parts))
        made.guess, made.chance, made.asserted = name, chance, asserted
        return made

    def close(self) -> None:
        del self.text, self.image
        free_memory()


def background_of(image: Image.Image, palette: dict[str, tuple[int, ...]]) -> str:
    """The palette's name for a plain background; "" where the rim is not of one colour or of one without a name."""
    small = image.convert("RGB").resize((64, 64), Image.Resampling.BOX)
    pixels = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(64, 64, 3).float()
    rim = torch.cat(
        [pixels[:3].flatten(0, 1), pixels[-3:].flatten(0, 1), pixels[:, :3].flatten(0, 1), pixels[:, -3:].flatten(0, 1)]
    )
    middle = rim.median(0).values
    away = (rim - middle).abs().amax(1)
    if (away > _FLAT).float().mean() > 0.25:  # a thing may touch the rim here and there
        return ""
    names = list(palette)
    distance = torch.linalg.vector_norm(torch.tensor([palette[name] for name in names]).float() - middle, dim=1)
    nearest = int(distance.argmin())
    return names[nearest] if distance[nearest] <= _NEAR else ""


def named_in(file_name: str, names: Sequence[str]) -> str:
    """The longest known name whose words stand one after the other in a file's name; "" for none."""
    words = " ".join(re.findall(r"[a-z]+", file_name.lower()))
    found = [name for name in names if f" {' '.join(re.findall('[a-z]+', name.lower()))} " in f" {words} "]
    return max(found, key=len, default="")
