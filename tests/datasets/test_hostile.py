"""Folders and zips made to do harm, or only strange: one clear line each, nothing lost, nothing written outside."""

import errno
import json
import os
from pathlib import Path

import pytest
from PIL import Image

from studio.datasets import (
    authors,
    examine,
    history,
    import_images,
    meta_dir,
    open_dataset,
    read_caption,
    remove_images,
    undo,
    write_captions,
)
from studio.errors import DatasetError
from studio.workspace import Workspace
from tests.datasets.made import bomb, encoded, zipped

posix = pytest.mark.skipif(os.name == "nt", reason="links and pipes need a privilege there")


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    Image.new("RGB", (40, 30), "red").save(place / "a.png")
    (place / "a.txt").write_text("a\n")
    return place


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def everything(place: Path) -> dict[str, bytes]:
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@posix
def test_notes_that_are_a_link_to_another_folder_are_refused(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / ".studio").symlink_to(tmp_path / "elsewhere")
    dataset = open_dataset(folder)
    for change in (lambda: write_captions(dataset, {"a.png": "x"}, "X"), lambda: remove_images(dataset, ["a.png"])):
        with pytest.raises(DatasetError, match="not a folder, move it away"):
            change()
    examine(dataset, 64)
    assert not list((tmp_path / "elsewhere").iterdir()) and read_caption(folder / "a.png") == "a"


@posix
def test_single_notes_that_are_links_are_not_followed(folder, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (folder / ".studio").mkdir()
    for name in ("history.jsonl", "phrases.json", "images.json", "lock"):
        (folder / ".studio" / name).symlink_to(tmp_path / "mine")
    dataset = open_dataset(folder)
    with pytest.raises(DatasetError, match="set can't be changed"):
        write_captions(dataset, {"a.png": "x"}, "X", "model:x")
    examine(dataset, 64)
    assert (tmp_path / "mine").read_text() == "mine" and history(dataset) == []


@pytest.mark.parametrize("done", [True, False])
def test_a_history_that_names_files_outside_touches_none_of_them(folder, tmp_path, done):
    Image.new("RGB", (8, 8)).save(tmp_path / "out.png")
    (tmp_path / "out.txt").write_text("after\n")
    outside = [f"../{name}" for name in ("out.png", "new/out.png")] + [str(tmp_path / "out.png")]
    entry = {
        "id": 7,
        "time": "",
        "label": "Evil",
        "author": "person",
        "kind": "change",
        "batch": "",
        "captions": {file: ["before", "after"] for file in outside} | {"a.png": ["b", "a"]},
        "moved": {"x": [["../out.png", "stolen.png"]], "y": [["a.png", "../a.png"], ["../out.txt", "b"]]},
        "gains": {},
        "losses": {},
    }
    if done:
        entry["moved"] = {"x": [["stolen.png", "../out.png"]], "y": [["../a.png", "a.png"]]}
    (folder / ".studio").mkdir()
    lines = [json.dumps(entry), *['{"done": 7}'] * done]
    (folder / ".studio" / "history.jsonl").write_text("\n".join(lines) + "\n")
    before = {name: data for name, data in everything(tmp_path).items() if not name.startswith("set")}
    problems = open_dataset(folder).problems
    assert done or any("leads out of set" in line for line in problems)
    undo(open_dataset(folder))
    assert {name: data for name, data in everything(tmp_path).items() if not name.startswith("set")} == before
    assert read_caption(folder / "a.png") == "b"


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "[]",
        "3",
        "null",
        '{"id": 1}',
        '{"id": true, "kind": "change"}',
        '{"done": "x"}',
        "\0",
        '{"id": 1, "time": "", "label": [], "author": "", "kind": "change"}',
        '{"id": 1, "time": "", "label": "", "author": "", "kind": "change", "captions": {"a.png": [3, 4]}}',
        '{"id": 1, "time": "", "label": "", "author": "", "kind": "change", "captions": {}, "moved": 3}',
        '{"id": 1, "time": "", "label": "", "author": "", "kind": "undo", "captions": {}, "moved": {}, "gains": {}, '
        '"losses": {}}',
    ],
)
def test_damaged_notes_are_passed_over_and_the_next_change_works(folder, line):
    (folder / ".studio").mkdir()
    (folder / ".studio" / "history.jsonl").write_text(line + "\n" + line)
    (folder / ".studio" / "images.json").write_text(line)
    (folder / ".studio" / "phrases.json").write_text(line)
    write_captions(open_dataset(folder), {"a.png": "x"}, "X", "model:x")
    assert authors(open_dataset(folder), "a.png") == [("x", "model:x")]
    undo(open_dataset(folder))
    assert read_caption(folder / "a.png") == "a"


@pytest.mark.parametrize(
    "row", [[1], ["x"] * 8, [1, 1, 0, 0, "", "", "", 0.0], [1, 1, 8, 8, "zz" * 16, "", "", 0], {}, [10**400] * 8]
)
def test_facts_that_are_not_ours_are_measured_again(folder, row):
    stat = (folder / "a.png").stat()
    if isinstance(row, list) and len(row) == 8 and row[0] == 1:
        row[:2] = [stat.st_size, stat.st_mtime_ns]
    (folder / ".studio").mkdir()
    (folder / ".studio" / "images.json").write_text(json.dumps({"version": 1, "images": {"a.png": row}}))
    assert open_dataset(folder).items[0].size == (40, 30)
    examine(open_dataset(folder), 16)


@posix
def test_links_and_pipes_are_neither_followed_nor_waited_for(folder, workspace, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "o.png").write_bytes(encoded())
    for name in ("b", "c"):
        (folder / f"{name}.png").write_bytes(encoded())
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    os.mkfifo(folder / "c.txt")
    os.mkfifo(folder / "d.png")
    os.mkfifo(folder / "metadata.jsonl")
    (folder / "sub").symlink_to(tmp_path / "other")
    (folder / "e.png").symlink_to(tmp_path / "other" / "o.png")
    dataset = open_dataset(folder)
    assert {item.path.name: item.caption for item in dataset.items} == {"a.png": "a", "b.png": "", "c.png": ""}
    assert [line.split(":")[0] for line in dataset.problems] == ["d.png", "e.png", "sub"]
    assert len(dataset.warnings) == 2 and all("none that can be read" in line for line in dataset.warnings)
    write_captions(dataset, {"b.png": "mine"}, "Edit")
    assert (tmp_path / "secret.txt").read_text() == "secret" and read_caption(folder / "b.png") == "mine"
    _, skipped = import_images(workspace, "copy", [folder])
    assert [line.split(":")[0] for line in sorted(skipped)] == ["c.txt", "d.png", "e.png", "metadata.jsonl", "sub"]
    unreadable = next(found for found in examine(dataset, 16) if found.kind == "unreadable")
    assert unreadable.files == ("d.png",)


def test_zips_in_zips_and_bombs_cost_one_line_each_and_little_time(workspace, tmp_path):
    inner = zipped({"big.png": bytes(40_000_000)})
    for _ in range(5):
        inner = zipped({f"{n}.zip": inner for n in range(10)})
    (tmp_path / "z.zip").write_bytes(zipped({"good.png": encoded(), "inner.zip": inner, "bomb.png": bomb()}))
    dataset, skipped = import_images(workspace, "mine", [tmp_path / "z.zip"])
    assert len(dataset.items) == 1 and skipped == [
        "inner.zip: a zip inside, unpack it or add it by itself.",
        "bomb.png: too large to open safely (at most 89 megapixels).",
    ]


def test_a_decompression_bomb_in_a_folder_is_named_and_not_decoded(folder):
    (folder / "bomb.png").write_bytes(bomb())
    assert open_dataset(folder).problems == ["bomb.png: too large to open safely (at most 89 megapixels)."]
    unreadable = next(one for one in examine(open_dataset(folder), 16) if one.kind == "unreadable")
    assert unreadable.files == ("bomb.png",)


@pytest.mark.parametrize(
    "name", ["日本語 тест", "a'b\"c", "<script>alert(1)</script>".replace("/", "∕"), "-rf", "%2e%2e", "é" * 100, "a\nb"]
)
def test_strange_names_live_through_captions_history_and_removal(folder, name):
    (folder / f"{name}.png").write_bytes(encoded())
    write_captions(open_dataset(folder), {f"{name}.png": "words"}, f"Caption of {name}")
    assert read_caption(folder / f"{name}.png") == "words" and name in history(open_dataset(folder))[0].label
    remove_images(open_dataset(folder), [f"{name}.png"])
    assert len(open_dataset(folder).items) == 1
    undo(open_dataset(folder))
    assert read_caption(folder / f"{name}.png") == "words"


def test_a_metadata_file_of_a_hundred_megabytes_or_of_foreign_things_is_one_line(folder, workspace):
    (folder / "b.png").write_bytes(encoded())
    with open(folder / "metadata.jsonl", "wb") as stream:
        stream.truncate(100_000_000)
    dataset = open_dataset(folder)
    assert dataset.problems == ["metadata.jsonl: larger than 20 MB, its captions are not read."]
    _, skipped = import_images(workspace, "mine", [folder])
    assert skipped == dataset.problems
    rows = ['{"file_name": 3, "text": "x"}', '{"file_name": "b.png", "text": {}}', "[" * 100_000, '"x"', "9" * 9000]
    rows += ['{"file_name": "../a.png", "text": "out"}', '{"file_name": "b.png", "text": null, "caption": "good"}']
    (folder / "metadata.jsonl").write_text("\n".join(rows))
    (folder / "metadata.csv").write_bytes(b'file_name,text\n"a.png\0,"x\n' + b"y" * 200_000 + b",z\n")
    dataset = open_dataset(folder)
    assert [item.caption for item in dataset.items] == ["a", "good"]
    assert [line.split(":")[0] for line in dataset.problems] == ["metadata.csv"]


def test_images_that_vanish_or_change_under_the_hands_are_named(folder):
    (folder / "b.png").write_bytes(encoded())
    dataset = open_dataset(folder)
    (folder / "b.png").write_bytes(encoded()[:40])
    (folder / "a.png").unlink()
    kinds = {one.kind: one.files for one in examine(dataset, 8)}
    assert kinds["unreadable"] == ("b.png",) and kinds["orphan captions"] == ("a.txt",)
    (folder / "b.png").write_bytes(encoded())
    assert "unreadable" not in {one.kind for one in examine(open_dataset(folder), 8)}


def test_a_folder_that_is_read_only_is_opened_and_refuses_changes_in_one_line(folder, monkeypatch):
    dataset = open_dataset(folder)

    def refuse(*_, **__):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(meta_dir.Path, "mkdir", refuse)
    assert open_dataset(folder).items == dataset.items
    assert not [one for one in examine(dataset, 16) if one.kind == "unreadable"]
    for change in (lambda: write_captions(dataset, {"a.png": "x"}, "X"), lambda: remove_images(dataset, ["a.png"])):
        with pytest.raises(DatasetError, match="^set can't be changed, its folder is read-only: copy it"):
            change()
    assert read_caption(folder / "a.png") == "a"


def test_a_full_disk_in_the_middle_loses_nothing(folder, monkeypatch):
    from studio.datasets import captions

    (folder / "b.png").write_bytes(encoded())

    def full(path, *_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(captions, "atomic_write", full)
        with pytest.raises(DatasetError, match="set can't be changed .No space left on device"):
            write_captions(open_dataset(folder), {"a.png": "new", "b.png": "new"}, "New")
        assert any("No space left" in line for line in open_dataset(folder).problems)
        assert read_caption(folder / "a.png") == "a"
    assert [item.caption for item in open_dataset(folder).items] == ["new", "new"], "once there is room again"
