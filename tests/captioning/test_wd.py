"""The WD tagger against its published preprocessing, worked out here a second time, and its way with tags."""

import sys

import numpy as np
import pytest
from PIL import Image

from studio.captioning import load_captioner
from studio.captioning.wd import preprocess, spaced
from studio.errors import BaseModelError
from tests.captioning import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny.wd(tmp_path_factory.mktemp("wd"))


def load(folder, **settings):
    return load_captioner("wd", {"model": str(folder), "general_threshold": 0.0, **settings})


def cubic(size: int, wanted: int) -> np.ndarray:
    """(wanted, size): Pillow's bicubic (a = -0.5), whose window grows with the shrinking, as a matrix."""
    scale = max(size / wanted, 1.0)
    centres = (np.arange(wanted)[:, None] + 0.5) * size / wanted
    x = np.abs((np.arange(size)[None] + 0.5 - centres) / scale)
    near = ((1.5 * x - 2.5) * x) * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    weights = np.where(x < 1, near, np.where(x < 2, far, 0))
    return weights / weights.sum(1, keepdims=True)


def published(rgba: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 3) blue, green, red: alpha on white, centred on a white square, bicubic, 0 to 255."""
    colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:].astype(float) / 255
    height, width = rgba.shape[:2]
    side = max(height, width)
    square = np.full((side, side, 3), 255.0)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = colour * alpha + 255 * (1 - alpha)
    matrix = cubic(side, size)
    across = np.clip(np.einsum("lk,jkc->jlc", matrix, square), 0, 255)
    return np.clip(np.einsum("ij,jlc->ilc", matrix, across), 0, 255)[..., ::-1]


@pytest.mark.parametrize("shape", [(40, 61), (61, 40), (48, 48), (24, 24), (9, 15)])
def test_preprocessing_is_the_published_one(shape):
    rgba = np.random.default_rng(1).integers(0, 256, (*shape, 4), np.uint8)
    found = preprocess(Image.fromarray(rgba, "RGBA"), 24)
    assert found.shape == (24, 24, 3) and found.dtype == np.float32
    assert np.abs(found - published(rgba, 24)).max() < 2  # Pillow rounds to whole numbers, three times


def test_opaque_and_palette_and_grey_images_come_the_same_way():
    grey = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4, "L")
    assert np.array_equal(preprocess(grey, 8), np.repeat(np.asarray(grey, np.float32)[..., None], 3, 2))
    red = Image.new("RGB", (8, 8), "red")
    assert preprocess(red, 8)[0, 0].tolist() == [0, 0, 255]
    assert np.array_equal(preprocess(red.convert("P"), 8), preprocess(red, 8))


def test_a_very_long_image_needs_no_square_of_its_length():
    assert preprocess(Image.new("RGB", (60_000, 20), "black"), 24).shape == (24, 24, 3)


@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_probabilities_are_the_model_s_whatever_batch_it_was_made_for(tmp_path, batch):
    tagger, images = load(tiny.wd(tmp_path, batch=batch)), tiny.images(3)
    found = tagger.probabilities(images)
    means = np.stack([preprocess(image, 24).mean((0, 1)) / 255 for image in images])
    assert np.allclose(found[:, 3:6], means, atol=1e-5) and found.shape == (3, 7)
    assert len(tagger.caption(images)) == 3 and tagger.caption([]) == []


def image(blue: float, green: float, red: float) -> Image.Image:
    return Image.new("RGB", (24, 24), tuple(round(255 * value) for value in (red, green, blue)))


def test_thresholds_order_spaces_faces_ratings_and_characters(folder):
    seen = [image(0.9, 0.5, 0.2)]  # long_hair 0.9, ^_^ 0.5, red_dress 0.2; the character 0.53
    assert load(folder, general_threshold=0.35).caption(seen) == ["long hair, ^_^"]
    assert load(folder, character_threshold=0.5).caption(seen) == ["hatsune miku (cosplay), long hair, ^_^, red dress"]
    assert load(folder, character_threshold=0.5, characters=False).caption(seen) == ["long hair, ^_^, red dress"]
    assert load(folder, rating=True, spaces=False).caption(seen) == ["long_hair, ^_^, red_dress, general"]
    assert load(folder, blacklist="Long hair, ^_^ ,").caption(seen) == ["red dress"]
    assert load(folder, blacklist="red_dress").caption(seen) == ["long hair, ^_^"]
    assert load(folder, general_threshold=0.95).caption(seen) == [""]


def test_faces_keep_their_underscore():
    faces = ["0_0", "(o)_(o)", "+_+", "^_^", ">_<", "3_3", "6_9", ">_o", "@_@", "u_u", "x_x", "|_|", "||_||", "=_="]
    assert [spaced(face) for face in faces] == faces
    assert [spaced(tag) for tag in ("long_hair", "d.va_(overwatch)", "2b_(nier)")] == [
        "long hair",
        "d.va (overwatch)",
        "2b (nier)",
    ]


def test_without_onnx_runtime_one_line_says_what_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(BaseModelError, match="pip install onnxruntime"):
        load(folder)


def test_a_folder_that_is_no_tagger_is_said(folder, tmp_path):
    model = (folder / "model.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(model)
    with pytest.raises(BaseModelError, match="selected_tags.csv"):
        load(tmp_path)
    tags = (folder / "selected_tags.csv").read_text().splitlines(True)
    (tmp_path / "selected_tags.csv").write_text("".join(tags[:-1]))
    with pytest.raises(BaseModelError, match="the model gives 7 tags and selected_tags.csv names 6"):
        load(tmp_path).caption(tiny.images(1))
    (tmp_path / "model.onnx").write_bytes(model[:50])
    with pytest.raises(BaseModelError, match="can't be loaded") as error:
        load(tmp_path)
    assert "\n" not in str(error.value)
