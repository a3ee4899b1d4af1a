"""The starter with a U-Net of a hundredth of its size: for tests to which it does not matter what an image shows."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers import UNet2DConditionModel

from studio.basemodels import loading
from studio.workspace import ASSETS

STARTER = ASSETS / "starter"


def make(folder: Path) -> Path:
    """A copy of the starter in `folder` whose U-Net has the same blocks, 16 to 48 channels wide, of random weights."""
    shutil.copytree(STARTER, folder, ignore=shutil.ignore_patterns("recipe", "*.md", "*.png", "unet"))
    torch.manual_seed(0)
    settings = UNet2DConditionModel.load_config(STARTER / "unet")
    unet = UNet2DConditionModel.from_config(settings | {"block_out_channels": [16, 48, 48]})
    unet.save_pretrained(folder / "unet")
    return folder


@contextmanager
def instead(folder: Path) -> Iterator[Path]:
    """Meanwhile "starter" is the base in `folder`, for this process."""
    try:
        with patch("studio.basemodels.registry.STARTER", folder):
            _forget()
            yield folder
    finally:
        _forget()


def _forget() -> None:
    """The base in memory is known by its name."""
    loading._shared.clear()
    loading._last.clear()
