"""The pretend device as the accelerator of this machine, tiny bases, and images to learn from."""

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from studio import devices
from studio.basemodels import loading
from studio.training import export_check
from tests.basemodels import tiny
from tests.devices.second_device import Memory, pretend


def forget_bases() -> None:
    """No base of one device is shared with a test on the other."""
    loading._last.clear()
    loading._shared.clear()
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def _libraries_are_not_collected() -> None:
    """Each test collects twice: what is in memory so far need not be looked through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _short_export_check(monkeypatch) -> None:
    monkeypatch.setattr(export_check, "STEPS", 1)


@pytest.fixture
def memory() -> Iterator[Memory]:
    """The pretend device is there; its memory."""
    forget_bases()
    with pretend() as found:
        yield found
    forget_bases()


@pytest.fixture
def in_fp32(monkeypatch) -> None:
    """Bases are loaded in fp32 where nothing else is said, to be compared with the CPU's."""
    monkeypatch.setattr(devices, "default_precision", lambda device=None: "fp32")


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """folder(name): where the tiny model of a family lies."""
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tiny.save(name, root)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """Five images with captions, one of them with a mask and one half transparent."""
    folder = tmp_path_factory.mktemp("images")
    for number, colour in enumerate(["red", "green", "blue", "white", "black"]):
        image = Image.new("RGB", (64, 64), colour)
        ImageDraw.Draw(image).ellipse((8 * number, 8, 60, 50), fill="yellow")
        if number == 1:
            image.putalpha(Image.linear_gradient("L").resize((64, 64)))
        image.save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"{colour}, a yellow disc")
    Image.radial_gradient("L").resize((64, 64)).save(folder / "0-masklabel.png")
    return folder
