"""The images of the documentation, made by clicking through the studio; also every tab in every size and shade.

python -m tests.browser.screenshots [--steps 200] [--out docs/images] [--every FOLDER]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, expect, sync_playwright

from studio.workspace import ASSETS
from tests.browser import clicks
from tests.browser.conftest import FLAGS, open_studio
from tests.serving import served

WIDTH, PHONE = 1440, 390  # pixels
INNER = {
    "Dataset": ["Images", "Check", "Bulk edit", "Compare captioners", "History"],
    "Train": ["This run", "All runs"],
    "Generate": ["Image", "Grid", "Adapters", "Measure", "Gallery"],
    "About": [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="length of the run that is shown")
    parser.add_argument("--out", type=Path, default=ASSETS.parent / "docs" / "images")
    parser.add_argument("--every", type=Path, help="also every tab, empty and full, wide and narrow, light and dark")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root, served(Path(root)) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = chromium.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        if given.every:
            every_tab(chromium, url, given.every, "empty")
        page = open_studio(context, url)
        page.set_default_timeout(clicks.FIRST_LOAD)
        expect.set_options(timeout=clicks.FIRST_LOAD)
        clicks_through(page, given.steps, given.out)
        if given.every:
            every_tab(chromium, url, given.every, "full")
        chromium.close()


def clicks_through(page: Page, steps: int, out: Path) -> None:
    clicks.open_sample(page, "silhouette")
    clicks.caption_everything(page)
    page.locator("#images button.thumbnail-lg").nth(1).click()
    expect(page.locator("#large img")).to_be_visible()
    shoot(page, out / "dataset.png")
    inner(page, "dataset", "Check")
    page.locator("#check-dataset").click()
    expect(page.locator("#tab-check")).not_to_contain_text("Not checked yet")
    clicks.start_run(page, "silhouette", steps)
    clicks.run_state(page, "finished", timeout=3_600_000)
    expect(page.locator("#to-generate")).to_be_visible()
    shoot(page, out / "train.png")
    clicks.fill(page, "run-name", "silhouette-rank-2")
    clicks.fill(page, "adapter-rank", "2")
    page.locator("#start").click()
    expect(page.locator("#status")).to_contain_text("silhouette-rank-2")
    clicks.run_state(page, "finished", timeout=3_600_000)
    inner(page, "train", "All runs")
    for run in ("silhouette", "silhouette-rank-2"):
        page.locator(f"#runs input[data-tick={run}]").check()
    expect(page.locator("#runs-chart path.held")).to_have_count(2)
    shoot(page, out / "runs.png")
    inner(page, "train", "This run")
    page.locator("#to-generate").click()
    expect(page.locator("#strength-0")).to_be_visible()
    clicks.fill(page, "prompt", "teddy bear, on a cyan background")
    clicks.fill(page, "seed", "3")
    clicks.draw(page)
    shoot(page, out / "generate.png")
    inner(page, "generate", "Grid")
    page.locator("#grid-sweep").click()
    expect(page.locator("#grid-plan")).to_contain_text("images")
    page.locator("#grid-go").click()
    expect(page.locator("#grid-sheet")).to_be_visible()
    shoot(page, out / "grid.png")
    inner(page, "generate", "Adapters")
    page.locator("#library .adapter-card").first.get_by_text("Inspect").click()
    expect(page.locator("#inspector .heat td.on").first).to_be_visible()
    shoot(page, out / "adapters.png")
    inner(page, "generate", "Measure")
    clicks.choose(page, "measure-dataset", "silhouette")
    page.locator("#measure").click()
    expect(page.locator("#measured .suggested")).to_be_visible()
    expect(page.locator("#stop-measure")).to_be_hidden()
    shoot(page, out / "measure.png")


def inner(page: Page, outer: str, name: str) -> None:
    """A tab within a tab."""
    tabs = page.locator(f"#{outer.lower()}-tabs")
    one = tabs.get_by_role("tab", name=name, exact=True)
    if one.count():
        one.click()
    else:  # a narrow page keeps what does not fit behind three dots
        tabs.locator(".overflow-menu > button").click()
        tabs.locator(".overflow-dropdown button", has_text=name).click()


def every_tab(chromium: Browser, url: str, out: Path, state: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for width in (WIDTH, PHONE):
        for shade in ("light", "dark"):
            context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=shade)
            page = open_studio(context, url)
            page.set_default_timeout(clicks.FIRST_LOAD)
            for outer, names in INNER.items():
                page.get_by_role("tab", name=outer, exact=True).click()
                for name in names or [""]:
                    if name:
                        inner(page, outer, name)
                    file = "-".join(filter(None, [state, outer, name.replace(" ", "-"), str(width), shade]))
                    shoot(page, out / f"{file}.png")
            context.close()


def shoot(page: Page, path: Path) -> None:
    page.mouse.move(5, 5)
    expect(page.locator(".going")).to_have_count(0)  # of what has just ended
    size = page.viewport_size
    height = page.evaluate("document.documentElement.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": max(height, size["height"])})  # buttons in sight stay put
    page.wait_for_timeout(1500)  # fades and the last thumbnails
    page.screenshot(path=path, full_page=True)
    page.set_viewport_size(size)
    print(path, flush=True)


if __name__ == "__main__":
    main()
