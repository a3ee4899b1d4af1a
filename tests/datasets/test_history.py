"""Every change can be taken back, also after a restart, and nothing that was typed is ever lost."""

import json

import pytest
from PIL import Image

from studio.datasets import (
    can_undo,
    history,
    open_dataset,
    redo,
    remove_images,
    removed_images,
    restore_images,
    set_caption,
    undo,
    write_captions,
)
from studio.datasets import captions as captions_module
from studio.datasets.journal import read_journal
from studio.errors import DatasetError


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "set"
    place.mkdir()
    for name, colour in (("a", "red"), ("b", "green"), ("c", "blue")):
        Image.new("RGB", (8, 8), colour).save(place / f"{name}.png")
        set_caption(place / f"{name}.png", name)
    return place


def now(folder):
    return {item.path.name: item.caption for item in open_dataset(folder).items}


BEFORE = {"a.png": "a", "b.png": "b", "c.png": "c"}


def test_a_change_of_many_captions_is_undone_and_redone_as_one(folder):
    change = write_captions(open_dataset(folder), {"a.png": "x,  y", "b.png": "", "c.png": "c"}, "Try")
    assert change.files == ["a.png", "b.png"] and now(folder) == {"a.png": "x, y", "b.png": "", "c.png": "c"}
    assert not (folder / "b.txt").exists()
    assert undo(open_dataset(folder)).files == ["a.png", "b.png"] and now(folder) == BEFORE
    assert redo(open_dataset(folder)).files == ["a.png", "b.png"]
    assert now(folder) == {"a.png": "x, y", "b.png": "", "c.png": "c"}


def test_all_undone_one_by_one_gives_the_beginning_back_and_a_new_change_ends_redoing(folder):
    for number in range(5):
        write_captions(open_dataset(folder), {"a.png": f"take {number}"}, f"Take {number}")
    for number in (4, 3, 2, 1, 0):
        assert can_undo(open_dataset(folder))[0] == f"Take {number}"
        undo(open_dataset(folder))
    assert now(folder) == BEFORE
    with pytest.raises(DatasetError, match="nothing to undo in set"):
        undo(open_dataset(folder))
    redo(open_dataset(folder))
    assert now(folder)["a.png"] == "take 0"
    write_captions(open_dataset(folder), {"a.png": "else"}, "Else")
    with pytest.raises(DatasetError, match="nothing to redo"):
        redo(open_dataset(folder))


def test_the_history_is_readable_newest_first_and_only_ever_grows(folder):
    dataset, file = open_dataset(folder), folder / ".studio" / "history.jsonl"
    write_captions(dataset, {"a.png": "x"}, "Caption of a.png")
    first = file.read_bytes()
    undo(dataset)
    assert file.read_bytes().startswith(first)
    steps = history(dataset)
    assert [(s.kind, s.label, s.undone, s.files) for s in steps] == [
        ("undo", "Undo: Caption of a.png", False, ["a.png"]),
        ("change", "Caption of a.png", True, ["a.png"]),
    ]
    assert all(json.loads(line) for line in file.read_text().splitlines())


def test_the_later_of_two_tabs_wins_and_the_earlier_edit_is_in_the_history(folder):
    one, other = open_dataset(folder), open_dataset(folder)
    write_captions(one, {"a.png": "first tab"}, "Edit")
    write_captions(other, {"a.png": "second tab"}, "Edit")
    assert now(folder)["a.png"] == "second tab"
    undo(other)
    assert now(folder)["a.png"] == "first tab"


def test_a_caption_edited_elsewhere_meanwhile_is_left_alone_and_named(folder):
    write_captions(open_dataset(folder), {"a.png": "x", "b.png": "y"}, "Both")
    (folder / "a.txt").write_text("by an editor")
    change = undo(open_dataset(folder))
    assert change.files == ["b.png"] and len(change.left) == 1 and change.left[0].startswith("a.png: its caption was")
    assert now(folder) == BEFORE | {"a.png": "by an editor"}
    redo(open_dataset(folder))
    assert now(folder) == {"a.png": "by an editor", "b.png": "y", "c.png": "c"}


def test_what_a_writer_did_not_know_is_not_written_over(folder):
    stale = open_dataset(folder)
    set_caption(folder / "a.png", "newer")
    change = write_captions(stale, {"a.png": "A", "b.png": "B"}, "Bulk", expected={"a.png": "a", "b.png": "b"})
    assert change.files == ["b.png"] and change.left[0].startswith("a.png")
    assert now(folder)["a.png"] == "newer"


def test_changes_of_one_batch_are_undone_together(folder):
    dataset = open_dataset(folder)
    write_captions(dataset, {"c.png": "mine"}, "Edit")
    for name in ("a", "b"):
        write_captions(dataset, {f"{name}.png": f"model {name}"}, "Captioned", "model:starter", batch="job 1")
    assert [step.label for step in history(dataset)] == ["Captioned", "Edit"]
    assert sorted(undo(dataset).files) == ["a.png", "b.png"] and now(folder) == BEFORE | {"c.png": "mine"}
    assert sorted(redo(dataset).files) == ["a.png", "b.png"] and now(folder)["b.png"] == "model b"


@pytest.mark.parametrize("fails_at", [0, 1, 2])
def test_a_crash_in_the_middle_is_completed_when_the_set_is_opened(folder, monkeypatch, fails_at):
    whole, calls = captions_module.atomic_write, []

    def crash(path, *rest, **more):
        calls.append(path)
        if len(calls) > fails_at:
            raise KeyboardInterrupt
        whole(path, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(captions_module, "atomic_write", crash)
        with pytest.raises(KeyboardInterrupt):
            write_captions(open_dataset(folder), {"a.png": "1", "b.png": "2", "c.png": "3"}, "Numbers")
    assert now(folder) == {"a.png": "1", "b.png": "2", "c.png": "3"}
    undo(open_dataset(folder))
    assert now(folder) == BEFORE


def test_a_crash_and_an_edit_elsewhere_before_the_set_is_opened_is_reported(folder, monkeypatch):
    def crash(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(captions_module, "atomic_write", crash)
        with pytest.raises(KeyboardInterrupt):
            write_captions(open_dataset(folder), {"a.png": "1", "b.png": "2"}, "Numbers")
    (folder / "a.txt").write_text("by an editor")
    dataset = open_dataset(folder)
    assert len(dataset.problems) == 1 and dataset.problems[0].startswith("a.png: its caption was changed")
    assert now(folder) == {"a.png": "by an editor", "b.png": "2", "c.png": "c"}
    assert not open_dataset(folder).problems


def test_a_line_torn_by_a_crash_never_took_effect(folder):
    write_captions(open_dataset(folder), {"a.png": "x"}, "Good")
    with open(folder / ".studio" / "history.jsonl", "a") as stream:
        stream.write('{"id": 2, "label": "torn", "capti')
    assert now(folder) == BEFORE | {"a.png": "x"}
    write_captions(open_dataset(folder), {"b.png": "y"}, "After")
    assert [entry.label for entry in read_journal(folder)[0]] == ["Good", "After"]
    undo(open_dataset(folder)), undo(open_dataset(folder))
    assert now(folder) == BEFORE


def test_a_caption_of_the_metadata_file_is_cleared_and_comes_back(folder):
    (folder / "a.txt").unlink()
    (folder / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "from the table"}\n')
    write_captions(open_dataset(folder), {"a.png": ""}, "Clear")
    assert now(folder)["a.png"] == "" and (folder / "a.txt").stat().st_size, "trainers fail on a file of no bytes"
    undo(open_dataset(folder))
    assert now(folder)["a.png"] == "from the table" and not (folder / "a.txt").exists()


def test_removed_images_take_captions_and_masks_along_and_come_back(folder):
    Image.new("L", (8, 8)).save(folder / "a-masklabel.png")
    everything = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    change = remove_images(open_dataset(folder), ["a.png", "b.png"])
    assert change.files == ["a.png", "b.png"] and now(folder) == {"c.png": "c"}
    assert sorted(path.name for path in folder.iterdir()) == [".studio", "c.png", "c.txt"]
    assert [name for name, _ in removed_images(open_dataset(folder))] == ["a.png", "b.png"]
    restore_images(open_dataset(folder), ["b.png"])
    assert now(folder) == {"b.png": "b", "c.png": "c"}
    undo(open_dataset(folder))
    undo(open_dataset(folder))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == everything
    redo(open_dataset(folder))
    assert now(folder) == {"c.png": "c"}


def test_a_caption_that_two_images_share_stays_for_the_other(folder):
    Image.new("RGB", (8, 8)).save(folder / "a.jpg")
    remove_images(open_dataset(folder), ["a.png"])
    assert now(folder)["a.jpg"] == "a"
    remove_images(open_dataset(folder), ["a.jpg"])
    assert not (folder / "a.txt").exists()


def test_an_image_whose_place_was_taken_stays_where_it_is_and_is_named(folder):
    remove_images(open_dataset(folder), ["a.png"])
    Image.new("RGB", (4, 4)).save(folder / "a.png")
    change = undo(open_dataset(folder))
    assert change.left == ["a.png: there is another file of this name by now."]
    assert now(folder) == {"a.png": "", "b.png": "b", "c.png": "c"} and removed_images(open_dataset(folder))


def test_an_image_that_is_not_of_the_set_or_gone_is_said(folder):
    dataset = open_dataset(folder)
    with pytest.raises(DatasetError, match="no image called '../x.png'"):
        write_captions(dataset, {"../x.png": "evil"}, "Evil")
    for name in ("../x.png", "/etc/passwd", ".studio/history.jsonl", "", "a\0.png"):
        with pytest.raises(DatasetError):
            remove_images(dataset, [name])
    (folder / "a.png").unlink()
    change = write_captions(dataset, {"a.png": "x", "b.png": "y"}, "Edit")
    assert change.left == ["a.png: the image is gone."] and (folder / "a.txt").read_text() == "a\n"
