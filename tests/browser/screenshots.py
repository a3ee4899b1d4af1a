"""The pictures of the README, made by clicking through the studio.

python -m tests.browser.screenshots [--steps 200] [--out assets/screenshots]
"""

import argparse
import shutil
import tempfile
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from studio.workspace import ASSETS
from tests.browser import clicks
from tests.browser.conftest import FLAGS, open_studio
from tests.serving import served

WIDTH = 1440  # pixels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=200, help="length of the run that is shown")
    parser.add_argument("--out", type=Path, default=ASSETS / "screenshots")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as root, served(Path(root)) as url, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        context = chromium.new_context(viewport={"width": WIDTH, "height": 900}, color_scheme="light")
        clicks_through(open_studio(context, url), given.steps, given.out)
        chromium.close()


def clicks_through(page: Page, steps: int, out: Path) -> None:
    clicks.open_sample(page, "silhouette")
    clicks.caption_everything(page)
    page.locator("#pictures button.thumbnail-lg").nth(1).click()
    expect(page.locator("#large img")).to_be_visible()
    shoot(page, out / "dataset.png")
    clicks.start_run(page, "silhouette", steps)
    clicks.run_state(page, "finished", timeout=3_600_000)
    expect(page.locator("#to-generate")).to_be_visible()
    shoot(page, out / "train.png")
    page.locator("#to-generate").click()
    expect(page.locator("#strength-0")).to_be_visible()
    clicks.fill(page, "prompt", "teddy bear, on a cyan background")
    clicks.fill(page, "seed", "3")
    clicks.draw(page)
    shoot(page, out / "generate.png")


def shoot(page: Page, path: Path) -> None:
    page.mouse.move(WIDTH - 5, 5)
    page.wait_for_timeout(1500)  # fades and the last thumbnails
    page.screenshot(path=path, full_page=True)
    print(path)


if __name__ == "__main__":
    main()
