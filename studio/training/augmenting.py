"""Augmentation beyond mirroring: random crops, colours, small rotations. No torch here.

What the trainer sees of an image is encoded once, so a run draws from a number of variants of each image, all of them
made before it: a pure function of the run's seed, the image's content and the variant's number.
"""

import math
import random
from dataclasses import dataclass

from PIL import Image, ImageEnhance

from studio.datasets.buckets import Frame
from studio.training.config_sections import DataConfig


@dataclass(frozen=True)
class Augmented:
    """One variant of an image.

    frame    how what is left after the rotation becomes training pixels
    angle    degrees, counterclockwise; the largest upright part of the image's shape that has no empty corner is left
    others   factors, 1 changes nothing
    """

    frame: Frame
    angle: float = 0.0
    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0

    def image(self, image: Image.Image) -> Image.Image:
        """The training pixels of an RGB image."""
        out = self.mask(image)
        for kind, factor in (
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ):
            out = kind(out).enhance(factor) if factor != 1 else out
        return out

    def mask(self, image: Image.Image) -> Image.Image:
        """The same without the colours."""
        if not self.angle:
            return self.frame.cut(image)
        factor = min(image.width // (2 * self.frame.scaled[0]), image.height // (2 * self.frame.scaled[1]))
        image = image.reduce(factor) if factor > 1 else image  # twice what is needed is enough to turn
        turned = image.rotate(self.angle, Image.Resampling.BICUBIC)
        width, height = (side * inner_share(*image.size, self.angle) for side in image.size)
        left, top = (image.width - width) / 2, (image.height - height) / 2
        x, y = width / self.frame.scaled[0], height / self.frame.scaled[1]
        box = (
            left + self.frame.left * x,
            top + self.frame.top * y,
            left + (self.frame.left + self.frame.size[0]) * x,
            top + (self.frame.top + self.frame.size[1]) * y,
        )
        return turned.resize(self.frame.size, Image.Resampling.LANCZOS, box=box)

    def describe(self, plain: Frame) -> str:
        """In words, against the image as it would be cut without augmentation."""
        parts = []
        share = self.frame.size[0] * plain.scaled[0] / (self.frame.scaled[0] * plain.size[0])
        share *= inner_share(*plain.scaled, self.angle)
        if self.frame != plain and not math.isclose(share, 1, abs_tol=0.005):
            parts.append(f"{share:.0%} of each side")
        elif self.frame != plain:
            parts.append("cut elsewhere")
        if self.angle:
            parts.append(f"turned {self.angle:+.1f}°")
        for name in ("brightness", "contrast", "saturation"):
            if (factor := getattr(self, name)) != 1:
                parts.append(f"{name} {factor:.2f}")
        return ", ".join(parts).replace("-", "−") or "as it is"


def augments(data: DataConfig) -> bool:
    """Whether images are trained in several variants."""
    return bool(data.random_crop or data.color_jitter or data.rotation)


def inner_share(width: float, height: float, angle: float) -> float:
    """The largest share of both sides, 0 to 1, so that an upright rectangle of this shape lies within the turned one.

    Its corners, turned back, lie within the image: w·s·cos + h·s·sin at most w, and w·s·sin + h·s·cos at most h.
    """
    cosine, sine = abs(math.cos(math.radians(angle))), abs(math.sin(math.radians(angle)))
    return min(width / (width * cosine + height * sine), height / (width * sine + height * cosine))


def variants_of(frame: Frame, size: tuple[int, int], data: DataConfig, seed: int, digest: str) -> tuple[Augmented, ...]:
    """The image's variants, `data.augmentations` of them; the image as it is where nothing augments.

    frame: of the image as it is. size: of the image, in pixels. digest: names its content.
    """
    if not augments(data):
        return (Augmented(frame),)
    return tuple(_drawn(frame, size, data, f"{seed} augment {digest} {number}") for number in range(data.augmentations))


def _drawn(frame: Frame, size: tuple[int, int], data: DataConfig, seed: str) -> Augmented:
    draw = random.Random(seed)
    angle = round(draw.uniform(-data.rotation, data.rotation), 3)
    inner = inner_share(*size, angle)
    width, height = size[0] * inner, size[1] * inner
    across, down = frame.size
    most = min(width / across, height / down)  # pixels of the image for one of the bucket, in the largest window
    least = 1 - data.random_crop
    if not data.upscale:  # a crop never has fewer pixels than its bucket
        least = max(least, min(1.0, 1 / most))
    zoom = most * draw.uniform(least, 1)
    scaled = (max(across, round(width / zoom)), max(down, round(height / zoom)))
    slack = scaled[0] - across, scaled[1] - down
    places = (draw.randint(0, slack[0]), draw.randint(0, slack[1]))
    left, top = places if data.random_crop else (slack[0] // 2, slack[1] // 2)
    light = [round(draw.uniform(1 - data.color_jitter, 1 + data.color_jitter), 4) for _ in range(3)]
    return Augmented(Frame(frame.size, scaled, left, top), angle, *light)
