"""Aspect-ratio buckets: what the trainer sees of each image. No torch here.

Images of one batch must have one size. Cutting all to a square loses heads and feet, so each image is put into the
bucket whose shape is nearest to its own, all buckets having about the same area (NovelAI, "Aspect Ratio Bucketing").
"""

import math
from dataclasses import dataclass

from PIL import Image

MAX_ASPECT = 3.0  # the longest side may be this many times the shorter one


@dataclass(frozen=True)
class Frame:
    """How an image becomes training pixels: resized to `scaled`, then cut to `size` at (left, top). All in pixels."""

    size: tuple[int, int]  # of the bucket: width, height
    scaled: tuple[int, int]
    left: int
    top: int

    @property
    def lost(self) -> float:
        """Share of the image that is cut off, 0..1."""
        return 1 - self.size[0] * self.size[1] / (self.scaled[0] * self.scaled[1])

    def box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """(left, top, right, bottom) of what is kept, in pixels of the original image."""
        x, y = width / self.scaled[0], height / self.scaled[1]
        return self.left * x, self.top * y, (self.left + self.size[0]) * x, (self.top + self.size[1]) * y

    def cut(self, image: Image.Image, resample: Image.Resampling = Image.Resampling.LANCZOS) -> Image.Image:
        """The image as training pixels."""
        box = self.box(*image.size)
        return image.resize(self.size, resample, box=box)


def frame_of(width: int, height: int, resolution: int, step: int, buckets: bool = True, upscale: bool = False) -> Frame:
    """The frame of an image of width x height pixels.

    resolution  the side of the square whose area all buckets keep to
    step        what both sides of a bucket divide by
    buckets     False: every image is cut to the square
    upscale     False: an image smaller than its bucket goes into the largest bucket that it fills
    """
    size = _nearest(width / height, resolution, step) if buckets else (resolution, resolution)
    scale = max(size[0] / width, size[1] / height)
    if scale > 1 and not upscale:
        # No pixel is invented: the largest bucket of the image's own size, at least one step a side.
        size = (min(size[0], max(step, width // step * step)), min(size[1], max(step, height // step * step)))
        size = size if buckets else (min(size), min(size))
        scale = max(size[0] / width, size[1] / height)
    scaled = (max(size[0], round(width * scale)), max(size[1], round(height * scale)))
    return Frame(size, scaled, (scaled[0] - size[0]) // 2, (scaled[1] - size[1]) // 2)


def _nearest(aspect: float, resolution: int, step: int) -> tuple[int, int]:
    """The bucket whose aspect (width / height) is nearest on a logarithmic scale, of about resolution² pixels."""
    return min(shapes(resolution, step), key=lambda size: (abs(math.log(size[0] / size[1] / aspect)), size))


def shapes(resolution: int, step: int) -> list[tuple[int, int]]:
    """All buckets: sides that divide by `step`, an area of at most resolution², not more extreme than 3 : 1.

    A resolution below `step` has one bucket, of a step a side.
    """
    square = max(step, resolution // step * step)
    found = {(square, square)}
    for long in range(square, int(resolution * math.sqrt(MAX_ASPECT)) + 1, step):
        short = resolution * resolution // long // step * step
        if short and long / short <= MAX_ASPECT:
            found |= {(long, short), (short, long)}
    return sorted(found)
