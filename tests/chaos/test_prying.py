"""A small share of prying.py, and what it found once: each by the name of what holds now."""

import json

import httpx
import pytest

from studio.errors import BaseModelError, WorkspaceError
from studio.services import caption_words, generation, influence, reruns
from studio.workspace import Workspace, checked_name
from tests import tiers
from tests.chaos.prying import Asker, follow_links, png, prepared, pry
from tests.chaos.prying_events import press_everything
from tests.serving import served

FEW = (
    "open_dataset",
    "save_caption",
    "add_adapter",
    "import_images",
    "inspect_adapter",
    "image_recipe",
    "add_base",
)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """(a studio's address, its workspace)."""
    workspace = Workspace.open(tmp_path_factory.mktemp("prying") / "workspace")
    with served(workspace.root) as url:
        yield url, workspace


@pytest.mark.parametrize(
    "public, only, least",
    [
        (True, ("save_caption", "picture_recipe"), 60),
        tiers.in_full(False, ("open_dataset", "add_adapter"), 60),
        tiers.in_full(False, FEW, 100),
        tiers.in_full(True, FEW, 100),
    ],
)
def test_nobody_learns_or_changes_what_lies_outside_by_any_name_link_or_address(public, only, least):
    with prepared() as place:
        told = pry(place, public, only, most=1)
        told["links"] = follow_links(place, public)
        assert {kind: dict(one.broke) for kind, one in told.items() if one.broke} == {} and not place.heard
        assert sum(one.calls for one in told.values()) > least


@pytest.mark.parametrize(
    "read",
    [caption_words.words_of, reruns.comparison_of, influence.measured_images, influence.images_of],
    ids=lambda one: one.__name__,
)
def test_what_was_measured_of_a_run_is_found_by_a_plain_name_alone(tmp_path, read):
    """The page hands the name on as the browser sent it: `../../VISITOR/runs/x` was another visitor's run."""
    with pytest.raises(WorkspaceError, match="is not the name of a run"):
        read(Workspace.open(tmp_path / "workspace"), "../../other/runs/x")


@pytest.mark.full
def test_no_event_of_the_page_gives_away_what_is_anothers():
    with prepared() as place:
        told = press_everything(place, most=1)
    assert {kind: dict(one.broke) for kind, one in told.items() if one.broke} == {}
    assert sum(one.calls for one in told.values()) > 300


@pytest.mark.full
def test_what_a_browser_keeps_between_two_events_may_be_anything():
    with prepared() as place:
        told = press_everything(place, most=8, holding="json")
    assert {kind: dict(one.broke) for kind, one in told.items() if one.broke} == {}
    assert sum(one.calls for one in told.values()) > 200


def test_an_event_that_names_an_address_is_refused_in_every_mode(studio):
    for path in ("https://example.com/a.png", "FILE:///etc/hostname", "http://127.0.0.1:1/x"):
        event = {"data": [[{"path": path, "meta": {"_type": "gradio.FileData"}}], "x"]}
        answer = httpx.post(f"{studio[0]}gradio_api/call/import_images", json=event, timeout=60)
        assert answer.status_code == 403, path


def test_half_a_character_is_refused_at_the_door_and_a_written_escape_is_not(studio):
    asker = Asker(studio[0])
    assert "half a character" in asker.ask("/open_dataset", ["\ud800"])[1]
    assert "not the name of a dataset" in asker.ask("/open_dataset", ["\\ud800"])[1]
    assert "no dataset called" in asker.ask("/open_dataset", ["🎨"])[1]
    assert json.dumps("🎨") == '"\\ud83c\\udfa8"', "a whole one, written in two halves"


def test_a_link_among_the_images_is_neither_read_nor_served(studio, tmp_path):
    url, workspace = studio
    (tmp_path / "out.png").write_bytes(png("red"))
    (workspace.outputs / "link.png").symlink_to(tmp_path / "out.png")
    (workspace.outputs / "own.png").write_bytes(png("blue"))
    with pytest.raises(WorkspaceError, match="a link to another place"):
        generation.image_path(workspace, "link.png")
    for name, status in (("link.png", 403), ("own.png", 200)):
        assert httpx.get(f"{url}gradio_api/file={workspace.outputs}/{name}", timeout=60).status_code == status


def test_a_name_longer_than_files_have_is_none():
    with pytest.raises(WorkspaceError, match="is not the name of a dataset"):
        checked_name("x" * 5000, "dataset")


def test_weights_that_are_only_a_pickle_are_not_opened(tmp_path):
    import shutil

    import torch

    from studio.basemodels import load_base
    from studio.workspace import ASSETS

    folder = tmp_path / "base"
    shutil.copytree(ASSETS / "starter", folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    torch.save({}, folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(BaseModelError, match="can't be loaded"):
        load_base(str(folder), shared=False)
