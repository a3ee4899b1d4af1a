"""Masks by the operations: for all or chosen images, from files, cleared; the absence of the package is said."""

import numpy as np
import pytest
from PIL import Image

from studio.datasets import mask_models
from studio.errors import DatasetError, NotAllowedError
from studio.server.permissions import VISITED
from studio.services import datasets, masks
from studio.services.jobs import jobs
from studio.workspace import Workspace

WHITE = Image.new("L", (48, 32), 255)


@pytest.fixture
def workspace(tmp_path):
    workspace = Workspace.open(tmp_path / "workspace")
    (workspace.datasets / "ink").mkdir()
    for name in ("one", "two"):
        Image.new("RGB", (48, 32), "red").save(workspace.datasets / "ink" / f"{name}.png")
    yield workspace
    for job in jobs.running():
        job.stop()
        job.wait()


class Half:
    """A model that takes the left half of everything."""

    model = "u2net"

    def __init__(self, model: str, download: bool = False):
        pass

    def mask(self, image):
        mask = Image.new("L", image.size)
        mask.paste(255, (0, 0, image.width // 2, image.height))
        return mask


@pytest.fixture
def model(monkeypatch):
    monkeypatch.setattr(mask_models, "is_installed", lambda: True)
    monkeypatch.setattr(mask_models, "MaskMaker", Half)


def made(workspace) -> list[str]:
    return sorted(path.name for path in (workspace.datasets / "ink").glob("*-masklabel.png"))


def test_masks_are_made_of_what_has_none_unless_asked(workspace, model):
    masks.make_masks(workspace, "ink", ["one.png"]).wait()
    assert made(workspace) == ["one-masklabel.png"] and jobs.current.message == "ink: 1 mask made."
    masks.make_masks(workspace, "ink").wait()
    assert jobs.current.message == "ink: 1 mask made. 1 image had one already."
    job = masks.make_masks(workspace, "ink", overwrite=True, invert=True)
    job.wait()
    assert job.message == "ink: 2 masks made." and job.state == "done"
    with Image.open(workspace.datasets / "ink" / "one-masklabel.png") as mask:
        assert not np.asarray(mask)[:, :24].any() and np.asarray(mask)[:, 24:].all()
    datasets.undo(workspace, "ink")
    datasets.undo(workspace, "ink")
    assert made(workspace) == ["one-masklabel.png"]


def test_without_the_package_or_the_right_nothing_begins(workspace, monkeypatch):
    monkeypatch.setattr(mask_models, "is_installed", lambda: False)
    with pytest.raises(DatasetError, match="need the package rembg, which is not installed: pip install"):
        masks.make_masks(workspace, "ink")
    with pytest.raises(NotAllowedError):
        masks.make_masks(Workspace(workspace.root, VISITED), "ink")


def test_masks_from_files_go_to_the_images_of_their_names(workspace, tmp_path):
    WHITE.save(tmp_path / "one-masklabel.png")
    WHITE.save(tmp_path / "three.png")
    (tmp_path / "two.png").write_bytes(b"no image")
    change = masks.set_masks(workspace, [tmp_path / f"{n}.png" for n in ("one-masklabel", "two", "three")], "ink")
    assert change.files == ["one.png"] and made(workspace) == ["one-masklabel.png"]
    assert change.left == ["two.png: not an image.", "three.png: no image of ink is called so."]
    with pytest.raises(DatasetError, match="No mask was set: three.png"):
        masks.set_masks(workspace, [tmp_path / "three.png"], "ink")
    assert masks.clear_masks(workspace, "ink").label == "Clear mask of one.png" and not made(workspace)
    with pytest.raises(DatasetError, match="no mask to clear in ink"):
        masks.clear_masks(workspace, "ink")


def test_what_is_painted_is_the_mask_and_nothing_painted_is_none(workspace):
    painted = Image.new("RGBA", (24, 16))
    painted.paste((255, 64, 64, 255), (0, 0, 12, 16))
    masks.paint_mask(workspace, "ink", "one.png", painted)
    source, mask, size = masks.canvas_of(workspace, datasets.view(workspace, "ink").items[0])
    with Image.open(mask) as shown:
        assert shown.size == size == (48, 32) and shown.getpixel((4, 4)) == 255 and shown.getpixel((40, 4)) == 0
    masks.paint_mask(workspace, "ink", "one.png", Image.new("RGBA", (24, 16)))
    assert not made(workspace)
