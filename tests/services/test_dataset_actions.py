"""Datasets on the page: several pages at once, what strangers are told, and captions whose authors are lies."""

import shutil
import threading

import gradio as gr
import pytest
from PIL import Image

from studio import datasets
from studio.server.permissions import REACHED
from studio.services import base_models, captioning, captions
from studio.services import datasets as dataset_services
from studio.services.base_models import DEFAULT_SIZE
from studio.services.jobs import latest
from studio.text import pluralize
from studio.web.components.clickable import chips
from studio.web.components.polling import Beat
from studio.web.dataset.captioners import captioner_form, comparison
from studio.web.dataset.check import check_board
from studio.workspace import Workspace
from tests.basemodels import tiny as tiny_base
from tests.captioning import tiny


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


def test_one_picture_is_not_called_pictures(workspace, tmp_path):
    export = dataset_services.export_dataset(workspace, "ink")
    come = dataset_services.start_import(workspace, "new", [workspace.datasets / "ink" / "one.png"])
    for job in (export, come):
        job.wait()
    assert export.message.startswith("1 image written to ") and come.message == "new has 1 image now."
    assert [pluralize(count, "picture") for count in (0, 2, 1200)] == ["0 pictures", "2 pictures", "1,200 pictures"]


def test_a_set_that_is_gone_is_told_once_in_a_line_where_it_was_checked_or_compared(workspace):
    with gr.Blocks():
        timer, choice = Beat(), gr.Dropdown()
        check_board(workspace, choice, gr.Textbox(), gr.State(), gr.State(), timer)
        comparison(workspace, choice, gr.State(), captioner_form(), timer)
    check, compared = (watch for watch, *_ in timer._watchers if watch.__name__ == "watch")
    (workspace.datasets / "ink" / "one.txt").write_text("a red square")
    for start in (
        lambda: captioning.score_captions(workspace, "ink"),
        lambda: captioning.start_comparing(workspace, "ink", [("starter", {})], ["one.png"]),
    ):
        start().wait()
    assert "a red square" in check(None, "ink")[3]
    shutil.rmtree(workspace.datasets / "ink")
    state, line, _, rows, _ = check(None, "ink")
    assert "no dataset called" in line and not rows
    assert check(state, "ink") == [gr.skip()] * 5
    state, line, table, _ = compared(None)
    assert "no dataset called" in line and "one.png" in table  # what was said of it stays
    assert compared(state) == [gr.skip()] * 4


def test_the_size_that_is_checked_follows_the_base_to_be_trained_until_a_person_types_one(workspace, tmp_path):
    with gr.Blocks():
        timer = Beat()
        check_board(workspace, gr.Dropdown(), gr.Textbox(), gr.State(), gr.State(), timer)
    follow = next(watch for watch, *_ in timer._watchers if "follow" in watch.__qualname__)
    assert follow(("starter", DEFAULT_SIZE), DEFAULT_SIZE) == gr.skip()
    base_models.choose(workspace, base_models.remember(workspace, str(tiny_base.save("flux-dev", tmp_path))))
    known, size = follow(("starter", DEFAULT_SIZE), DEFAULT_SIZE)
    assert size == known[1] == 64
    assert follow(known, 64) == gr.skip()
    base_models.choose(workspace, "starter")
    assert follow(known, 64)[1] == DEFAULT_SIZE and follow(known, 500)[1] == gr.skip()


def test_captions_can_be_scored_by_a_clip_that_is_named(workspace, tmp_path):
    with gr.Blocks() as page:
        check_board(workspace, gr.Dropdown(), gr.Textbox(), gr.State(), gr.State(), Beat())
    start = next(one.fn for one in page.fns.values() if getattr(one.fn, "__name__", "") == "start_score")
    (workspace.datasets / "ink" / "one.txt").write_text("a red square")
    found = []
    for clip in ("", str(tiny.clip(tmp_path / "clip"))):
        start("ink", "", clip, False)
        job = latest["score"].job
        job.wait()
        assert not job.error and job.message == "1 caption scored, the worst fit first."
        found.append(job.result.rows[0].similarity)
    assert found[0] != found[1]


def test_an_author_that_is_html_stays_text():
    """They stand in a file of the dataset's folder, where anybody may have written."""
    assert "<img" not in chips([("a tag", '"><img src=x onerror=alert(1)>')], prose=False)
