"""Augmentation: what a variant keeps of an image, and that numbers alone decide it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from studio.datasets import frame_of
from studio.training.augmenting import Augmented, inner_share, variants_of
from studio.training.config_sections import DataConfig

WIDE, SQUARE = (300, 200), (128, 128)


def variants(size=WIDE, seed=0, digest="x", resolution=64, **settings) -> tuple[Augmented, ...]:
    data = DataConfig(folder="x", augmentations=settings.pop("augmentations", 16), **settings)
    return variants_of(frame_of(*size, resolution, 8), size, data, seed, digest)


def test_without_augmentation_the_image_is_cut_as_ever():
    (one,) = variants()
    assert one == Augmented(frame_of(*WIDE, 64, 8)) and one.describe(one.frame) == "as it is"


def test_variants_depend_on_seed_image_and_number_alone():
    asked = {"random_crop": 0.3, "rotation": 5, "color_jitter": 0.2}
    assert variants(**asked) == variants(**asked) and len(set(variants(**asked))) == 16
    assert variants(**asked)[:4] == variants(**asked, augmentations=4)
    assert variants(**asked) != variants(seed=1, **asked) and variants(**asked) != variants(digest="y", **asked)


def test_a_crop_keeps_its_share_and_stays_within_the_image():
    plain = frame_of(*WIDE, 64, 8)
    found = variants(random_crop=0.3, augmentations=32)
    shares = [one.frame.size[0] / one.frame.scaled[0] for one in found]
    assert min(shares) >= 0.69 * plain.size[0] / plain.scaled[0] and max(shares) - min(shares) > 0.1
    assert len({(one.frame.left, one.frame.top) for one in found}) > 10
    for one in found:
        left, top, right, bottom = one.frame.box(*WIDE)
        assert 0 <= left < right <= WIDE[0] + 1e-6 and 0 <= top < bottom <= WIDE[1] + 1e-6
        assert one.image(Image.new("RGB", WIDE)).size == plain.size


def test_a_crop_invents_no_pixel_unless_enlarging_is_on():
    """An image of its bucket's own size can only be moved, and there is nowhere to."""
    size = (64, 64)
    assert set(variants(size, random_crop=0.5)) == {Augmented(frame_of(*size, 64, 8))}
    assert len(set(variants(size, random_crop=0.5, upscale=True))) > 10


@pytest.mark.parametrize("angle", [-20.0, 3.0, 45.0])
@pytest.mark.parametrize("size", [WIDE, SQUARE, (100, 300)])
def test_a_turned_image_has_no_empty_corner(size, angle):
    frame = frame_of(*size, 64, 8)
    white = Augmented(frame, angle).image(Image.new("RGB", size, "white"))
    assert np.asarray(white).min() > 240
    too_large = inner_share(*size, angle) * 1.1
    turned = Image.new("L", size, 255).rotate(angle, Image.Resampling.BICUBIC)
    box = [(side * (1 - too_large)) / 2 for side in size] + [(side * (1 + too_large)) / 2 for side in size]
    assert np.asarray(turned.crop(tuple(map(round, box)))).min() < 50, "it is the largest"


def test_the_mask_turns_with_the_image():
    image, mask = Image.new("RGB", SQUARE), Image.new("L", SQUARE)
    for one, fill in ((image, "white"), (mask, 255)):
        ImageDraw.Draw(one).rectangle((20, 30, 70, 60), fill=fill)
    for one in variants(SQUARE, rotation=15, random_crop=0.3, augmentations=4):
        seen, kept = np.asarray(one.image(image), float)[..., 0], np.asarray(one.mask(mask), float)
        assert np.abs(seen - kept).mean() < 1


def test_colors_change_within_their_share_and_nothing_else_does():
    found = variants(color_jitter=0.2, augmentations=32)
    for name in ("brightness", "contrast", "saturation"):
        factors = [getattr(one, name) for one in found]
        assert 0.8 <= min(factors) < 0.9 and 1.1 < max(factors) <= 1.2
    grey = Image.new("RGB", WIDE, (100, 100, 100))
    for one in found[:4]:  # of a plain grey, contrast and saturation keep the mean
        assert np.asarray(one.image(grey)).mean() == pytest.approx(100 * one.brightness, abs=1.5)
        assert one.frame == frame_of(*WIDE, 64, 8)
