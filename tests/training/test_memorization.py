"""Memorization is seen on bases without an image encoder, through their VAE; where it can't be, the run says so."""

import pytest
from PIL import Image, ImageFilter

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.training import config_from, train
from studio.training.cache import Cache
from studio.training.config_sections import DataConfig
from studio.training.events import Warned
from studio.training.examples import list_examples
from studio.training.memorization import MemorizationCheck
from studio.workspace import ASSETS, Workspace
from tests import tiers
from tests.basemodels import tiny

PIXEL = ASSETS / "datasets" / "pixel"


@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl", "z-image"]))
@pytest.mark.parametrize("flip", [False, True])
def test_a_copy_of_a_training_image_is_reported_and_another_image_is_not(tmp_path, name, flip):
    base = load_base(str(tiny.save(name, tmp_path)), shared=False)
    data = DataConfig(folder=str(PIXEL), flip=flip)
    items = open_dataset(PIXEL).items
    cache = Cache(tmp_path / "cache")
    examples, _ = list_examples(items[::6][:4], base, cache, data, 0)
    found = MemorizationCheck.of(examples, base)
    assert isinstance(found, MemorizationCheck) and not found.by_encoder
    for number, item in enumerate(items[1::6][:4]):
        found.check(number, Image.new("RGB", (64, 64), "gray"), 0, base)
        assert found.check(number, item.load(), 100, base) is None
    copy = items[6].load().filter(ImageFilter.GaussianBlur(1))
    if flip:
        copy = copy.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    said = found.check(0, copy, 100, base)
    assert said and items[6].path.name in said and "may be memorized" in said


@pytest.mark.full
def test_a_run_of_two_images_says_that_the_check_is_off(tmp_path):
    folder = tmp_path / "two"
    folder.mkdir()
    for colour in ("red", "blue"):
        Image.new("RGB", (64, 64), colour).save(folder / f"{colour}.png")
    config = config_from(
        {
            "data.folder": str(folder),
            "base": str(tiny.save("sd1", tmp_path)),
            "training.steps": 1,
            "adapter.rank": 1,
            "adapter.targets": "attention",
            "preview.steps": 1,
            "preview.prompts": ["x"],
            "validation.every": 0,
        }
    )
    said = [event.message for event in train(config, Workspace.open(tmp_path / "w")) if isinstance(event, Warned)]
    assert any(line.startswith("The memorization check is off: it needs at least 3") for line in said)
