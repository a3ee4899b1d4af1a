"""What belongs to the page and to no tab: its title, the notification, the list of keys, other languages."""

import threading

import pytest
from playwright.sync_api import expect

from studio.services.jobs import Job, jobs
from tests.browser.conftest import open_studio, watched_window

NOTIFICATIONS = """
window.told = [];
window.Notification = class { constructor(title, options) { told.push(`${title}: ${options.body}`); } };
Notification.permission = 'granted';
Notification.requestPermission = async () => 'granted';
"""
HIDE = """hidden => {
  Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
  Object.defineProperty(document, 'visibilityState', {value: hidden ? 'hidden' : 'visible', configurable: true});
  document.dispatchEvent(new Event('visibilitychange'));
}"""


def running(name: str) -> tuple[Job, threading.Event]:
    """A job as of a run, and the event that ends it."""
    end = threading.Event()

    def work(job: Job) -> None:
        job.done, job.total = 21, 50
        end.wait(60)

    return jobs.start("train", f"Training {name}", work), end


def test_a_run_stands_in_the_title(kept_page):
    _, end = running("zsk")
    expect(kept_page).to_have_title("42 % · zsk — LoRA Studio")
    end.set()
    expect(kept_page).to_have_title("LoRA Studio")


@pytest.mark.full
def test_a_hidden_page_tells_of_the_end(browser, studio):
    with watched_window(browser) as window:
        window.add_init_script(NOTIFICATIONS)
        page = open_studio(window, studio)
        job, end = running("zsk")
        button = page.locator("#jobs-bar [data-notify]")
        expect(button).to_have_attribute("aria-pressed", "false")
        button.click()
        expect(button).to_have_attribute("aria-pressed", "true")
        page.evaluate(HIDE, True)
        job.done = 45
        expect(page).to_have_title("90 % · zsk — LoRA Studio")
        end.set()
        expect(page).to_have_title("LoRA Studio")
        assert page.evaluate("told") == ["LoRA Studio: zsk: finished"]
        page.evaluate(HIDE, False)


@pytest.mark.full
def test_nothing_is_told_unasked(browser, studio):
    with watched_window(browser) as window:
        window.add_init_script(NOTIFICATIONS)
        page = open_studio(window, studio)
        _, end = running("zsk")
        expect(page.locator("#jobs-bar [data-notify]")).to_be_visible()
        page.evaluate(HIDE, True)
        end.set()
        expect(page).to_have_title("LoRA Studio")
        assert page.evaluate("told") == []


@pytest.mark.full
def test_a_question_mark_lists_the_keys(kept_page):
    field = kept_page.locator("#dataset input")
    field.click()
    field.press("?")
    expect(kept_page.locator("#keys")).to_have_count(0)  # it is text there
    field.press("Escape")
    kept_page.locator("h1").click()
    kept_page.keyboard.press("?")
    expect(kept_page.get_by_role("dialog", name="Keys")).to_contain_text("Ctrl+Enter")
    kept_page.keyboard.press("Escape")
    expect(kept_page.get_by_role("dialog", name="Keys")).to_have_count(0)


@pytest.mark.full
def test_a_german_browser_reads_german(browser, studio):
    window = browser.new_context(viewport={"width": 1440, "height": 1000}, locale="de-DE")
    page = window.new_page()
    page.goto(studio)
    expect(page.get_by_role("tab", name="Datensatz")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "de")
    _, end = running("zsk")
    expect(page.locator("#jobs-bar .going [data-notify]")).to_have_text("Benachrichtigen")  # a handler sent it
    end.set()
    page.locator("#tabs button[data-tab-id=about]").first.click()
    assert page.url.endswith("#about")
    page.locator("#languages button[lang=en]").click()
    expect(page.get_by_role("tab", name="Dataset", exact=True)).to_be_visible()
    page.reload()
    expect(page.get_by_role("tab", name="Dataset", exact=True)).to_be_visible()
    window.close()
