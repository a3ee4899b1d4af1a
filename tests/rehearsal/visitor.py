"""A stranger's way through a Space: in Chromium, inside a frame of another site, as the Hub shows it."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Frame, Page, expect, sync_playwright

from studio.server.permissions import VISITED
from tests.browser import clicks
from tests.browser.conftest import FLAGS
from tests.rehearsal.environment import NAME
from tests.rehearsal.hub import Check
from tests.serving import Quiet, answering

STEPS = 30
RUN = "lanterns"  # a word that stands nowhere else on the page
TOKEN = "e30.e30.e30"  # a JWT that says nothing
Look = Page | Frame


class Walk:
    """Steps of a visit. Each is a line of the table: its seconds, or what went wrong; those behind it are tried too."""

    def __init__(self, place: str, runs: Callable[[], bool], frame: Look):
        self.place, self.runs, self.frame, self.found = place, runs, frame, list[Check]()

    def step(self, what: str, act: Callable[[], str | None]) -> None:
        began = time.monotonic()
        try:
            assert self.runs(), "the studio has ended"
            said, good = act() or "", True
        except Exception as error:  # one step that fails must not hide the others
            said, good = f"{str(error).strip().splitlines()[0][:200]} {self.shown()}".strip(), False
        seconds = f"{time.monotonic() - began:.1f} s"
        self.found.append(Check(f"{self.place}: {what}", good, f"{said}, {seconds}" if said else seconds))
        print(*self.found[-1], sep=" | ", flush=True)

    def shown(self) -> str:
        """The messages that stand on the page, for a step that failed."""
        try:
            return " ".join(self.frame.get_by_test_id("toast-text").all_inner_texts())[:300]
        except Exception:
            return ""


def visit(place: str, url: str, on_zero: bool, runs: Callable[[], bool], patience: float) -> list[Check]:
    """Walk through the studio at `url` while it runs. place: the first words of each line; patience: seconds that one
    thing may take."""
    with hub_page(url) as outside, sync_playwright() as playwright:
        path = shutil.which("chromium")
        assert path, "The rehearsal needs Chromium: apt-get install chromium."
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        clicks.FIRST_LOAD = 1000 * patience
        expect.set_options(timeout=1000 * patience)
        frame = framed(chromium, outside)
        walk = Walk(place, runs, frame)
        walk.step("page opens in the Hub's frame", lambda: expect(tab(frame, "Dataset")).to_be_visible())
        walk.step("limits, their reasons and how to duplicate it", lambda: note(frame, on_zero))
        walk.step("generate with the starter", lambda: generate(frame))
        walk.step("open a sample", lambda: sample(frame))
        walk.step(f"train {STEPS} steps on it", lambda: train(frame))
        walk.step("generate with the adapter", lambda: with_adapter(frame))
        walk.step("a run that is too long is refused, with the reason", lambda: too_long(frame))
        walk.step("no folders, models or publishing of the owner's", lambda: closed(frame))
        walk.step("another visitor sees none of it", lambda: other(chromium, outside))
        walk.step("a reload finds it again", lambda: again(frame))
        chromium.close()
    return walk.found


def framed(chromium: Browser, outside: str) -> Frame:
    """The studio's frame, in a fresh window that sends the Hub's token of a visitor."""
    window = chromium.new_context(viewport={"width": 1440, "height": 1000}, extra_http_headers={"x-ip-token": TOKEN})
    page = window.new_page()
    page.set_default_timeout(clicks.FIRST_LOAD)
    page.goto(outside)
    return inside(page)


def inside(page: Page) -> Frame:
    """The studio's frame of a page."""
    for _ in range(int(clicks.FIRST_LOAD / 200)):
        for frame in page.frames:
            if frame.url.startswith("http://127.0.0.1"):
                return frame
        page.wait_for_timeout(200)
    raise AssertionError(f"the studio does not open in a frame: {[frame.url for frame in page.frames]}")


@contextmanager
def hub_page(url: str) -> Iterator[str]:
    """A page of another site with the studio in a frame: localhost and 127.0.0.1 are two sites to a browser."""

    class Hub(Quiet):
        def do_GET(self) -> None:
            page = (
                f'<!doctype html><title>{NAME}</title><iframe src="{url}" style="width:100%;height:980px" '
                'allow="clipboard-write" sandbox="allow-downloads allow-forms allow-modals allow-popups '
                'allow-popups-to-escape-sandbox allow-same-origin allow-scripts"></iframe>'
            )
            self.say("text/html", page.encode())

    with answering(Hub) as port:
        yield f"http://localhost:{port}"


def tab(frame: Look, name: str):
    return frame.get_by_role("tab", name=name, exact=True)


def note(frame: Look, on_zero: bool) -> str:
    summary = frame.locator("#visitor-note summary")
    summary.click()
    text = frame.locator("#visitor-note details").inner_text()
    link = frame.get_by_role("link", name="Duplicate this Space").get_attribute("href")
    assert link == f"https://huggingface.co/spaces/{NAME}?duplicate=true", link
    for part in (f"{dict(VISITED.most)['training.steps']:,.0f} steps", "shared", "hours", "STUDIO_OPEN=1"):
        assert part in text, f"the note does not say {part!r}"
    assert ("quota" in text) is on_zero, "what is said of ZeroGPU"
    summary.click()
    return "said above the tabs"


def generate(frame: Look) -> None:
    tab(frame, "Generate").click()
    clicks.fill(frame, "prompt", "a red apple")
    clicks.draw(frame)


def sample(frame: Look) -> None:
    tab(frame, "Dataset").click()
    clicks.open_sample(frame, "silhouette")


def train(frame: Look) -> None:
    clicks.start_run(frame, RUN, STEPS)
    clicks.run_state(frame, "finished", timeout=clicks.FIRST_LOAD)


def with_adapter(frame: Look) -> None:
    frame.locator("#to-generate").click()
    expect(frame.locator("#strength-0")).to_be_visible()
    clicks.draw(frame)


def too_long(frame: Look) -> str:
    tab(frame, "Train").click()
    clicks.fill(frame, "training-steps", "5000")
    frame.locator("#start").click()
    text = clicks.message(frame, "must be at most")
    assert "your own machine" in text, text
    clicks.fill(frame, "training-steps", str(STEPS))
    return text


def closed(frame: Look) -> None:
    for name in ("#import-folder", "#publish"):
        expect(frame.locator(name)).to_have_count(0)


def other(chromium: Browser, outside: str) -> None:
    frame = framed(chromium, outside)
    expect(tab(frame, "Dataset")).to_be_visible()
    tab(frame, "Train").click()
    expect(frame.locator("#jobs-bar .going")).to_have_count(0)
    assert not re.search(rf"\b{RUN}\b", frame.locator("#tab-train").inner_text()), "another visitor's run shows"
    frame.page.context.close()


def again(frame: Look) -> None:
    frame.page.reload()
    fresh = inside(frame.page)
    expect(tab(fresh, "Train")).to_be_visible()
    tab(fresh, "Train").click()
    expect(fresh.locator("#status")).to_contain_text(RUN)
