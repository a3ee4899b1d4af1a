"""An export is new files that other programs read; nothing is written over, nothing of ours goes out."""

import csv
import json
import multiprocessing
import os
import threading
import time
import zipfile

import pytest
from PIL import Image

from studio.datasets import export, import_images, open_dataset, set_caption, write_captions
from studio.errors import DatasetError
from studio.workspace import Workspace, sweep


@pytest.fixture
def dataset(tmp_path):
    place = tmp_path / "set"
    (place / "10_cat").mkdir(parents=True)
    Image.new("RGB", (8, 6), "red").save(place / "a.jpg")
    Image.new("RGBA", (8, 6), (0, 0, 0, 0)).save(place / "10_cat" / "b.webp", lossless=True)
    Image.new("L", (8, 6), 255).save(place / "a-masklabel.png")
    set_caption(place / "10_cat" / "b.webp", 'a "quoted", café')
    write_captions(open_dataset(place), {"a.jpg": "red"}, "Edit")
    return open_dataset(place)


def names_in(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_sidecars_lie_beside_copies_that_are_the_same_byte_by_byte(dataset, tmp_path):
    out = export(dataset, tmp_path / "out")
    assert names_in(out) == {"a.jpg", "a.txt", "a-masklabel.png", "10_cat/b.webp", "10_cat/b.txt"}
    for name in ("a.jpg", "10_cat/b.webp"):
        assert (out / name).read_bytes() == (dataset.folder / name).read_bytes()
    assert (out / "10_cat" / "b.txt").read_text("utf-8") == 'a "quoted", café\n'


def test_the_table_is_imagefolders_and_comes_back_in(dataset, tmp_path):
    out = export(dataset, tmp_path / "out", "metadata.jsonl")
    rows = [json.loads(line) for line in (out / "metadata.jsonl").read_text("utf-8").splitlines()]
    assert rows == [
        {"file_name": "10_cat/b.webp", "text": 'a "quoted", café'},
        {"file_name": "a.jpg", "text": "red"},
    ]
    assert names_in(out) == {"a.jpg", "a-masklabel.png", "10_cat/b.webp", "metadata.jsonl"}
    back, skipped = import_images(Workspace.open(tmp_path / "workspace"), "back", [out])
    assert [(back.file_of(i), i.caption, i.repeats) for i in back.items] == [
        (dataset.file_of(i), i.caption, i.repeats) for i in dataset.items
    ]
    assert not skipped and back.by_file()["a.jpg"].mask_file


def test_a_zip_holds_the_same_and_comes_back_in(dataset, tmp_path):
    out = export(dataset, tmp_path / "out.zip", "zip")
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None and ".studio" not in " ".join(archive.namelist())
    back, _ = import_images(Workspace.open(tmp_path / "workspace"), "back", [out])
    assert [i.caption for i in back.items] == [i.caption for i in dataset.items]


def test_further_captions_go_out_and_come_back(dataset, tmp_path):
    (dataset.folder / "10_cat" / "b.1.txt").write_text("another\nof two lines\n")
    folder = export(open_dataset(dataset.folder), tmp_path / "out", "sidecars")
    assert (folder / "10_cat" / "b.1.txt").read_text() == "another\nof two lines\n"
    assert {item.path.name: item.variants for item in open_dataset(folder).items}["b.webp"] == ("b.1.txt",)


def test_transparent_images_are_laid_on_the_colour_that_was_asked_for(dataset, tmp_path):
    Image.new("RGBA", (8, 6), (0, 0, 0, 0)).save(dataset.folder / "10_cat" / "b.gif")
    out = export(open_dataset(dataset.folder), tmp_path / "out", background="#0000ff")
    for name in ("b.png", "b-2.png"):
        with Image.open(out / "10_cat" / name) as image:
            assert image.mode == "RGB" and image.getpixel((0, 0)) == (0, 0, 255)
    assert (out / "a.jpg").read_bytes() == (dataset.folder / "a.jpg").read_bytes(), "it has nothing transparent"


def test_nothing_is_written_over_and_a_stop_leaves_nothing(dataset, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "a.jpg").write_text("mine")
    (tmp_path / "mine.zip").write_text("mine")
    stop = threading.Event()
    stop.set()
    for target, kind, more in (
        (full, "sidecars", {}),
        (tmp_path / "mine.zip", "zip", {}),
        (tmp_path / "mine.zip", "sidecars", {}),
        (dataset.folder / "out", "sidecars", {}),
        (tmp_path / "new", "parquet", {}),
        (tmp_path / "new", "sidecars", {"background": "blurple"}),
        (tmp_path / "new.zip", "zip", {"stop": stop}),
        (tmp_path / ("x" * 300), "sidecars", {}),
    ):
        before = names_in(tmp_path)
        with pytest.raises(DatasetError) as caught:
            export(dataset, target, kind, **more)
        assert "\n" not in str(caught.value) and names_in(tmp_path) == before
    (dataset.folder / "a.jpg").unlink()
    with pytest.raises(DatasetError, match="a.jpg: the file is gone"):
        export(dataset, tmp_path / "half")
    assert names_in(tmp_path / "half") == set()


def test_a_csv_of_captions_is_read_as_the_csv_module_wrote_it(dataset, tmp_path):
    place = tmp_path / "imagefolder"
    (place / "train").mkdir(parents=True)
    captions = {"train/x.png": 'say "hi",\nthen go', "y.png": "日本語, tag"}
    for file in captions:
        Image.new("RGB", (8, 8)).save(place / file)
    with open(place / "metadata.csv", "w", newline="", encoding="utf-8-sig") as stream:
        csv.writer(stream).writerows([("id", "file_name", "text"), *((1, *row) for row in captions.items())])
    expected = {file: " ".join(caption.split()) for file, caption in captions.items()}
    assert {file: item.caption for file, item in open_dataset(place).by_file().items()} == expected
    back, _ = import_images(Workspace.open(tmp_path / "workspace"), "back", [place])
    assert {item.path.name: item.caption for item in back.items} == {
        file.split("/")[-1]: caption for file, caption in expected.items()
    }


@pytest.mark.parametrize("kind", ["sidecars", "metadata.jsonl", "zip"])
def test_a_stopped_export_leaves_its_place_free_for_the_next(dataset, tmp_path, kind):
    stop, target = threading.Event(), tmp_path / "out" / "set"
    with pytest.raises(DatasetError, match="stopped"):
        export(dataset, target, kind, progress=lambda *_: stop.set(), stop=stop)
    assert not list(target.parent.iterdir())
    assert export(dataset, target, kind).exists() and list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("kind", ["sidecars", "zip"])
def test_an_export_that_is_killed_leaves_only_what_the_next_start_sweeps_away(dataset, tmp_path, kind):
    exports = tmp_path / "exports"
    exports.mkdir()

    def work():
        export(dataset, exports / "set", kind, progress=lambda *_: os._exit(9))  # as a kill: nothing is tidied up

    child = multiprocessing.get_context("fork").Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == 9 and not (exports / "set").exists() and len(list(exports.iterdir())) == 1
    sweep(exports, time.time() + 3600)
    assert not list(exports.iterdir())


@pytest.mark.parametrize("kind", ["sidecars", "zip"])
def test_what_came_to_the_place_meanwhile_is_not_written_over(dataset, tmp_path, kind):
    target = tmp_path / "out"
    with pytest.raises(DatasetError, match="already exists"):
        export(dataset, target, kind, progress=lambda *_: target.write_text("mine"))
    assert target.read_text() == "mine" and not list(tmp_path.glob(".*"))


def test_an_empty_folder_can_be_the_place(dataset, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "a.jpg" in names_in(export(dataset, tmp_path / "empty"))
