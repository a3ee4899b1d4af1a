"""Datasets on the page: several pages at once, what strangers are told, and captions whose authors are lies."""

import threading

import pytest
from PIL import Image

from studio import datasets
from studio.capabilities import REACHED
from studio.ui import actions_datasets
from studio.ui.boards import chips
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """Two datasets of a picture each, "ink" and "sky"."""
    workspace = Workspace.open(tmp_path / "workspace")
    for name in ("ink", "sky"):
        (workspace.datasets / name).mkdir()
        Image.new("RGB", (64, 64), "red").save(workspace.datasets / name / "one.png")
    return workspace


def test_two_pages_that_look_at_two_sets_read_each_once_and_see_no_change(workspace, monkeypatch):
    read, opened = [], datasets.open_dataset
    monkeypatch.setattr(datasets, "open_dataset", lambda folder: read.append(folder.name) or opened(folder))
    stamps = []
    for _ in range(3):
        for name in ("ink", "sky"):
            actions_datasets.view(workspace, name)
            stamps.append((actions_datasets.stamp(workspace, "ink"), actions_datasets.stamp(workspace, "sky")))
    assert sorted(read) == ["ink", "sky"]
    assert len(set(stamps[1:])) == 1
    actions_datasets.save_caption(workspace, "ink", "one.png", "a drop")
    assert actions_datasets.stamp(workspace, "ink") != stamps[-1][0]
    assert actions_datasets.stamp(workspace, "sky") == stamps[-1][1]


def test_a_caption_that_another_program_rewrote_is_seen_when_the_set_is_opened_again(workspace):
    sidecar = workspace.datasets / "ink" / "one.txt"
    for words in ("a drop", "a blot"):
        sidecar.write_text(words)
        assert actions_datasets.view(workspace, "ink", again=True).items[0].caption == words


def test_only_the_newest_sets_stay_read(workspace, monkeypatch):
    monkeypatch.setattr(actions_datasets, "KEPT", 1)
    first = actions_datasets.view(workspace, "ink")
    assert actions_datasets.view(workspace, "ink") is first
    actions_datasets.view(workspace, "sky")
    assert actions_datasets.view(workspace, "ink") is not first


def test_sets_can_be_looked_at_from_many_threads_at_once(workspace):
    failed = []

    def look(name):
        try:
            for _ in range(60):
                assert actions_datasets.view(workspace, name).name == name
                actions_datasets.stamp(workspace, name), actions_datasets.is_large(workspace, name)
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=look, args=(name,)) for name in ("ink", "sky") * 4]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not failed


def test_an_export_tells_strangers_its_name_and_the_owner_its_place(workspace):
    for allows, said in ((REACHED, "written to ink.zip."), (workspace.allows, f"written to {workspace.exports}")):
        job = actions_datasets.start_export(Workspace(workspace.root, allows), "ink", "zip")
        job.wait()
        assert said in job.message, job.error


def test_an_author_that_is_html_stays_text():
    """They stand in a file of the dataset's folder, where anybody may have written."""
    assert "<img" not in chips([("a tag", '"><img src=x onerror=alert(1)>')], prose=False)
