"""Opening a folder: what counts as an image, what is named as a problem, and thumbnails of what is there."""

import os

import numpy as np
import pytest
from PIL import Image

from studio.datasets import open_dataset, open_image, thumbnail
from studio.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "images"
    place.mkdir()
    Image.new("RGB", (400, 200), "red").save(place / "a.png")
    return place


def test_hidden_files_and_masks_are_no_images(folder):
    for name in (".hidden.png", "a-masklabel.png", "a-condlabel.png"):
        Image.new("L", (8, 8)).save(folder / name)
    (folder / ".cache").mkdir()
    Image.new("L", (8, 8)).save(folder / ".cache" / "b.png")
    dataset = open_dataset(folder)
    assert [item.path.name for item in dataset.items] == ["a.png"]
    assert dataset.problems == ["a-condlabel.png: a control image, those are not used."]


def test_text_renamed_png_is_a_problem_and_stays_where_it_is(folder):
    (folder / "notes.png").write_text("shopping list")
    dataset = open_dataset(folder)
    assert len(dataset.items) == 1 and dataset.problems == ["notes.png: not an image."]
    assert (folder / "notes.png").read_text() == "shopping list"


def test_a_folder_of_only_bad_files_says_which_in_one_sentence(tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_text("no")
    with pytest.raises(DatasetError, match=r": a.png: not an image and 1 more\.$"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("name", ["nowhere", "x" * 5000, "nul\0"])
def test_a_folder_that_is_not_there_is_said(tmp_path, name):
    with pytest.raises(DatasetError, match="There is no folder"):
        open_dataset(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege there")
def test_links_to_outside_and_to_nowhere_are_named_and_not_followed(folder):
    Image.new("RGB", (8, 8)).save(folder.parent / "secret.png")
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    dataset = open_dataset(folder)
    assert [item.path.name for item in dataset.items] == ["a.png"]
    assert [line.split(":")[0] for line in dataset.problems] == ["link.png", "loop.png"]


def test_deep_images_keep_their_tones(tmp_path):
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")  # nearly black, although below 256
    assert open_image(tmp_path / "dark.png").getpixel((0, 0)) == (1, 1, 1)
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "float.tif")
    assert open_image(tmp_path / "float.tif").getpixel((0, 0)) == (128, 128, 128)
    Image.fromarray(np.full((4, 4), 32768, np.int32)).save(tmp_path / "long.tif")
    assert open_image(tmp_path / "long.tif").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.filterwarnings("ignore")  # Pillow says much about each
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP"])
def test_damaged_images_open_or_are_named(tmp_path, form):
    path, draw = tmp_path / "x.png", np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = Image.fromarray(draw.integers(0, 255, (16, 16, 3), dtype=np.uint8))
    noise.save(path, form, **({} if form in ("GIF", "BMP") else {"exif": exif}))
    whole = path.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for at in draw.integers(0, min(len(data), 400), 6):
            data[at] = draw.integers(0, 256)
        try:
            assert open_image(bytes(data), "x").mode == "RGB"
        except DatasetError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


def test_a_thumbnail_is_made_once_and_again_when_the_image_changes(folder, tmp_path):
    first = thumbnail(folder / "a.png", tmp_path / "cache")
    assert Image.open(first).size == (192, 96)
    made = first.stat().st_mtime_ns
    assert thumbnail(folder / "a.png", tmp_path / "cache") == first and first.stat().st_mtime_ns == made
    Image.new("RGB", (100, 300), "blue").save(folder / "a.png")
    assert Image.open(thumbnail(folder / "a.png", tmp_path / "cache")).size == (64, 192)
    with pytest.raises(DatasetError, match="gone"):
        thumbnail(folder / "never.png", tmp_path / "cache")
