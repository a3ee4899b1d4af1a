"""The whole way by clicking: sample dataset, captions, a short run, images at two strengths."""

import io
from urllib.parse import urljoin

import pytest
from PIL import Image, ImageChops
from playwright.sync_api import TimeoutError, expect

from studio.workspace import ASSETS
from tests.browser import clicks


def test_whole_way_by_clicking(page, tmp_path):
    clicks.open_sample(page, "silhouette")
    clicks.fill(page, "trigger", "inkling")
    clicks.choose(page, "mode", "All images, in place of what is there")
    clicks.caption_everything(page)
    captions = sorted((tmp_path / "workspace/datasets/silhouette").glob("*.txt"))
    assert captions and all(path.read_text(encoding="utf-8").startswith("inkling, ") for path in captions)

    clicks.start_run(page, "ink", steps=20)
    clicks.run_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("20 of 20")
    expect(page.locator("#run-notes")).to_contain_text("2 images held out for validation")
    steps = page.locator("#steps")
    expect(steps.locator("[data-step=train]")).to_contain_text("ink: finished")
    expect(steps.locator(".next")).to_have_attribute("data-step", "test")
    expect(page.locator("#loss svg path.train")).to_have_count(1)

    page.locator("#to-generate").click()
    expect(page.locator("#strength-0")).to_contain_text("ink")
    clicks.fill(page, "prompt", "inkling, a red apple, on a blue background")
    clicks.fill(page, "gen-steps", "4")
    clicks.fill(page, "seed", "7")  # kept from here on
    clicks.set_strength(page, 0, 0.2)
    weak = fetch(page, clicks.draw(page))
    bare = fetch(page, page.locator("#without img").get_attribute("src"))
    clicks.set_strength(page, 0, 1.0)
    strong = fetch(page, clicks.draw(page))
    expect(page.locator("#recipe")).to_contain_text("ink at 1")
    expect(steps.locator("[data-step=test]")).to_contain_text("with ink")
    assert weak.size == strong.size == bare.size
    assert differ(weak, strong) and differ(weak, bare)


@pytest.mark.full
def test_whole_way_by_keyboard_alone(page, tmp_path):
    """Own images, captions, a run, and an image with and without it: Tab, Enter and what is typed."""
    files = [str(path) for path in sorted((ASSETS / "datasets" / "silhouette").glob("*.png"))[:6]]
    choose_files(page, files)
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(6)

    reach(page, "#caption-all")
    page.keyboard.press("Enter")
    expect(page.locator("#caption-progress")).to_contain_text("6 captions written", timeout=clicks.FIRST_LOAD)
    assert len(list((tmp_path / "workspace/datasets/my-images").glob("*.txt"))) == 6
    reach(page, "#to-train")
    page.keyboard.press("Enter")
    expect(page.locator("#train-dataset input")).to_have_value("my-images")
    reach(page, "#training-steps input")
    page.keyboard.press("Control+A")
    page.keyboard.type("8")
    page.wait_for_timeout(300)  # as long as a hand takes to the next key
    reach(page, "#start")
    page.keyboard.press("Enter")
    clicks.run_state(page, "finished")

    reach(page, "#to-generate")
    page.keyboard.press("Enter")
    expect(page.locator("#strength-0")).to_contain_text("my-images")
    reach(page, "#prompt textarea")
    page.keyboard.type("red apple, on a blue background")
    page.keyboard.press("Control+Enter")
    expect(page.locator("#image img")).to_be_visible(timeout=clicks.FIRST_LOAD)
    expect(page.locator("#without img")).to_be_visible()


def choose_files(page, files: list[str]) -> None:
    """By the keyboard; once more where the page was still being filled, which takes the focus away."""
    for again in (True, True, False):
        reach(page, "#drop-images button")
        try:
            with page.expect_file_chooser(timeout=10_000) as chooser:
                page.keyboard.press("Enter")
        except TimeoutError:
            if not again:
                raise
            continue
        return chooser.value.set_files(files)


def reach(page, target: str, most: int = 300) -> None:
    """Press Tab until the focus is on what fits."""
    expect(page.locator(target).first).to_be_visible()
    for _ in range(most):
        if page.evaluate("target => !!document.activeElement?.matches(target)", target):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} was not reached by {most} times Tab")


def fetch(page, address: str) -> Image.Image:
    return Image.open(io.BytesIO(page.request.get(urljoin(page.url, address)).body())).convert("RGB")


def differ(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None
