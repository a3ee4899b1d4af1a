"""Has it learnt an image by heart? A preview nearer to a training image than training images are to each other."""

import torch
from PIL import Image
from torch import Tensor

from studio.basemodels import Family
from studio.errors import DatasetError
from studio.generation.evaluation import is_memorized, typical_nearness
from studio.training.examples import Example

MOST = 512  # training images that are compared with
TOGETHER = 16


class MemorizationCheck:
    """The training images as the image encoder sees them."""

    def __init__(self, examples: list[Example], seen: Tensor):
        """seen: (N, width) unit vectors, a row for each example; N is at least 3."""
        self.examples, self.seen = examples, seen
        self.usual = typical_nearness(seen.float().numpy())
        self.before: dict[int, float] = {}  # preview: how near it was without the adapter

    @classmethod
    def of(cls, examples: list[Example], base: Family) -> "MemorizationCheck | None":
        """None when the base has no image encoder, or when there are too few images to compare."""
        examples = examples[:MOST]
        rows: list[Tensor] = []
        for start in range(0, len(examples), TOGETHER):
            try:
                images = [e.frame.cut(e.item.load()) for e in examples[start : start + TOGETHER]]
            except DatasetError:
                return None
            found = base.embed_images(images)
            if found is None:
                return None
            rows.append(found.cpu())
        return cls(examples, torch.cat(rows)) if len(examples) > 2 else None

    def look(self, number: int, preview: Image.Image, step: int, base: Family) -> str | None:
        """A warning when preview `number` is too near to a training image, and nearer than at step 0."""
        found = base.embed_images([preview])
        assert found is not None
        near, which = (self.seen @ found[0].cpu()).max(0)
        if step == 0:
            self.before[number] = near.item()
        if not is_memorized(near.item(), self.usual, self.before.get(number, 1.0)):
            return None
        name = self.examples[int(which)].name
        return (
            f"Preview {number + 1} looks more like {name} (similarity {near.item():.2f}) than the training images "
            f"look like each other ({self.usual:.2f}): it may be learning them by heart. Fewer steps, or more "
            "images, help."
        )

    def state(self) -> dict:
        return self.before

    def restore(self, state: dict) -> None:
        self.before = dict(state)
