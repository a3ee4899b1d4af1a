"""A fast preview of latents: the linear map from latents to colours that fits a base's VAE best."""

from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.basemodels import Family

_maps: "WeakKeyDictionary[Family, Tensor]" = WeakKeyDictionary()
PREVIEW_SIZE, COUNT = 128, 8  # pixels, and how many images the map is fitted on


def preview_latents(base: Family, latents: Tensor) -> Image.Image:
    """The first of `latents` (B, C, h, w), as h x w pixels. The map is fitted once for each base."""
    if base not in _maps:
        _maps[base] = fit_colors(base)
    first = latents[0].float().cpu()
    flat = torch.cat([first.flatten(1), torch.ones(1, first[0].numel())])  # (C + 1, h w)
    pixels = (_maps[base].T @ flat).clamp(0, 1).reshape(3, *first.shape[1:])
    return Image.fromarray((255 * pixels).round().byte().permute(1, 2, 0).numpy())


@torch.no_grad()
def fit_colors(base: Family) -> Tensor:
    """(C + 1, 3) float32: colours 0 to 1 of a latent and a one, by least squares over coloured patches."""
    chance = np.random.default_rng(0)
    rows, colours = [], []
    for number in range(COUNT):
        coarse = chance.integers(0, 256, (2 + number % 4, 2 + number % 4, 3), np.uint8)
        image = Image.fromarray(coarse).resize((PREVIEW_SIZE, PREVIEW_SIZE), Image.Resampling.BICUBIC)
        latents = base.encode_image([image])[0][0].float().cpu()  # (C, h, w)
        small = image.resize((latents.shape[2], latents.shape[1]), Image.Resampling.BOX)
        rows.append(latents.flatten(1).T)
        colours.append(torch.from_numpy(np.asarray(small, np.float32) / 255).reshape(-1, 3))
    known = torch.cat(rows)
    known = torch.cat([known, torch.ones(len(known), 1)], 1)
    return torch.linalg.lstsq(known, torch.cat(colours)).solution
