"""What the page costs a browser: to open it, to leave it open, and until it answers a click.

python -m tests.benchmarks.opening [--rounds 5] [--seconds 15] [--clicks 5]

Processor seconds of Chromium, since others on the machine disturb them least; and by the clock, for a quiet machine:
the page's first tab, its Largest Contentful Paint (as the browser reports it, https://web.dev/lcp), and for each main
button the time from the click to the first frame in which something changed.
"""

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
from playwright.sync_api import Browser, Page, sync_playwright

from tests.serving import served

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTLED = 6000  # ms after its first tab is seen
GOAL = 100  # ms from a click to its answer, on a quiet machine
LCP_JS = """new PerformanceObserver(list => { window.largest = list.getEntries().at(-1).startTime; })
  .observe({type: 'largest-contentful-paint', buffered: true});
document.addEventListener('DOMContentLoaded', () => new MutationObserver((_, self) => {
  if (!document.querySelector('#tabs button[role=tab]')) return;
  self.disconnect();
  requestAnimationFrame(() => { window.firstTab = performance.now(); });
}).observe(document, {subtree: true, childList: true}));"""
# From the pointer's event to the frame after the first change of anything that shows.
CLICK_JS = """selector => new Promise((done, fail) => {
  const button = [...document.querySelectorAll(selector)].find(one => one.offsetParent && !one.disabled);
  if (!button) return fail(new Error('not there: ' + selector));
  let began;
  new MutationObserver((_, self) => {
    self.disconnect();
    requestAnimationFrame(() => setTimeout(() => done(performance.now() - began)));
  }).observe(document.body, {subtree: true, childList: true, attributes: true, characterData: true});
  began = performance.now();
  button.click();
})"""
# The tab, and the buttons of it that are pressed; what they begin is short, or refused.
CLICKS = {
    "dataset": ("#start-cards button[data-act=add]", "#start-cards button[data-act=sample]"),
    "train": ("#check-first", "#start"),
    "generate": ("#go", "#generate-tabs button[data-tab-id=grid]", "#generate-tabs button[data-tab-id=gallery]"),
    "about": ("#machine-again", "#theme", "#keys-button"),
}


class Opened(NamedTuple):
    """used: processor seconds to open the page; open: the same by the second afterwards; asked: requests a second,
    then; tab, largest: seconds until its first tab and its largest paint; sent: MB as they travel; page: MB of HTML."""

    used: float
    open: float
    asked: float
    tab: float
    largest: float
    sent: float
    page: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="that the page is left open")
    parser.add_argument("--clicks", type=int, default=5, help="on each button")
    given = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    with (
        tempfile.TemporaryDirectory() as root,
        served(Path(root) / "workspace") as url,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        found = [opened(chromium, url, given.seconds) for _ in range(given.rounds)]
        told(found)
        for name, times in clicked(chromium, url, given.clicks):
            late = "" if statistics.median(times) <= GOAL else f"  above {GOAL}"
            print(
                f"{name}: median {statistics.median(times):.0f} ms of {', '.join(f'{one:.0f}' for one in times)}{late}"
            )
        chromium.close()


def told(found: list[Opened]) -> None:
    names = (
        "to open the page", "a second, open", "requests a second, open", "seconds to the first tab",
        "seconds to the largest paint", "MB sent", "MB of HTML",
    )  # fmt: skip
    for name, values in zip(names, zip(*found)):
        print(f"{name}: median {statistics.median(values):.2f} of {', '.join(f'{one:.2f}' for one in values)}")


def opened(chromium: Browser, url: str, seconds: float) -> Opened:
    """Open the page in a fresh window, and leave it open."""
    window, before, asked = chromium.new_context(viewport={"width": 1440, "height": 1000}), used(), []
    window.add_init_script(LCP_JS)
    page = window.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.get_by_role("tab", name="Dataset").wait_for(timeout=120_000)
    page.wait_for_timeout(SETTLED)
    tab, largest = (page.evaluate(f"window.{name} || NaN") / 1000 for name in ("firstTab", "largest"))
    sent, document = page.evaluate(
        "() => { const one = performance.getEntriesByType('navigation')[0];"
        "return [performance.getEntriesByType('resource').reduce((sum, each) => sum + each.transferSize,"
        "one.transferSize), one.decodedBodySize]; }"
    )
    there, many = used(), len(asked)
    page.wait_for_timeout(1000 * seconds)
    leaves = (used() - there) / seconds, (len(asked) - many) / seconds
    window.close()
    return Opened(there - before, *leaves, tab, largest, sent / 1e6, document / 1e6)


def clicked(chromium: Browser, url: str, many: int) -> Iterator[tuple[str, list[float]]]:
    """(button, milliseconds until something changed) of each; a button that is not there is left out, and named."""
    window = chromium.new_context(viewport={"width": 1440, "height": 1000})
    page = window.new_page()
    page.set_default_timeout(120_000)
    page.goto(url)
    page.get_by_role("tab", name="Dataset").wait_for()
    page.wait_for_timeout(SETTLED)
    yield "tabs", [time for tab in CLICKS for time in pressed(page, f"#tabs button[data-tab-id={tab}]", 1)]
    for tab, buttons in CLICKS.items():
        pressed(page, f"#tabs button[data-tab-id={tab}]", 1)
        page.wait_for_timeout(2000)
        for button in buttons:
            times = pressed(page, button, many)
            if times:
                yield button, times
            else:
                print(f"{button}: not there")
    window.close()


def pressed(page: Page, selector: str, many: int) -> list[float]:
    times = []
    for _ in range(many):
        try:
            times.append(page.evaluate(CLICK_JS, selector))
        except Exception:  # a button may go once it was pressed
            break
        page.wait_for_timeout(1500)
    return times


def used() -> float:
    """Processor seconds of all of Chromium's processes so far."""
    found = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    return sum(sum(one.cpu_times()[:2]) for one in found if one.status() != psutil.STATUS_ZOMBIE)


if __name__ == "__main__":
    main()
