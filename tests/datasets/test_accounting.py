"""Every file of a folder is used, left out with the reason, or counted as something else; images stand upright."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from studio.datasets import export, open_dataset, open_image, size_of, write_captions
from studio.datasets.images import FORMATS, OTHER_SUFFIXES, SUFFIXES
from studio.datasets.listing import list_folder


def quarters(size=(48, 32)) -> Image.Image:
    """Four colours, so that every way of turning it looks different."""
    image = Image.new("RGB", size, "red")
    for colour, box in (("lime", (size[0] // 2, 0)), ("blue", (0, size[1] // 2))):
        image.paste(colour, (*box, box[0] + size[0] // 2, box[1] + size[1] // 2))
    return image


def saved(form: str, orientation: int) -> bytes:
    exif, stream = Image.Exif(), io.BytesIO()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}, "AVIF": {"quality": 100}}
    quarters().save(stream, form, exif=exif, **options.get(form, {}))
    return stream.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "MPO", "AVIF"])
def test_an_image_is_turned_upright_once_and_its_size_is_known_before(form, orientation):
    """The oracle turns the pixels that were saved, by EXIF's own table (JEITA CP-3451, 4.6.4), through Pillow."""
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    plain = quarters()
    plain.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(plain)
    data = saved(form, orientation)
    opened = open_image(data)
    assert size_of(data) == opened.size == upright.size
    assert np.abs(np.asarray(opened, int) - np.asarray(upright, int)).mean() < 8


def test_every_suffix_of_pillow_is_an_image_or_counted():
    for suffix, form in Image.registered_extensions().items():
        if form in (*FORMATS, "MPO"):
            assert suffix in SUFFIXES
        else:
            assert suffix in OTHER_SUFFIXES or form in ("PDF", "EPS", "HDF5", "BUFR", "GRIB")
    assert not SUFFIXES & OTHER_SUFFIXES and ".jfif" in SUFFIXES and ".apng" in SUFFIXES


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    quarters().save(place / "apple.jpg")
    quarters().save(place / "apple.png")
    quarters().save(place / "photo.jfif", "JPEG")
    (place / "apple.txt").write_text("an apple")
    return place


def test_a_folder_is_accounted_for_file_by_file(folder):
    quarters().save(folder / "art.tga")
    (folder / "raw.CR2").write_bytes(b"x")
    (folder / "notes.md").write_text("notes")
    (folder / ".hidden").write_text("x")
    (folder / "photo.TXT").write_text("a caption that no system but one finds")
    (folder / "photo.caption").write_text("a photo")
    (folder / "apple.caption").write_text("another apple")
    (folder / "photo.jfif.txt").write_text("a caption of no image")
    quarters().convert("L").save(folder / "photo-masklabel.png")
    quarters().convert("L").save(folder / "gone-masklabel.png")
    quarters().convert("L").save(folder / "photo-condlabel.png")
    quarters().convert("L").save(folder / "apple-masklabel.jpg")
    (folder / "elsewhere").symlink_to(folder.parent)
    dataset = open_dataset(folder)
    assert [item.file for item in dataset.items] == ["apple.jpg", "apple.png", "photo.jfif"]
    assert sorted(line.split(":")[0] for line in dataset.problems) == [
        "apple-masklabel.jpg", "apple.caption", "art.tga", "elsewhere", "gone-masklabel.png", "photo-condlabel.png",
        "photo.TXT", "raw.CR2",
    ]  # fmt: skip
    assert dataset.unrelated == sorted(dataset.unrelated, key=dataset.unrelated.index) and set(dataset.unrelated) == {
        ".hidden", "notes.md",
    }  # fmt: skip
    assert dataset.account().startswith("3 images, 8 files left out, 2 files of another kind (")
    listing = list_folder(folder)
    counted = len(listing.images) + listing.captions + len(listing.orphans) + listing.masks + len(listing.skipped)
    assert counted + len(listing.unrelated) == len(list(folder.iterdir()))


def test_two_images_of_one_stem_share_no_caption_and_no_mask(folder):
    quarters().convert("L").save(folder / "apple-masklabel.png")
    dataset = open_dataset(folder)
    first, second, _ = dataset.items
    assert (first.caption, second.caption) == ("an apple", "")
    assert first.mask_file and second.mask_file is None and second.caption_now() == ""
    assert dataset.warnings == ["apple.png: its caption file would be that of apple.jpg, rename one of the two."]
    change = write_captions(dataset, {"apple.jpg": "green", "apple.png": "red"}, "caption")
    assert change.files == ["apple.jpg"] and [line.split(":")[0] for line in change.left] == ["apple.png"]
    assert (folder / "apple.txt").read_text() == "green\n"


def test_an_export_gives_images_of_one_stem_names_of_their_own(folder, tmp_path):
    (folder / "metadata.jsonl").write_text('{"file_name": "apple.png", "text": "from the table"}\n')
    out = export(open_dataset(folder), tmp_path / "out")
    assert (out / "apple.txt").read_text() == "an apple\n"
    assert (out / "apple-2.png").is_file() and (out / "apple-2.txt").read_text() == "from the table\n"


def test_a_file_of_the_same_size_and_time_is_looked_at_anew(folder):
    """As `cp -p`, `rsync -t` and unzipping leave it."""
    import os

    from studio.datasets.image_index import changed_at

    before = (folder / "apple.png").stat()
    os.utime(folder / "apple.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert changed_at((folder / "apple.png").stat()) > before.st_mtime_ns
