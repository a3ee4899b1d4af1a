"""The base as a judge of image and caption (Diffusion Classifier, arXiv:2303.16203): which caption predicts it best?

The denoising loss of an image under a caption, at the same noise for every caption, is lower where the caption says
what the image shows. It needs nothing but the base, so it works on every family.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.basemodels.family import Conditioning, Size
from studio.training.objective import loss_of

SHARES = (0.35, 0.5, 0.65, 0.8)  # of the noise schedule: where composition and subject are decided
TOGETHER = 8


@torch.no_grad()
def caption_losses(
    base: Family,
    latents: Sequence[Tensor],
    captions: Sequence[Conditioning],
    pairs: Sequence[tuple[int, int]],
    sizes: Sequence[Size],
    shares: Sequence[float] = SHARES,
) -> Tensor:
    """(pairs, shares) denoising losses, on the CPU, of the base as it is now.

    latents   (C, h, w) of each image, scaled; captions: the conditioning of each, a row
    pairs     (image, caption) to measure; the noise depends on the image and the share alone
    sizes     (width, height) of each image in pixels
    """
    cells = [(pair, place) for pair in range(len(pairs)) for place in range(len(shares))]
    found = torch.zeros(len(pairs), len(shares))
    order = sorted(cells, key=lambda cell: (tuple(latents[pairs[cell[0]][0]].shape), cell))
    for part in _parts(order, pairs, latents):
        images = [pairs[pair][0] for pair, _ in part]
        x = torch.stack([latents[image] for image in images]).to(base.device)
        draws = [torch.Generator().manual_seed(5000 + 101 * image + place) for image, (_, place) in zip(images, part)]
        noise = torch.stack([torch.randn(latents[image].shape, generator=g) for image, g in zip(images, draws)]).to(x)
        t = base.times(torch.tensor([shares[place] for _, place in part])).to(base.device)
        words = base.join([captions[pairs[pair][1]] for pair, _ in part])
        framing = [(sizes[image], (0, 0), sizes[image]) for image in images]
        losses = loss_of(base, x, words | base.size_conditioning(framing), noise, t)
        for (pair, place), loss in zip(part, losses.cpu()):
            found[pair, place] = loss
    return found


def margins(losses: Tensor, others: int) -> Tensor:
    """(images,) how much more another caption costs than the own one, as a share of the own one's loss.

    losses: (images x (1 + others), shares), each image's own caption first. Noise cancels, since it is the same.
    """
    rows = losses.view(-1, 1 + others, losses.shape[1])
    own, other = rows[:, 0], rows[:, 1:].mean(1)
    return ((other - own) / own.clamp(min=1e-9)).mean(1)


def pairs_with_others(count: int, others: int) -> list[tuple[int, int]]:
    """(image, caption): each image with its own caption, then with those of the next `others` images in a ring."""
    return [(image, (image + step) % count) for image in range(count) for step in range(1 + others)]


def _parts(
    order: list[tuple[int, int]], pairs: Sequence[tuple[int, int]], latents: Sequence[Tensor]
) -> list[list[tuple[int, int]]]:
    """Batches of one shape."""
    parts: list[list[tuple[int, int]]] = []
    shape = None
    for cell in order:
        now = latents[pairs[cell[0]][0]].shape
        if shape != now or len(parts[-1]) == TOGETHER:
            parts.append([])
            shape = now
        parts[-1].append(cell)
    return parts
