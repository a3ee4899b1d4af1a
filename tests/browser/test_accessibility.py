"""axe-core, the checker that browsers' own tools use, finds nothing serious on any tab, light or dark."""

from functools import cache
from importlib.resources import files

import pytest
from playwright.sync_api import Page, expect

from tests.browser import clicks
from tests.browser.conftest import open_studio
from tests.browser.screenshots import INNER, inner

GRAVE = ("serious", "critical")
TABS = [(outer, name) for outer, names in INNER.items() for name in names or [""]]


@cache
def axe() -> str:
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")


def findings(page: Page) -> list[str]:
    """Rule, and where it is broken, of what is grave."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(axe())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [
        f"{one['id']} ({one['impact']}): {node['html'][:160]} | {' '.join(node['failureSummary'].split())[:200]}"
        for one in found
        if one["impact"] in GRAVE
        for node in one["nodes"]
    ]


def shown(page: Page, outer: str, name: str) -> None:
    page.locator(f"#tabs button[data-tab-id={outer.lower()}]").first.click()
    if name and page.locator(f"#{outer.lower()}-tabs").is_visible():  # without a dataset there are no inner tabs
        inner(page, outer, name)
    page.wait_for_timeout(600)  # fades, whose contrast is not the page's


def test_axe_finds_nothing_grave(kept_page):
    clicks.open_sample(kept_page, "silhouette")
    shown(kept_page, "Dataset", "Images")
    assert not findings(kept_page)


@pytest.mark.full
@pytest.mark.parametrize("shade", ["light", "dark"])
def test_axe_finds_nothing_grave_on_any_tab(browser, studio, shade):
    window = browser.new_context(viewport={"width": 1440, "height": 1000}, color_scheme=shade)
    page = open_studio(window, studio)
    page.set_default_timeout(clicks.FIRST_LOAD)
    found = {"First view": findings(page)}
    clicks.open_sample(page, "silhouette")
    for outer, name in TABS:
        shown(page, outer, name)
        found[f"{outer} {name}".strip()] = findings(page)
    shown(page, "Dataset", "Images")
    page.locator("#images button.thumbnail-lg").nth(1).click()
    expect(page.locator("#large img")).to_be_visible()
    found["Dataset, open"] = findings(page)
    page.locator("#keys-button").click()
    found["Keys"] = findings(page)
    window.close()
    assert not any(found.values()), "\n".join(f"{where}: {one}" for where, all in found.items() for one in all)
