"""What a step learns from: pictures as latents, captions as text states, computed once before the first step."""

from dataclasses import dataclass

import torch
from PIL import Image, ImageOps
from torch import Tensor

from studio.basemodels import StableDiffusion
from studio.datasets import Item
from studio.training.selection import caption_of


@dataclass(frozen=True)
class Examples:
    """latents: (N, 4, h, w) scaled; states: (N, 77, width); empty: (1, 77, width), the states of no caption."""

    names: list[str]
    latents: Tensor
    states: Tensor
    empty: Tensor

    def __len__(self) -> int:
        return len(self.names)


def square(picture: Image.Image, side: int) -> Image.Image:
    """The middle of a picture as `side` x `side` pixels."""
    return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)


def encode(items: list[Item], base: StableDiffusion, trigger: str, flip: bool = False, batch: int = 16) -> Examples:
    """Run the picture codec and the text encoder over all items, once."""
    names, latents, states = [], [], []
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        pictures = [square(item.load(), base.resolution) for item in part]
        text = base.encode_prompt([caption_of(item, trigger) for item in part])
        for mirrored in (False, True) if flip else (False,):
            if mirrored:
                pictures = [ImageOps.mirror(picture) for picture in pictures]
            names += [item.path.name for item in part]
            latents.append(base.encode_image(pictures))
            states.append(text)
    return Examples(names, torch.cat(latents), torch.cat(states), base.encode_prompt([""]))
