"""Every file of a folder is used, left out with the reason, or counted as something else; images stand upright."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from studio.datasets import export, import_images, open_dataset, open_image, size_of, write_captions
from studio.datasets.images import FORMATS, OTHER_SUFFIXES, SUFFIXES
from studio.datasets.listing import list_folder
from studio.workspace import Workspace


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
        "apple-masklabel.jpg",
        "apple.caption",
        "art.tga",
        "elsewhere",
        "gone-masklabel.png",
        "photo-condlabel.png",
        "photo.TXT",
        "raw.CR2",
    ]
    assert dataset.unrelated == sorted(dataset.unrelated, key=dataset.unrelated.index) and set(dataset.unrelated) == {
        ".hidden",
        "notes.md",
    }
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


def several(form: str) -> bytes:
    stream = io.BytesIO()
    frames = [Image.new("RGB", (24, 16), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(stream, form, save_all=True, append_images=frames[1:])
    return stream.getvalue()


@pytest.mark.parametrize(
    ("form", "suffix"),
    [("GIF", "gif"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif"), ("AVIF", "avif"), ("MPO", "jpg")],
)
def test_of_an_animation_the_first_frame_is_used_and_that_is_said(tmp_path, form, suffix):
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    (tmp_path / f"moving.{suffix}").write_bytes(several(form))
    quarters().save(tmp_path / f"still.{suffix}", form)
    dataset = open_dataset(tmp_path)
    said = (
        []
        if form == "MPO"
        else [f"moving.{suffix}: several images (an animation, or pages), of which the first is used."]
    )
    assert dataset.warnings == said
    red = np.asarray(dataset.items[0].load()).mean((0, 1))
    assert np.abs(red - (255, 0, 0)).max() < 6


def test_animations_are_also_known_from_an_index_of_before(tmp_path):
    """Facts of 0.1 have eight fields and say nothing of frames; they keep what was measured."""
    from studio.datasets.analysis import analyse
    from studio.datasets.image_index import read_index

    (tmp_path / "a.gif").write_bytes(several("GIF"))
    analyse(open_dataset(tmp_path))
    index = tmp_path / ".studio" / "images.json"
    assert read_index(tmp_path)["a.gif"].several == 1
    notes = json.loads(index.read_text())
    notes["images"]["a.gif"] = notes["images"]["a.gif"][:8]
    index.write_text(json.dumps(notes))
    assert read_index(tmp_path)["a.gif"].several == -1
    assert "several images" in open_dataset(tmp_path).warnings[0]


def test_an_import_accounts_for_all_that_came(tmp_path):
    """Every file of the zip is in the dataset or named in a line on what was skipped."""
    archive, space = tmp_path / "mine.zip", Workspace.open(tmp_path / "workspace")
    with zipfile.ZipFile(archive, "w") as out:
        for name, data in {
            "a.png": saved("PNG", 1),
            "a.txt": b"a cat",
            "moving.gif": several("GIF"),
            "notes.md": b"notes",
            "lost.txt": b"nobody's",
            "__MACOSX/._a.png": b"x",
            ".DS_Store": b"x",
            "broken.jpg": b"\xff\xd8\xff",
            "gone-masklabel.png": saved("PNG", 1),
            "video.mp4": b"x",
        }.items():
            out.writestr(name, data)
    dataset, skipped = import_images(space, "mine", [archive])
    assert [item.file for item in dataset.items] == ["a.png", "moving.gif"]
    assert any("moving.gif: several images" in line for line in dataset.warnings)
    lines = "\n".join(skipped)
    for name in ("notes.md", "lost.txt", "broken.jpg", "gone-masklabel.png", "video.mp4"):
        assert f"{name}: " in lines, lines
    assert "__MACOSX/._a.png and 1 more: hidden, nothing to do with images." in lines and len(skipped) == 6
