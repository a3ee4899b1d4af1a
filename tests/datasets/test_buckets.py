"""Aspect-ratio buckets: every image keeps its shape as nearly as the step allows, and no pixel is invented."""

import random

import pytest
from PIL import Image

from studio.datasets import frame_of
from studio.datasets.buckets import shapes


def test_buckets_keep_the_area_and_divide_by_the_step():
    for resolution, step in ((128, 32), (512, 64), (1024, 64)):
        found = shapes(resolution, step)
        assert (resolution, resolution) in found and len(found) > 4
        for width, height in found:
            assert width % step == height % step == 0 and max(width, height) <= 3 * min(width, height)
            assert 0.6 * resolution**2 < width * height <= resolution**2


@pytest.mark.parametrize(
    "size, bucket",
    [((1000, 1000), (512, 512)), ((1920, 1080), (640, 384)), ((1080, 1920), (384, 640)), ((4000, 600), (768, 320))],
)
def test_a_large_image_goes_to_the_bucket_of_its_shape(size, bucket):
    assert frame_of(*size, 512, 64).size == bucket


def test_nothing_is_enlarged_unless_asked():
    chance = random.Random(1)
    for _ in range(500):
        width, height = chance.randint(64, 2000), chance.randint(64, 2000)
        frame = frame_of(width, height, 512, 64)
        assert frame.scaled[0] <= width + 1 and frame.scaled[1] <= height + 1
        assert frame.size[0] <= frame.scaled[0] and frame.size[1] <= frame.scaled[1]
        larger = frame_of(width, height, 512, 64, upscale=True)
        assert larger.size in shapes(512, 64)
    assert frame_of(200, 150, 512, 64).size == (192, 128)
    assert frame_of(20, 15, 512, 64).size == (64, 64), "smaller than a step: there is no other way"


def test_a_resolution_below_the_step_has_one_bucket_of_a_step_a_side():
    assert shapes(10, 32) == [(32, 32)]
    assert frame_of(400, 100, 10, 32).size == (32, 32)


def test_the_cut_is_the_middle_and_what_is_lost_is_said():
    frame = frame_of(1000, 500, 512, 64, buckets=False)
    assert frame.size == (448, 448), "the largest square that 500 pixels fill"
    assert frame.lost == pytest.approx(0.5, abs=0.02)
    left, top, right, bottom = frame.box(1000, 500)
    assert (
        left == pytest.approx(1000 - right, abs=2) and top == pytest.approx(0, abs=1) and bottom == pytest.approx(500)
    )


def test_the_pixels_are_those_inside_the_box():
    image = Image.new("RGB", (600, 300), "red")
    image.paste("blue", (150, 0, 450, 300))
    frame = frame_of(600, 300, 128, 32, buckets=False)
    cut = frame.cut(image)
    assert cut.size == frame.size == (128, 128)
    assert cut.getpixel((64, 64)) == cut.getpixel((3, 64)) == (0, 0, 255), "only the blue middle is kept"
