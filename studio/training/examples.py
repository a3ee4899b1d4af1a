"""What a step learns from: pictures as latents, captions as text states, computed once before the first step."""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageOps
from torch import Tensor

from studio.basemodels import StableDiffusion
from studio.datasets import Item, open_dataset
from studio.errors import RunError
from studio.training.config import RunConfig


@dataclass(frozen=True)
class Examples:
    """latents: (N, 4, h, w) scaled; states: (N, 77, width); empty: (1, 77, width), the states of no caption."""

    names: list[str]
    latents: Tensor
    states: Tensor
    empty: Tensor

    def __len__(self) -> int:
        return len(self.names)


def split(config: RunConfig) -> tuple[list[Item], list[Item], list[str]]:
    """(items to train on, held-out items, what a person should know). Raises DatasetError, RunError."""
    dataset = open_dataset(Path(config.data.folder))
    warnings = [f"Left out: {problem}" for problem in dataset.problems]
    items = list(dataset.items)
    missing = [item.path.name for item in items if not item.caption.strip()]
    if missing and not config.data.trigger:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"No caption: {missing[0]}{more}. Caption them, or set a trigger word.")
    if config.data.held_out:
        return items, list(open_dataset(Path(config.data.held_out)).items), warnings
    count = int(len(items) * config.validation.fraction) if config.validation.every else 0
    if not count:
        return items, [], warnings
    if count >= len(items):
        raise RunError("There are too few pictures to hold some out: set validation.fraction to 0.")
    held = set(random.Random(config.training.seed).sample(range(len(items)), count))
    return [x for i, x in enumerate(items) if i not in held], [items[i] for i in sorted(held)], warnings


def caption_of(item: Item, trigger: str) -> str:
    """The caption as trained on: with the trigger in front where it lacks it."""
    caption = item.caption.strip()
    if not trigger or trigger.lower() in caption.lower():
        return caption
    return f"{trigger}, {caption}" if caption else trigger


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
