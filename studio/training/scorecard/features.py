"""Images as numbers, by means that every base brings: its VAE, and its image encoder where it has one.

style     (N, width): what is the same wherever in the image it stands: means, covariances and steps of the latents'
          channels at two scales (Gram statistics as in arXiv:1508.06576, of the VAE's latents)
content   (N, width) unit vectors: the image encoder's, else small latents without their mean, which tell composition
"""

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import avg_pool2d, normalize

from studio.basemodels import Family

SIDE = 32  # of the latents that style is read from, at the most
SMALL = 8  # of those that composition is read from
TOGETHER = 8


class Encoder(Protocol):
    """An image encoder: (N, width) unit vectors on the CPU. See `captioning.scoring.Clip`."""

    def embed_images(self, images: list[Image.Image]) -> Tensor: ...

    def embed_texts(self, texts: list[str]) -> Tensor: ...


class Features:
    """What a base sees in images. encoder: another image encoder than the base's own."""

    def __init__(self, base: Family, encoder: Encoder | None = None):
        self.base, self.encoder = base, encoder
        self.by_base = encoder is None and base.embed_images([Image.new("RGB", (64, 64))]) is not None
        self.by_encoder = self.by_base or encoder is not None

    @torch.no_grad()
    def style(self, images: Sequence[Image.Image]) -> Tensor:
        """(N, width) float32 on the CPU, not normalized: see `channel_statistics`."""
        scale = self.base.pipeline.vae_scale_factor
        side = min(SIDE * scale, max(image.width for image in images))
        side -= side % scale or 0
        return torch.cat([channel_statistics(part) for part in self._latents(images, max(scale, side))])

    @torch.no_grad()
    def content(self, images: Sequence[Image.Image]) -> Tensor:
        """(N, width) unit vectors on the CPU."""
        rgb = [image.convert("RGB") for image in images]
        if self.encoder is not None:
            parts = [self.encoder.embed_images(rgb[at : at + TOGETHER]) for at in range(0, len(rgb), TOGETHER)]
            return torch.cat(parts).float().cpu()
        if self.by_base:
            found = [self.base.embed_images(rgb[at : at + TOGETHER]) for at in range(0, len(rgb), TOGETHER)]
            return torch.cat([part for part in found if part is not None]).float().cpu()
        parts = [
            (part - part.mean((2, 3), keepdim=True)).flatten(1)
            for part in self._latents(images, SMALL * self.base.pipeline.vae_scale_factor)
        ]
        return normalize(torch.cat(parts), dim=1)

    @torch.no_grad()
    def lost(self, images: Sequence[Image.Image]) -> Tensor:
        """(N,) what the VAE can't render of each image: squared error over the image's variance, in 0 … about 1.

        Of noise it is nearly all, of drawings and photographs a few per cent; of an image of one colour it is 0.
        """
        found, at = [], 0
        vae = self.base.pipeline.vae
        for latents in self._latents(images, SIDE * self.base.pipeline.vae_scale_factor):
            place = next(vae.parameters())
            seen = vae.decode(latents.to(place.device, place.dtype)).sample.float().cpu().clamp(-1, 1)
            pixels = _pixels(images[at : at + len(seen)], seen.shape[-1])
            error, spread = (seen - pixels).square().mean((1, 2, 3)), pixels.var((1, 2, 3))
            found.append(error / spread.clamp(min=1e-2))
            at += len(seen)
        return torch.cat(found)

    @torch.no_grad()
    def texts(self, prompts: Sequence[str]) -> Tensor | None:
        """(N, width) unit vectors that can be compared with `content`; None where nothing reads both."""
        if self.encoder is not None:
            return self.encoder.embed_texts(list(prompts)).float().cpu()
        return self._base_texts(list(prompts)) if self.by_base else None

    def _base_texts(self, prompts: list[str]) -> Tensor | None:
        """By the base's text encoder where it is the other half of its image encoder: of the same width and pooled."""
        tokenizer, text = self.base.pipeline.tokenizer, self.base.pipeline.text_encoder
        width = self.base.pipeline.image_encoder.config.projection_dim
        tokens = tokenizer(prompts, padding=True, truncation=True, return_tensors="pt").input_ids
        found = text(input_ids=tokens.to(text.device))
        pooled = getattr(found, "text_embeds", None)
        pooled = found.pooler_output if pooled is None else pooled
        return None if pooled.shape[-1] != width else normalize(pooled.float().cpu(), dim=-1)

    def _latents(self, images: Sequence[Image.Image], side: int) -> Iterator[Tensor]:
        """(n, C, h, w) float32 on the CPU, of the images as squares of `side` pixels, a few at a time."""
        for at in range(0, len(images), TOGETHER):
            vae = self.base.pipeline.vae
            place = next(vae.parameters())
            encoded = vae.encode(_pixels(images[at : at + TOGETHER], side).to(place.device, place.dtype))
            latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
            yield latents.float().cpu()


def _pixels(images: Sequence[Image.Image], side: int) -> Tensor:
    """(N, 3, side, side) in −1 … 1, of the images as squares."""
    small = [image.convert("RGB").resize((side, side), Image.Resampling.BOX) for image in images]
    return (
        torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in small])).permute(0, 3, 1, 2) / 127.5 - 1
    )


def channel_statistics(latents: Tensor) -> Tensor:
    """(N, width) of (N, C, h, w): channel means, roots of the covariances, mean steps to the right and down, and the
    last two at half the size. No number says where in the image something is.
    """
    parts = [latents.mean((2, 3)), _covariance(latents)]
    for x in (latents, avg_pool2d(latents, 2)):
        parts += [x.diff(dim=3).abs().mean((2, 3)), x.diff(dim=2).abs().mean((2, 3))]
    return torch.cat(parts, 1)


def _covariance(latents: Tensor) -> Tensor:
    """(N, C (C + 1) / 2): signed roots of the channels' covariances, so that they have the latents' unit."""
    flat = latents.flatten(2) - latents.flatten(2).mean(2, keepdim=True)
    found = flat @ flat.transpose(1, 2) / flat.shape[2]
    rows, columns = torch.triu_indices(found.shape[1], found.shape[1])
    upper = found[:, rows, columns]
    return upper.sign() * upper.abs().sqrt()


def way(start: Tensor, end: Tensor, now: Tensor, rows: Sequence[int] | None = None) -> Tensor:
    """(N,) how far each row of `now` went from its row of `start` (or from those named by `rows`) towards `end`.

    All (., width). 0 at the start, 1 at the end. One direction for all, from the mean start to the mean end, so that
    what single images show by chance cancels.
    """
    direction = (end.mean(0) - start.mean(0)).double()
    begun = start if rows is None else start[list(rows)]
    return ((now - begun).double() @ direction / direction.square().sum().clamp(min=1e-12)).float()


def scale_of(*parts: Tensor) -> Tensor:
    """(width,) one over each column's spread within the parts, so that a number of large values weighs no more."""
    spread = torch.stack([part.var(0) if len(part) > 1 else torch.zeros(part.shape[1]) for part in parts]).mean(0)
    return (spread + 1e-2 * spread.mean() + 1e-12).rsqrt()


def alike(vectors: Tensor) -> tuple[float, float]:
    """(mean cosine of two different rows, its standard error over the rows) of (N, width) unit vectors."""
    count = len(vectors)
    if count < 2:
        return 0.0, 0.0
    near = vectors @ vectors.T
    each = (near.sum(1) - near.diagonal()) / (count - 1)
    return each.mean().item(), (each.std() / count**0.5).item()
