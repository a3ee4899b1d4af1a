"""The built-in captioner: the starter's own CLIP names what it sees, offline.

The image's embedding is compared with those of every name and background colour that the starter knows
(zero-shot classification, arXiv:2103.00020, section 3.1). Style is left out: a caption says what a style LoRA keeps.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from studio.captioning.batching import free_memory
from studio.errors import BaseModelError, lacking
from studio.libraries import (
    CLIPImageProcessorPil,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)
from studio.workspace import ASSETS


class StarterCaptioner:
    """Loaded once, then `caption` as often as wanted, then `close`."""

    side = 256  # four times what it looks at
    batch_size = 16

    def __init__(self, folder: Path = ASSETS / "starter"):
        try:
            words = json.loads((folder / "vocabulary.json").read_text("utf-8"))
            self.names, self.colours = list(words["names"]), list(words["colours"])
            self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
            self.processor = CLIPImageProcessorPil.from_pretrained(folder / "feature_extractor")
            self.text = CLIPTextModel.from_pretrained(folder / "text_encoder", dtype=torch.float32).eval()
            self.image = CLIPVisionModelWithProjection.from_pretrained(
                folder / "image_encoder", dtype=torch.float32
            ).eval()
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            if lacking(error):
                raise
            raise BaseModelError(
                "The built-in captioner can't be loaded: restore the folder assets/starter."
            ) from error
        self._name_states = self.embed_texts(self.names)
        self._phrases = [f"on {'an' if c[0] in 'aeiou' else 'a'} {c} background" for c in self.colours]
        self._phrase_states: dict[str, Tensor] = {}  # of each name found so far: (colours, width)

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
        """ "red apple, on a blue background" for each image."""
        if not images:
            return []
        seen = self.embed_images(list(images))
        found = [self.names[i] for i in (seen @ self._name_states.T).argmax(1).tolist()]
        return [f"{name}, {self._background(one, name)}" for one, name in zip(seen, found, strict=True)]

    def _background(self, seen: Tensor, name: str) -> str:
        """The colour is asked for together with the name: "on a red background" alone also fits a red apple."""
        if name not in self._phrase_states:
            self._phrase_states[name] = self.embed_texts([f"{name}, {phrase}" for phrase in self._phrases])
        return self._phrases[int((self._phrase_states[name] @ seen).argmax())]

    def close(self) -> None:
        del self.text, self.image
        free_memory()
