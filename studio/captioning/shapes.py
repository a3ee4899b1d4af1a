"""Names of things by their shape, whatever the style: histograms of oriented gradients and two layers behind them.

HOG: Dalal and Triggs, "Histograms of oriented gradients for human detection", 2005 (9 bins, cells of 8 pixels, blocks
of 2 x 2 cells), and beside it a coarse grid of colours against the background's. Such features change less between a
flat, a shaded and an outlined drawing than those of a small network that saw three styles.
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

IMAGE_SIZE, CELL, BINS, GRID = 64, 8, 9, 6  # pixels of the shrunk image, and how it is divided
FEATURES = (IMAGE_SIZE // CELL - 1) ** 2 * BINS * 4 + 3 * GRID**2 + (IMAGE_SIZE // CELL) ** 2


class Shapes(nn.Module):
    """(B, 3, any, any) images, -1..1, to (B, names) logits."""

    def __init__(self, names: int, hidden: int = 384):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Dropout(0.2), nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Dropout(0.4), nn.Linear(hidden, names)
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(features(images))

    @classmethod
    def read(cls, file: Path) -> "Shapes":
        """Raises OSError, KeyError, RuntimeError or SafetensorError on files that are not what they should be."""
        state = {key: value.float() for key, value in load_file(file).items()}
        shapes = cls(len(state["layers.4.bias"]), len(state["layers.1.bias"]))
        shapes.load_state_dict(state)
        return shapes.eval()


@torch.no_grad()
def features(images: Tensor) -> Tensor:
    """(B, FEATURES) of images (B, 3, h, w), -1..1."""
    if images.shape[-2:] != (IMAGE_SIZE, IMAGE_SIZE):
        images = F.interpolate(images, size=(IMAGE_SIZE, IMAGE_SIZE), mode="area")
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    across = padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]
    down = padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]
    length, channel = (across.square() + down.square()).max(1, keepdim=True)
    length, across, down = length.sqrt(), across.gather(1, channel), down.gather(1, channel)
    angle = torch.atan2(down, across).remainder(torch.pi) / torch.pi * BINS
    apart = (angle - torch.arange(BINS)[None, :, None, None]).abs()
    share = (1 - torch.minimum(apart, BINS - apart)).clamp(min=0)
    cells = F.avg_pool2d(share * length, CELL)
    blocks = F.normalize(F.unfold(cells, 2), dim=1).clamp(max=0.2)  # (B, BINS * 4, blocks), "L2-hys"
    blocks = F.normalize(blocks, dim=1).flatten(1)
    edges = (slice(0, 3), slice(-3, None))
    corners = torch.cat([images[:, :, v, h].flatten(2) for v in edges for h in edges], 2)
    apart = images - corners.median(2).values[:, :, None, None]
    colours = F.adaptive_avg_pool2d(apart, GRID).flatten(1)
    outline = F.avg_pool2d(apart.abs().amax(1, keepdim=True).clamp(max=0.5), CELL).flatten(1)
    return torch.cat([blocks, 0.15 * colours, 0.5 * outline], 1)


def pixels(images: list[Image.Image]) -> Tensor:
    """(N, 3, IMAGE_SIZE, IMAGE_SIZE), -1..1, of images of any size, as `features` takes them."""
    rows = []
    for image in images:
        small = image.convert("RGB").resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BOX)
        rows.append(torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8).view(IMAGE_SIZE, IMAGE_SIZE, 3))
    return torch.stack(rows).permute(0, 3, 1, 2).float() / 127.5 - 1
