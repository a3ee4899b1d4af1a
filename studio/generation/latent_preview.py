"""Previews of latents while an image is drawn, and how often there may be one.

A base with a tiny VAE (AutoencoderTiny, as of https://github.com/madebyollin/taesd) decodes them. Any other gets a
linear map from latents to colours: the approximation of ComfyUI's `latent_rgb_factors` (comfy/latent_formats.py) and
of the guide "How to process latents" of diffusers, here fitted to the VAE that is loaded, so that no table of
families is needed and nothing is downloaded.
"""

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from studio.basemodels import Family
from studio.libraries.diffusers import diffusers

_maps: "WeakKeyDictionary[Family, Tensor]" = WeakKeyDictionary()
PREVIEW_SIZE, COUNT = 128, 8  # pixels, and how many images the map is fitted on
SHARE = 0.05  # of the time of drawing, at most, that previews take
_costs: "WeakKeyDictionary[Family, float]" = WeakKeyDictionary()  # seconds that the last decoded preview took


class LivePreview:
    """What `generate_all` calls with latents after each step; `show` gets an image of them, seldom enough to be cheap.

    A preview is decoded when its cost is at most SHARE of the time since the last one. Until the first that can be,
    and for bases whose VAE is not tiny, the linear map shows what comes: it costs next to nothing. clock: seconds.
    """

    def __init__(self, base: Family, show: Callable[[Image.Image], None], clock: Callable[[], float] = time.monotonic):
        self._base, self._show, self._clock = base, show, clock
        self._decoded, self._last = False, clock()

    def __call__(self, latents: Tensor) -> None:
        began = self._clock()
        if decodes_quickly(self._base) and _costs.get(self._base, 0.0) <= SHARE * (began - self._last):
            self._show(self._base.decode(latents[:1])[0])
            self._decoded, self._last = True, self._clock()
            _costs[self._base] = self._last - began
        elif not self._decoded:
            self._show(preview_latents(self._base, latents))


def decodes_quickly(base: Family) -> bool:
    return isinstance(base.pipeline.vae, diffusers.AutoencoderTiny)


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
