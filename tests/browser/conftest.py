"""Debian's Chromium against one studio, whose workspace is emptied for each test.

A console error or a request to the outside fails the test.
"""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests import small_starter
from tests.serving import begin_anew, end_jobs, served

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 300_000  # ms: a machine of two cores also runs the other worker's tests
expect.set_options(timeout=PATIENCE)
# What Gradio's client says of its own streams when a page is left while one is open.
LEAVING = ("AbortError: signal is aborted", "Unexpected error Connection errored out")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    assert path, "The browser tests need Chromium: apt-get install chromium."
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _quick(quick_export_check) -> None:
    pass


@pytest.fixture(scope="session")
def home(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def served_once(home, small_starter_folder) -> Iterator[str]:
    """Building and serving a studio takes seconds, so one serves all tests; its starter is the small one."""
    with small_starter.instead(small_starter_folder), served(home / "workspace") as url:
        yield url


@pytest.fixture
def tmp_path(home) -> Path:
    """An empty folder, the same one for each test: in it lies the workspace of the studio."""
    return empty(home)


def empty(folder: Path) -> Path:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    return folder


@pytest.fixture
def studio(tmp_path, served_once) -> Iterator[str]:
    """The address of a studio with an empty workspace in `tmp_path / "workspace"`."""
    begin_anew(tmp_path / "workspace")
    yield served_once
    end_jobs()


@pytest.fixture
def context(browser, studio) -> Iterator[BrowserContext]:
    """A fresh window, closed before the studio ends."""
    with watched_window(browser) as window:
        yield window


@pytest.fixture(scope="module")
def kept_page(browser, served_once, home) -> Iterator[Page]:
    """One page, and one workspace, for all tests of a file: opening a page costs six seconds of a core."""
    empty(home)
    begin_anew(home / "workspace")
    with watched_window(browser) as window:
        yield open_studio(window, served_once)
    end_jobs()


@contextmanager
def watched_window(browser: Browser) -> Iterator[BrowserContext]:
    """A window whose pages may not complain and may not call anyone outside."""
    window = browser.new_context(viewport={"width": 1440, "height": 1000})
    faults: list[str] = []

    def said(message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(LEAVING):
            faults.append(f"console: {message.text}")

    def watch(page: Page) -> None:
        page.on("console", said)
        page.on("pageerror", lambda error: faults.append(f"page: {error}"))

    def request(asked) -> None:
        if not asked.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            faults.append(f"outside request: {asked.url}")

    window.on("page", watch)
    window.on("request", request)
    yield window
    window.close()
    assert not faults, "\n".join(faults)


@pytest.fixture
def page(context, studio) -> Page:
    """The studio, open on its first tab."""
    return open_studio(context, studio)


def open_studio(context: BrowserContext, url: str) -> Page:
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    expect(page.get_by_role("tab", name="Dataset")).to_be_visible()
    return page
