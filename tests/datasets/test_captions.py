"""Captions in every place and encoding that people keep them in, and writes that lose nothing."""

import pytest
from PIL import Image

from studio.datasets import captions as captions_module
from studio.datasets import open_dataset, read_caption, set_caption
from studio.errors import DatasetError


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize(
    "data", ["café".encode(), "café".encode("utf-8-sig"), "café".encode("cp1252"), "café".encode("utf-16")]
)
def test_captions_from_any_editor_are_read(image, data):
    image.with_suffix(".txt").write_bytes(data)
    assert open_dataset(image.parent).items[0].caption == "café"


def test_a_huge_caption_file_is_cut_between_characters(image):
    set_caption(image, "a" + "é" * 80_000)
    assert read_caption(image) == "a" + "é" * 49_999, "100 kB are read, and they end inside an é"


def test_half_characters_and_nulls_are_dropped_instead_of_failing(image):
    set_caption(image, "a\ud800 b\0c")
    assert read_caption(image) == "a b c"


def test_an_empty_caption_removes_both_kinds_of_sidecar(image):
    image.with_suffix(".txt").write_text("one")
    image.with_suffix(".caption").write_text("two")
    set_caption(image, " \n")
    assert sorted(path.name for path in image.parent.iterdir()) == ["a.png"]


def test_a_table_in_a_subfolder_speaks_for_its_own_images_and_a_sidecar_outranks_it(image):
    inner = image.parent / "inner"
    inner.mkdir()
    for name in ("b.png", "c.png"):
        Image.new("RGB", (8, 8)).save(inner / name)
    (image.parent / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "A"}\n{"text": 3}\n[]\n')
    (inner / "metadata.jsonl").write_text(
        '{"file_name": "b.png", "caption": "B"}\n{"file_name": "c.png", "text": "C"}\n'
    )
    set_caption(inner / "c.png", "by hand")
    assert [item.caption for item in open_dataset(image.parent).items] == ["A", "B", "by hand"]


def test_a_full_disk_is_said_in_one_line(image, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(captions_module, "atomic_write", full)
    with pytest.raises(DatasetError, match="a.png: its caption can't be written .No space left"):
        set_caption(image, "words")
