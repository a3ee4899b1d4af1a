"""What the page costs a browser: processor seconds of Chromium to open it and, by the second, to leave it open.

python -m tests.benchmarks.opening [--rounds 5] [--seconds 15]

Processor time rather than the clock's: others on the machine disturb it least.
"""

import argparse
import shutil
import statistics
import tempfile
from pathlib import Path

import psutil
from playwright.sync_api import Browser, sync_playwright

from tests.serving import served

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
SETTLED = 6000  # ms after its first tab is seen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="that the page is left open")
    given = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as root,
        served(Path(root) / "workspace") as url,
        sync_playwright() as playwright,
    ):
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        found = [opened(chromium, url, given.seconds) for _ in range(given.rounds)]
        chromium.close()
    for name, values in zip(("to open the page", "a second, open", "requests a second, open"), zip(*found)):
        print(f"{name}: median {statistics.median(values):.2f} of {', '.join(f'{one:.2f}' for one in values)}")


def opened(chromium: Browser, url: str, seconds: float) -> tuple[float, float, float]:
    """Processor seconds to open the page in a fresh window, the same by the second afterwards, and its requests."""
    window, before, asked = chromium.new_context(viewport={"width": 1440, "height": 1000}), used(), []
    page = window.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto(url)
    page.get_by_role("tab", name="Dataset").wait_for(timeout=120_000)
    page.wait_for_timeout(SETTLED)
    there, many = used(), len(asked)
    page.wait_for_timeout(1000 * seconds)
    result = there - before, (used() - there) / seconds, (len(asked) - many) / seconds
    window.close()
    return result


def used() -> float:
    """Processor seconds of all of Chromium's processes so far."""
    found = [one for one in psutil.Process().children(recursive=True) if "chrom" in one.name()]
    return sum(sum(one.cpu_times()[:2]) for one in found if one.status() != psutil.STATUS_ZOMBIE)


if __name__ == "__main__":
    main()
