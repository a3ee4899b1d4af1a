"""A new user's way with images of their own, on the base that is shipped; the independent judge has the last word."""

import json
import shutil
import sys

import pytest
import torch

from studio.captioning.shapes import Shapes
from studio.workspace import ASSETS
from tests.browser import clicks
from tests.browser.conftest import open_studio, watched_window
from tests.browser.test_way_through import fetch
from tests.serving import launched

RECIPE = ASSETS / "starter" / "recipe"
UNSEEN = ("red apple", "fish", "bicycle", "tulip", "rocket", "penguin")  # in no image of the set
MOST_STEPS = 900_000  # ms for the preset's steps on a busy machine


@pytest.mark.slow
def test_own_images_teach_a_style_and_things_are_still_recognized(browser, tmp_path):
    files = []
    for place, path in enumerate(sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[:16]):
        files.append(str(shutil.copy(path, tmp_path / f"scan_{place:02}.png")))  # neither captions nor telling names
    with launched(tmp_path / "workspace") as (_, url), watched_window(browser) as window:
        page = open_studio(window, url)
        clicks.add_images(page, files, "mine")
        clicks.fill(page, "trigger", "zsk")
        clicks.caption_everything(page)
        page.locator("#to-train").click()
        page.locator("#start").click()
        clicks.run_state(page, "finished", timeout=MOST_STEPS)
        page.locator("#to-generate").click()
        with_it, without = [], []
        for name in UNSEEN:
            clicks.fill(page, "prompt", f"zsk, {name}, on a cyan background")
            with_it.append(fetch(page, clicks.draw(page)))
            without.append(fetch(page, page.locator("#without img").get_attribute("src")))
    assert named(with_it) >= 5, "the judge no longer recognizes what was asked for"
    assert nearly_black(with_it) > nearly_black(without) + 0.02, "the style did not come across"


def named(images) -> int:
    """How many the judge (no part of the base) names right in its top 5."""
    sys.path.insert(0, str(RECIPE))
    import judge
    from measure import pixels

    names = json.loads((ASSETS / "starter" / "vocabulary.json").read_text("utf-8"))["names"]
    truth = torch.tensor([names.index(name) for name in UNSEEN])
    return int((judge.ranks(Shapes.read(RECIPE / "judge.safetensors"), pixels(images), truth) < 5).sum())


def nearly_black(images) -> float:
    from measure import pixels

    return (((pixels(images) + 1) / 2).amax(1) < 0.24).float().mean().item()
