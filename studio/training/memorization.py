"""Memorization: a preview that is nearer to a training image than training images are to each other.

Images are compared by the base's own image encoder where it has one, else by the latents of its VAE at a small size,
which tell whether two images have the same composition. Both are on every base, so nothing is downloaded.
"""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from studio.basemodels import Family
from studio.errors import DatasetError
from studio.generation.evaluation import is_memorized, typical_nearness
from studio.training.examples import Example

MOST = 512  # training images that are compared with
TOGETHER = 16
LATENTS = 8  # a side, of the small copies that the VAE encodes
# Cosines of VAE latents: a blurred copy of an image has 0.96 to 0.99. Four images that have 0.29 among each other were
# trained on too long: what was drawn then had 0.84 to 0.94 with the image that was asked for, and 0.02 to 0.33 before.
# A memorized image has at most a quarter of the distance that training images have to their nearest ones.
LEAST, QUARTER = 0.8, 0.25


class MemorizationCheck:
    """The training images as the base sees them."""

    def __init__(self, examples: list[Example], seen: Tensor, by_encoder: bool):
        """seen: (N, width) unit vectors of the examples, and again of their mirror images where they are trained on."""
        self.examples, self.seen, self.by_encoder = examples, seen, by_encoder
        self.usual = typical_nearness(seen[: len(examples)].float().numpy())
        self.before: dict[int, float] = {}  # preview: how near it was without the adapter

    @classmethod
    def of(cls, examples: list[Example], base: Family) -> "MemorizationCheck | str":
        """Why there is none, in a sentence, where too few images can be compared."""
        examples = [e for e in examples if not e.regularization and e.is_main][:MOST]
        if len(examples) < 3:
            return "The memorization check is off: it needs at least 3 training images to compare previews with."
        mirrored = any(e.flips > 1 for e in examples)
        by_encoder = base.embed_images([Image.new("RGB", (64, 64))]) is not None
        turns: list[Callable[[Image.Image], Image.Image]] = [
            lambda image: image,
            *([ImageOps.mirror] if mirrored else []),
        ]
        rows: list[Tensor] = []
        for turn in turns:
            for start in range(0, len(examples), TOGETHER):
                try:
                    images = [turn(e.frame.cut(e.item.load())) for e in examples[start : start + TOGETHER]]
                except DatasetError as error:
                    return f"The memorization check is off: {error}"
                rows.append(_embed(images, base, by_encoder))
        return cls(examples, torch.cat(rows), by_encoder)

    def check(self, number: int, preview: Image.Image, step: int, base: Family) -> str | None:
        """A warning when preview `number` is too near to a training image, and nearer than at step 0."""
        near, which = (self.seen @ _embed([preview], base, self.by_encoder)[0]).max(0)
        if step == 0:
            self.before[number] = near.item()
        limit = self.usual if self.by_encoder else max(LEAST, 1 - QUARTER * (1 - self.usual))
        if not is_memorized(near.item(), limit, self.before.get(number, 1.0)):
            return None
        name = self.examples[int(which) % len(self.examples)].name
        return (
            f"Preview {number + 1} looks more like {name} (similarity {near.item():.2f}) than the training images "
            f"look like each other ({self.usual:.2f}): it may be memorized. Fewer steps, or more images, help."
        )

    def state(self) -> dict[int, float]:
        return self.before

    def restore(self, state: dict[int, float]) -> None:
        self.before = dict(state)


@torch.no_grad()
def _embed(images: list[Image.Image], base: Family, by_encoder: bool) -> Tensor:
    """(N, width) unit vectors, on the CPU."""
    if by_encoder:
        found = base.embed_images(images)
        assert found is not None
        return found.cpu()
    vae, side = base.pipeline.vae, LATENTS * base.pipeline.vae_scale_factor
    small = [image.convert("RGB").resize((side, side), Image.Resampling.BOX) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in small])).permute(0, 3, 1, 2)
    place = next(vae.parameters())  # it may wait beside the device
    encoded = vae.encode((pixels / 127.5 - 1).to(place.device, place.dtype))
    latents = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
    latents = latents.float().cpu()
    flat = (latents - latents.mean((2, 3), keepdim=True)).flatten(1)  # a plain background says nothing
    return torch.nn.functional.normalize(flat, dim=1)
