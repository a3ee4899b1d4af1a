"""Importing a mixed pile: each file is taken or named, captions find their images, one bad file spoils nothing."""

import multiprocessing
import os
import threading
import time
import zipfile
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

from studio.datasets import copy_sample, import_images, importing, list_samples, open_dataset
from studio.datasets.analysis import AHEAD, in_parallel
from studio.errors import DatasetError
from studio.workspace import Workspace, sweep
from tests.datasets.made import encoded, zip_at


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def captions_of(dataset):
    return {item.path.name: item.caption for item in dataset.items}


def test_a_bad_zip_among_good_images_costs_one_line_and_no_caption(workspace, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded())
    (tmp_path / "good.txt").write_text("words")
    (tmp_path / "bad.zip").write_bytes(b"junk")
    evil = zip_at(tmp_path / "evil.zip", {"../x.png": encoded()})
    dataset, skipped = import_images(
        workspace, "mine", [tmp_path / "good.png", tmp_path / "good.txt", tmp_path / "bad.zip", evil]
    )
    assert captions_of(dataset) == {"good.png": "words"}
    assert [line.split(":")[0] for line in skipped] == ["bad.zip", "evil.zip"]


def test_a_damaged_entry_is_named_and_the_rest_comes_in(workspace, tmp_path):
    archive = zip_at(tmp_path / "z.zip", {"torn.bmp": np.random.default_rng(0).bytes(3000), "good.png": encoded()})
    data = bytearray(archive.read_bytes())
    data[50:900] = b"\xff" * 850
    archive.write_bytes(data)
    dataset, skipped = import_images(workspace, "mine", [archive])
    assert list(captions_of(dataset)) == ["good.png"] and skipped == ["torn.bmp: can't be unpacked."]


def test_content_decides_and_the_suffix_follows_it(workspace, tmp_path):
    files = {"scan.jfif": encoded("JPEG"), "really-webp.png": encoded("WEBP"), "photo": encoded(), "clip.heic": b"x"}
    dataset, skipped = import_images(workspace, "mine", [zip_at(tmp_path / "z.zip", files)])
    assert set(captions_of(dataset)) == {"scan.jpg", "really-webp.webp", "photo.png"}
    assert len(skipped) == 1 and skipped[0].startswith("clip.heic: not an image")


def test_images_that_share_a_stem_get_captions_of_their_own(workspace, tmp_path):
    files = {"1/a.png": encoded(), "1/a.txt": b"one", "2/a.jpg": encoded("JPEG"), "2/a.txt": b"two", "A.bmp": b"BM"}
    dataset, _ = import_images(workspace, "mine", [zip_at(tmp_path / "z.zip", files)])
    assert captions_of(dataset) == {"a.png": "one", "a-2.jpg": "two"}
    (tmp_path / "a.webp").write_bytes(encoded("WEBP"))
    dataset, _ = import_images(workspace, "mine", [tmp_path / "a.webp"])
    assert captions_of(dataset) == {"a.png": "one", "a-2.jpg": "two", "a-3.webp": ""}


def test_a_caption_beside_the_image_comes_along_unasked_and_from_another_folder_when_given(workspace, tmp_path):
    for name in ("upload-1", "upload-2"):
        (tmp_path / name).mkdir()
    (tmp_path / "near.png").write_bytes(encoded())
    (tmp_path / "near.caption").write_text("beside it")
    (tmp_path / "upload-1" / "far.png").write_bytes(encoded())
    (tmp_path / "upload-2" / "far.TXT").write_text("dropped with it")
    dataset, skipped = import_images(
        workspace,
        "mine",
        [tmp_path / "near.png", tmp_path / "upload-1" / "far.png", tmp_path / "upload-2" / "far.TXT"],
    )
    assert captions_of(dataset) == {"far.png": "dropped with it", "near.png": "beside it"} and not skipped


def test_further_captions_of_an_image_come_along(workspace, tmp_path):
    files = {"a.png": encoded(), "a.txt": b"one", "a.1.txt": b"two", "a.2.txt": b"three", "b.7.txt": b"of none"}
    other = {"c.png": encoded(), "c.1.png": encoded(colour="blue"), "c.1.txt": b"its own"}
    dataset, skipped = import_images(workspace, "mine", [zip_at(tmp_path / "z.zip", files | other)])
    assert {item.path.name: item.variants for item in dataset.items} == {
        "a.png": ("a.1.txt", "a.2.txt"), "c.png": (), "c.1.png": (),
    }  # fmt: skip
    assert captions_of(dataset) == {"a.png": "one", "c.png": "", "c.1.png": "its own"}
    assert (dataset.folder / "a.2.txt").read_text() == "three\n"
    assert skipped == ["b.7.txt: a caption of no image here."]


def test_a_table_of_captions_in_a_zip_becomes_sidecars_and_the_rest_is_named(workspace, tmp_path):
    files = {
        "set/p.png": encoded(),
        "set/metadata.jsonl": b'{"file_name": "p.png", "text": "from the table"}',
        "set/p-masklabel.png": encoded(colour="white"),
        "set/q-masklabel.png": encoded(),
        "readme.txt": b"hello",
        ".DS_Store": b"x",
        "__MACOSX/set/._p.png": b"x",
    }
    dataset, skipped = import_images(workspace, "mine", [zip_at(tmp_path / "z.zip", files)])
    assert captions_of(dataset) == {"p.png": "from the table"}
    assert skipped == [
        ".DS_Store and 1 more: hidden, nothing to do with images.",
        "q-masklabel.png: a mask of no image here.",
        "readme.txt: a caption of no image here.",
    ]
    assert dataset.items[0].load_mask().getpixel((0, 0)) == 255, "the mask came along"


@pytest.mark.parametrize("name", ["長" * 300 + ".png", "x" * 300 + ".png", "12:30.png", "???.png", "nul.png", "-.png"])
def test_names_that_no_disk_takes_come_in_under_one_that_it_does(workspace, tmp_path, name):
    dataset, _ = import_images(workspace, "mine", [zip_at(tmp_path / "z.zip", {"a/" + name: encoded()})])
    assert len(dataset.items) == 1 and dataset.items[0].path.parent == dataset.folder


def test_an_entry_that_understates_its_size_yields_no_more_than_it_said(workspace, tmp_path):
    archive = zip_at(tmp_path / "z.zip", {"a.png": encoded() + bytes(500_000)}, zipfile.ZIP_STORED)
    data = archive.read_bytes()
    size, lie = (500_000 + len(encoded())).to_bytes(4, "little"), (100).to_bytes(4, "little")
    archive.write_bytes(data.replace(size, lie))
    with pytest.raises(DatasetError, match="a.png"):
        import_images(workspace, "mine", [archive])
    assert not (workspace.datasets / "mine").exists()


def test_a_folder_or_a_missing_file_among_the_paths_is_named(workspace, tmp_path):
    (tmp_path / "good.png").write_bytes(encoded())
    (tmp_path / "folder").mkdir()
    _, skipped = import_images(
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


def test_a_kohya_tree_keeps_its_folders_and_repeats_from_a_folder_and_from_a_zip(workspace, tmp_path):
    tree = {
        "img/10_my cat/a.png": encoded(),
        "img/10_my cat/a.caption": b"ten times",
        "img/1_dog/a.png": encoded(colour="blue"),
        "img/other/a.png": encoded(colour="green"),
        "img/10_my cat/a-masklabel.png": encoded(colour="white"),
        "img/.studio/x.png": encoded(),
    }
    for name, data in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    for name, source in (("one", tmp_path / "img"), ("two", zip_at(tmp_path / "z.zip", tree))):
        dataset, skipped = import_images(workspace, name, [source])
        assert {dataset.file_of(i): (i.caption, i.repeats) for i in dataset.items} == {
            "10_my-cat/a.png": ("ten times", 10),
            "1_dog/a.png": ("", 1),
            "a.png": ("", 1),
        }
        assert all("hidden" in line for line in skipped) and dataset.by_file()["10_my-cat/a.png"].mask_file
    dataset, _ = import_images(workspace, "one", [tmp_path / "img" / "10_my cat"])
    assert "10_my-cat/a-2.png" in dataset.by_file()


def test_what_phones_and_cameras_write_comes_in(workspace, tmp_path):
    two = Image.new("RGB", (12, 8), "blue")
    Image.new("RGB", (12, 8), "red").save(tmp_path / "phone.jpg", "MPO", save_all=True, append_images=[two])
    assert Image.open(tmp_path / "phone.jpg").format == "MPO"
    two.save(tmp_path / "new.avif")
    two.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (12, 8), "red")])
    clear = Image.new("RGBA", (12, 8), (1, 2, 3, 0))
    clear.save(tmp_path / "clear.png")
    dataset, skipped = import_images(workspace, "mine", sorted(tmp_path.glob("*.*")))
    seen = {item.path.name: item.load().getpixel((0, 0)) for item in dataset.items}
    assert set(seen) == {"phone.jpg", "new.avif", "moving.gif", "clear.png"} and not skipped
    assert seen["phone.jpg"][0] > 250 and seen["new.avif"][2] > 250 and seen["moving.gif"] == (0, 0, 255)
    assert (dataset.folder / "clear.png").read_bytes() == (tmp_path / "clear.png").read_bytes(), "its alpha is kept"


@pytest.mark.skipif(find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
def test_heic_without_its_package_says_what_to_install(workspace, tmp_path):
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DatasetError, match="x.heic: HEIC, which needs one more package .pip install pillow-heif"):
        import_images(workspace, "mine", [tmp_path / "x.heic"])


def test_progress_is_told_and_a_stop_keeps_what_came(workspace, tmp_path):
    archive = zip_at(tmp_path / "z.zip", {f"{n:03}.png": encoded() for n in range(60)} | {"000.txt": b"first"})
    told, stop = [], threading.Event()
    dataset, _ = import_images(workspace, "all", [archive], progress=lambda *step: told.append(step))
    assert len(dataset.items) == 60 and told[0][:2] == (1, 61) and told[-1][:2] == (61, 61)
    dataset, skipped = import_images(workspace, "part", [archive], lambda *_: stop.set(), stop)
    assert 0 < len(dataset.items) < 60 and skipped == ["Stopped, the rest was not added."]


@pytest.mark.parametrize("whole", [0, 1, 3])
def test_a_killed_import_leaves_no_image_without_its_caption(workspace, tmp_path, monkeypatch, whole):
    """Killed while images still come in, and at the caption of the second and of the fourth of four."""
    files = {f"{n}.png": encoded() for n in range(4)} | {f"{n}.txt": b"words" for n in range(4)}
    archive, put = zip_at(tmp_path / "z.zip", files), importing.put_caption  # the captions come last

    def die(*_):
        os._exit(9)  # as a kill: nothing is tidied up

    def put_and_die(path, *more, **rest):
        put(path, *more, **rest)
        if path.stem == str(whole):
            die()

    monkeypatch.setattr(importing, "put_caption", put_and_die)
    progress = None if whole else lambda done, *_: die() if done == 5 else None
    work = multiprocessing.get_context("fork").Process(
        target=import_images, args=(workspace, "mine", [archive], progress)
    )
    work.start()
    work.join(60)
    assert work.exitcode == 9
    left = [path.with_suffix(".txt") for path in (workspace.datasets / "mine").glob("*.png")]
    assert len(left) == whole and all(caption.read_text() == "words\n" for caption in left)
    sweep(workspace.root, time.time() + 3600)
    assert not list(workspace.datasets.rglob("*.tmp"))


def test_few_large_files_wait_in_memory_whatever_the_number_of_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    begun = []

    def things():
        for number in range(20):
            begun.append(number)
            yield number

    for done, (number, _) in enumerate(in_parallel(str, things(), weigh=lambda one: AHEAD // 3)):
        assert number == done and len(begun) - done <= 4
