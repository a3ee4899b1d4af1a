"""Opening a large folder reads each header once; what is known is believed only while the file is the same."""

import shutil

import pytest
from PIL import Image

from studio.datasets import folder as folder_module
from studio.datasets import images, open_dataset, size_of
from studio.datasets.images import read_header
from tests.datasets.made import chunk, encoded


@pytest.fixture
def large(tmp_path):
    Image.new("RGB", (12, 8)).save(tmp_path / "0.png")
    for number in range(1, 600):
        shutil.copy(tmp_path / "0.png", tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"tag {number}\n")
    return tmp_path


def test_headers_are_read_once_and_again_for_what_changed(large, monkeypatch):
    read = []
    monkeypatch.setattr(folder_module, "read_header", lambda path: read.append(path.name) or read_header(path))
    first = open_dataset(large)
    assert len(read) == 600 and (large / ".studio" / "images.json").is_file()
    assert open_dataset(large) == first and len(read) == 600
    (large / "5.png").unlink()
    Image.new("RGB", (30, 20)).save(large / "5.png")
    assert {item.path.name: item.size for item in open_dataset(large).items}["5.png"] == (30, 20)
    assert read[600:] == ["5.png"]


def test_a_small_folder_is_not_written_to(tmp_path):
    Image.new("RGB", (12, 8)).save(tmp_path / "0.png")
    open_dataset(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["0.png"]


@pytest.mark.parametrize("late", [False, True])
def test_the_size_of_a_turned_png_is_known_without_decoding_it(tmp_path, late):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    if late:  # the chunk after the pixels, where it may stand as well
        at = data.index(b"eXIf") - 4
        chunk = data[at : at + 12 + int.from_bytes(data[at : at + 4], "big")]
        end = data.index(b"IEND") - 4
        data = data[:at] + data[at + len(chunk) : end] + chunk + data[end:]
        (tmp_path / "a.png").write_bytes(data)
    with Image.open(tmp_path / "a.png") as image:
        assert image.getexif()[0x0112] == 6
    assert size_of(tmp_path / "a.png") == open_dataset(tmp_path).items[0].load().size == (20, 40)


def test_what_follows_a_pngs_end_is_not_searched(tmp_path, monkeypatch):
    """20 MB of zeros behind it were taken for 1.7 million chunks, at each look."""
    monkeypatch.setattr("studio.datasets.images.MOST_CHUNKS", 10)
    bare = encoded()
    late = bare[:-12] + chunk(b"tEXt", b"a\0b") + bare[-12:]
    many = bare[:-12] + chunk(b"prVt", b"") * 100_000 + bare[-12:]
    for data in (bare + bytes(20_000_000), late, many):
        path = tmp_path / "a.png"
        path.write_bytes(data)
        with open(path, "rb") as stream:
            seen = Counted(stream)
            assert size_of(path) == (12, 8)
            with Image.open(seen) as image:
                before = seen.reads
                images._header_exif(image)
                assert seen.reads - before < 40


class Counted:
    """A file that counts how often it is read."""

    def __init__(self, stream):
        self.stream, self.reads = stream, 0

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def read(self, *size):
        self.reads += 1
        return self.stream.read(*size)
