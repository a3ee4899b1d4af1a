"""A studio for strangers: two browsers side by side that must not see each other's things."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser import clicks
from tests.browser.conftest import open_studio
from tests.serving import served


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """Two pages and a run on one machine: each answers slowly."""
    expect.set_options(timeout=clicks.FIRST_LOAD)
    yield
    expect.set_options(timeout=150_000)


@pytest.fixture
def studio(tmp_path) -> Iterator[str]:
    with served(tmp_path / "workspace", public=True) as url:
        yield url


def options(page: Page, field: str) -> list[str]:
    page.locator(f"#{field} input").click()
    expect(page.get_by_role("option").first).to_be_visible()
    texts = page.get_by_role("option").all_inner_texts()
    page.locator(f"#{field} input").blur()
    return texts


@pytest.mark.full
def test_two_visitors_see_only_their_own(browser, context, studio):
    ada = open_studio(context, studio)
    other = browser.new_context(viewport={"width": 1440, "height": 1000})
    bob = open_studio(other, studio)
    for page in (ada, bob):
        page.set_default_timeout(clicks.FIRST_LOAD)
    expect(ada.locator("#import-folder")).to_have_count(0)  # no folders of the machine
    clicks.open_sample(ada, "silhouette")
    expect(ada.locator("#images img").first).to_be_visible()

    clicks.start_run(ada, "secret", 1000)
    clicks.run_state(ada, "running")
    line = ada.locator("#jobs-bar .going")
    expect(line).to_contain_text("Training secret")
    height = ada.locator("#jobs-bar").bounding_box()["height"]
    clicks.tab(ada, "Generate")
    expect(line).to_contain_text("of 1,000", timeout=clicks.FIRST_LOAD)

    expect(bob.locator("#jobs-bar .going")).to_have_count(0)
    assert bob.locator("#jobs-bar").bounding_box()["height"] == height
    named = options(bob, "dataset")
    assert "silhouette (sample)" in named and "silhouette" not in named
    clicks.open_sample(bob, "pixel")
    clicks.start_run(bob, "mine", 5)
    expect(bob.locator("#jobs-bar .going")).to_contain_text("you are next", timeout=clicks.FIRST_LOAD)
    assert "secret" not in bob.content()

    ada.get_by_role("button", name="Stop: Training secret").click()
    expect(bob.locator("#status .pill.finished")).to_be_visible(timeout=clicks.FIRST_LOAD)
    expect(line).to_have_count(0)

    clicks.tab(ada, "Train")
    clicks.run_state(ada, "stopped")
    address = ada.locator("#previews img").first.evaluate("image => image.src")
    assert ada.request.get(address).status == 200
    assert bob.request.get(address).status == 403
    ada.reload()  # the same visitor, the same run
    clicks.tab(ada, "Train")
    clicks.run_state(ada, "stopped")
    other.close()


@pytest.mark.full
def test_about_says_what_works_and_what_takes_room(page):
    clicks.open_sample(page, "silhouette")
    clicks.tab(page, "About")
    expect(page.locator("#machine")).to_contain_text(re.compile(r"generate\s+works"), timeout=clicks.FIRST_LOAD)
    expect(page.locator("#workspace")).to_contain_text("deleted 4 hours after")
    expect(page.locator("#sizes")).to_contain_text("kB")
    page.locator("#clear-cache").click()
    expect(page.locator("#cleared")).to_contain_text("freed")
    dark = page.locator("body.dark")
    before = dark.count()
    page.locator("#theme").click()
    expect(dark).to_have_count(1 - before)
    page.reload()
    expect(page.get_by_role("tab", name="Dataset")).to_be_visible()
    expect(dark).to_have_count(1 - before)
