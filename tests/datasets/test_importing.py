"""Importing a mixed pile: each file is taken or named, captions find their pictures, one bad file spoils nothing."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from studio.datasets import copy_sample, import_pictures, list_samples, open_dataset
from studio.errors import DatasetError
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def encoded(form="PNG", colour="red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(stream, form)
    return stream.getvalue()


def zipped(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def captions_of(dataset):
    return {item.path.name: item.caption for item in dataset.items}


def test_a_bad_zip_among_good_pictures_costs_one_line_and_no_caption(workspace, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded())
    (tmp_path / "good.txt").write_text("words")
    (tmp_path / "bad.zip").write_bytes(b"junk")
    evil = zipped(tmp_path / "evil.zip", {"../x.png": encoded()})
    dataset, skipped = import_pictures(
        workspace, "mine", [tmp_path / "good.png", tmp_path / "good.txt", tmp_path / "bad.zip", evil]
    )
    assert captions_of(dataset) == {"good.png": "words"}
    assert [line.split(":")[0] for line in skipped] == ["bad.zip", "evil.zip"]


def test_a_damaged_entry_is_named_and_the_rest_comes_in(workspace, tmp_path):
    archive = zipped(tmp_path / "z.zip", {"torn.bmp": np.random.default_rng(0).bytes(3000), "good.png": encoded()})
    data = bytearray(archive.read_bytes())
    data[50:900] = b"\xff" * 850
    archive.write_bytes(data)
    dataset, skipped = import_pictures(workspace, "mine", [archive])
    assert list(captions_of(dataset)) == ["good.png"] and skipped == ["torn.bmp: can't be unpacked."]


def test_content_decides_and_the_suffix_follows_it(workspace, tmp_path):
    files = {"scan.jfif": encoded("JPEG"), "really-webp.png": encoded("WEBP"), "photo": encoded(), "clip.heic": b"x"}
    dataset, skipped = import_pictures(workspace, "mine", [zipped(tmp_path / "z.zip", files)])
    assert set(captions_of(dataset)) == {"scan.jpg", "really-webp.webp", "photo.png"}
    assert len(skipped) == 1 and skipped[0].startswith("clip.heic: not a picture")


def test_pictures_that_share_a_stem_get_captions_of_their_own(workspace, tmp_path):
    files = {"1/a.png": encoded(), "1/a.txt": b"one", "2/a.jpg": encoded("JPEG"), "2/a.txt": b"two", "A.bmp": b"BM"}
    dataset, _ = import_pictures(workspace, "mine", [zipped(tmp_path / "z.zip", files)])
    assert captions_of(dataset) == {"a.png": "one", "a-2.jpg": "two"}
    (tmp_path / "a.webp").write_bytes(encoded("WEBP"))
    dataset, _ = import_pictures(workspace, "mine", [tmp_path / "a.webp"])
    assert captions_of(dataset) == {"a.png": "one", "a-2.jpg": "two", "a-3.webp": ""}


def test_a_caption_beside_the_picture_comes_along_unasked_and_from_another_folder_when_given(workspace, tmp_path):
    for name in ("upload-1", "upload-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "near.png").write_bytes(encoded())
    (tmp_path / "near.caption").write_text("beside it")
    (tmp_path / "upload-1" / "far.png").write_bytes(encoded())
    (tmp_path / "upload-2" / "far.TXT").write_text("dropped with it")
    dataset, skipped = import_pictures(
        workspace,
        "mine",
        [tmp_path / "near.png", tmp_path / "upload-1" / "far.png", tmp_path / "upload-2" / "far.TXT"],
    )
    assert captions_of(dataset) == {"far.png": "dropped with it", "near.png": "beside it"} and not skipped


def test_a_table_of_captions_in_a_zip_becomes_sidecars_and_the_rest_is_named(workspace, tmp_path):
    files = {
        "set/p.png": encoded(),
        "set/metadata.jsonl": b'{"file_name": "p.png", "text": "from the table"}',
        "set/p-masklabel.png": encoded(),
        "readme.txt": b"hello",
        ".DS_Store": b"x",
        "__MACOSX/set/._p.png": b"x",
    }
    dataset, skipped = import_pictures(workspace, "mine", [zipped(tmp_path / "z.zip", files)])
    assert captions_of(dataset) == {"p.png": "from the table"}
    assert skipped == ["p-masklabel.png: a mask, masks are not used.", "readme.txt: a caption of no picture here."]


@pytest.mark.parametrize("name", ["長" * 300 + ".png", "x" * 300 + ".png", "12:30.png", "???.png", "nul.png", "-.png"])
def test_names_that_no_disk_takes_come_in_under_one_that_it_does(workspace, tmp_path, name):
    dataset, _ = import_pictures(workspace, "mine", [zipped(tmp_path / "z.zip", {"a/" + name: encoded()})])
    assert len(dataset.items) == 1 and dataset.items[0].path.parent == dataset.folder


def test_an_entry_that_understates_its_size_yields_no_more_than_it_said(workspace, tmp_path):
    archive = zipped(tmp_path / "z.zip", {"a.png": encoded() + bytes(500_000)}, zipfile.ZIP_STORED)
    data = archive.read_bytes()
    size, lie = (500_000 + len(encoded())).to_bytes(4, "little"), (100).to_bytes(4, "little")
    archive.write_bytes(data.replace(size, lie))
    with pytest.raises(DatasetError, match="a.png"):
        import_pictures(workspace, "mine", [archive])
    assert not (workspace.datasets / "mine").exists()


def test_a_folder_or_a_missing_file_among_the_paths_is_named(workspace, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded())
    (tmp_path / "folder").mkdir()
    _, skipped = import_pictures(
        workspace, "mine", [tmp_path / "good.png", tmp_path / "folder", tmp_path / "gone.png", tmp_path / "gone.zip"]
    )
    assert [line.split(":")[0] for line in skipped] == ["folder", "gone.png", "gone.zip"]


def test_an_unknown_sample_is_said_and_a_copy_leaves_nothing_half_made(workspace):
    with pytest.raises(DatasetError, match="no sample dataset"):
        copy_sample(workspace, "../silhouette")
    name = list_samples()[0]
    copy_sample(workspace, name)
    assert [path.name for path in workspace.datasets.iterdir()] == [name]
    assert open_dataset(workspace.datasets / name).items
