"""Datasets on the page: several pages at once, what strangers are told, and captions whose authors are lies."""

import threading

import pytest
from PIL import Image

from studio import datasets
from studio.server.permissions import REACHED
from studio.services import captions
from studio.services import datasets as dataset_services
from studio.text import pluralize
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path):
    """Two datasets of an image each, "ink" and "sky"."""
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
            dataset_services.view(workspace, name)
            stamps.append((dataset_services.stamp(workspace, "ink"), dataset_services.stamp(workspace, "sky")))
    assert sorted(read) == ["ink", "sky"]
    assert len(set(stamps[1:])) == 1
    captions.save_caption(workspace, "ink", "one.png", "a drop")
    assert dataset_services.stamp(workspace, "ink") != stamps[-1][0]
    assert dataset_services.stamp(workspace, "sky") == stamps[-1][1]


def test_a_caption_that_another_program_rewrote_is_seen_when_the_set_is_opened_again(workspace):
    sidecar = workspace.datasets / "ink" / "one.txt"
    for words in ("a drop", "a blot"):
        sidecar.write_text(words)
        assert dataset_services.view(workspace, "ink", again=True).items[0].caption == words


def test_only_the_newest_sets_stay_read(workspace, monkeypatch):
    monkeypatch.setattr(dataset_services, "KEPT", 1)
    first = dataset_services.view(workspace, "ink")
    assert dataset_services.view(workspace, "ink") is first
    dataset_services.view(workspace, "sky")
    assert dataset_services.view(workspace, "ink") is not first


def test_sets_can_be_looked_at_from_many_threads_at_once(workspace):
    failed = []

    def look(name):
        try:
            for _ in range(60):
                assert dataset_services.view(workspace, name).name == name
                dataset_services.stamp(workspace, name), dataset_services.is_large(workspace, name)
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
        job = dataset_services.export_dataset(Workspace(workspace.root, allows), "ink")
        job.wait()
        assert said in job.message, job.error


def test_one_image_is_not_called_images(workspace, tmp_path):
    export = dataset_services.export_dataset(workspace, "ink")
    come = dataset_services.start_import(workspace, "new", [workspace.datasets / "ink" / "one.png"])
    for job in (export, come):
        job.wait()
    assert export.message.startswith("1 image written to ") and come.message == "new has 1 image now."
    assert [pluralize(count, "image") for count in (0, 2, 1200)] == ["0 images", "2 images", "1,200 images"]
