"""The whole way by clicking: sample dataset, captions, a short run, images at two strengths."""

import io

from PIL import Image, ImageChops
from playwright.sync_api import expect

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
    assert weak.size == strong.size == bare.size
    assert differ(weak, strong) and differ(weak, bare)


def fetch(page, address: str) -> Image.Image:
    return Image.open(io.BytesIO(page.request.get(address).body())).convert("RGB")


def differ(one: Image.Image, other: Image.Image) -> bool:
    return ImageChops.difference(one, other).getbbox() is not None
