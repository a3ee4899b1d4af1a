"""Small shares of bombs.py and extremes.py, each by what holds now."""

import threading
import time
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from studio.datasets import images, open_image
from studio.errors import DatasetError, StudioError
from studio.services.operations import all_operations
from studio.workspace import Workspace
from tests.chaos import bombs, extremes
from tests.tiers import in_full


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_exif_whose_values_overlap_is_not_read_into_memory(tmp_path, form):
    """Pillow keeps a copy for each tag: 65,000 tags of 60 kB once took 4 GB of a file of 0.8 MB."""
    (tmp_path / "a").write_bytes(bombs.exif_in(form, count=400, size=60_000))
    for read in (images.size_of, open_image, images.has_alpha):
        try:
            read(tmp_path / "a")
        except DatasetError as error:
            assert str(error) == "a: broken, it can't be decoded."
    with Image.open(tmp_path / "a") as image:
        with suppress(ValueError):
            image.getexif()
        assert len(image.getexif()) == 0


def test_a_tiff_whose_tags_overlap_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(bombs.tags(400, 60_000, first=256))
    with pytest.raises(DatasetError, match="can't be decoded"):
        open_image(tmp_path / "a.tif")


def test_an_images_own_exif_still_turns_it(tmp_path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = 6
    exif.get_ifd(0x8769)[0x9286] = b"x" * 50_000  # a long comment
    for form in ("JPEG", "PNG", "WEBP", "TIFF"):
        Image.new("RGB", (8, 4), "red").save(tmp_path / "a", form, exif=exif)
        assert open_image(tmp_path / "a").size == images.size_of(tmp_path / "a") == (4, 8), form


def test_a_jpeg_of_countless_scans_is_refused_and_a_progressive_one_is_not(tmp_path, monkeypatch):
    monkeypatch.setattr(bombs, "SIDE", 64)
    monkeypatch.setattr(images, "MAX_SCANNED", 64 * 64 * 100)
    (tmp_path / "a.jpg").write_bytes(bombs.jpeg_scans())
    with pytest.raises(DatasetError, match=r"^a.jpg: its pixels are stored in too many scans"):
        open_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(bombs.jpeg_large(progressive=True) + b"\xff\xda" * 1000)  # a video behind it
    assert open_image(tmp_path / "b.jpg").size == (64, 64)


def test_a_large_webp_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    Image.new("RGBA", (64, 64), "red").save(tmp_path / "a.webp")
    assert open_image(tmp_path / "a.webp").size == (64, 64)
    monkeypatch.setattr(images, "MAX_WEBP", 64 * 63)
    with pytest.raises(DatasetError, match="64 x 64 is too large to open safely"):
        open_image(tmp_path / "a.webp")


@pytest.mark.parametrize("mode", ["RGBA", "LA", "I;16", "I", "F", "P", "CMYK", "1"])
def test_an_image_is_the_same_made_band_by_band(tmp_path, monkeypatch, mode):
    chance = np.random.default_rng(0)
    values = chance.integers(0, 256, (37, 23, 4), dtype=np.uint8)
    image = Image.fromarray(values, "RGBA")
    if mode == "F":
        image = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    elif mode in ("I;16", "I"):
        image = Image.fromarray(values[..., 0].astype(np.uint16) * 200).convert(mode)
    else:
        image = image.convert("RGB").convert(mode) if mode in ("P", "CMYK", "1") else image.convert(mode)
    image.save(tmp_path / "a.tif")
    whole = open_image(tmp_path / "a.tif", background="blue").tobytes()
    monkeypatch.setattr(images, "BAND", 50)
    assert open_image(tmp_path / "a.tif", background="blue").tobytes() == whole


def test_large_images_are_decoded_one_after_the_other():
    room, held, most = images.Room(100), [], []

    def decode(pixels):
        with room(pixels):
            held.append(pixels)
            most.append(sum(held))
            time.sleep(0.005)
            held.remove(pixels)

    threads = [threading.Thread(target=decode, args=[pixels]) for pixels in (90, 40, 40, 90, 500, 20, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 7 and max(one for one in most if one != 500) <= 100


HEAVY = ("EXIF of a PNG that overlaps", "TIFF tags that overlap", "JPEG of 2,000 scans, 88 MP", "iTXt of 200 GB",
         "PNG with alpha, 88 MP", "WebP with alpha, 88 MP", "adapter whose weights overlap",
         "GIF of 100,000 frames")  # fmt: skip


@pytest.mark.parametrize("name", ["JPEG that claims 3,600 MP", *map(in_full, HEAVY)])
def test_a_bomb_takes_neither_memory_nor_time(name):
    bombs.import_everything()
    held, said, seconds, grown = bombs.tried(name)
    assert held, (said, seconds, grown)


@pytest.mark.parametrize(
    "names",
    [
        ("mend_dataset", "list_images", "save_caption"),
        in_full(("generate", "merge_adapters", "check_rerun", "check_prompt")),
        pytest.param(None, marks=pytest.mark.slow),
    ],
)
def test_no_value_takes_an_operation_far(tmp_path, names):
    tried = extremes.walk(tmp_path / "workspace", names or extremes.all_names(), extremes.VALUES)
    assert {name: dict(row.broke) for name, row in tried.items() if row.broke} == {}
    assert sum(row.calls for row in tried.values()) > 150 and sum(row.refused for row in tried.values()) > 80


@pytest.mark.parametrize(
    "name, given",
    [
        ("generate", {"prompt": "x", "adapters": [{"file": "ink.safetensors", "blocks": -1}]}),
        ("draw_grid", {"prompt": "x", "axes": [{"kind": "adapter", "picks": 1}]}),
        ("merge_adapters", {"adapters": [{"file": 0}, {"file": []}]}),
        ("add_adapter", {"file": "x" * 300}),
        ("check_rerun", {"file": "é" * 200}),
        ("check_settings", {"dataset": "silhouette", "more": {"adapter.alpha": 1e9}}),
    ],
)
def test_what_no_page_sends_is_refused_in_one_sentence(tmp_path, name, given):
    workspace = Workspace.open(tmp_path / "workspace")
    (workspace.adapters / "ink.safetensors").write_bytes(b"")
    if name == "check_settings":
        all_operations()["open_dataset"](workspace, "silhouette")
    with pytest.raises(StudioError) as refused:
        all_operations()[name](workspace, **given)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 200
