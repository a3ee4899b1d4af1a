"""A grid drawn by clicking: a reload finds it again, its cells give their recipes back, and it can be voted on."""

import pytest
from playwright.sync_api import Page, expect

from tests.browser import clicks
from tests.browser.test_generate import PROMPT, adapter, open_generate


def open_grid(page: Page) -> None:
    page.get_by_role("tab", name="Grid").click()
    expect(page.locator("#grid-go")).to_be_visible()


def axis(page: Page, number: int, kind: str, values: str) -> None:
    clicks.choose(page, f"axis-{number}-kind", kind)
    field = page.locator(f"#axis-{number}-text :is(textarea, input)").first
    expect(field).not_to_have_value("")  # what is suggested has come
    field.fill(values)


def done(page: Page) -> None:
    expect(page.locator("#grid-sheet")).to_be_visible(timeout=clicks.FIRST_LOAD)


@pytest.mark.full
def test_a_grid_is_found_by_a_reload_voted_on_and_gives_recipes_back(page, tmp_path):
    open_generate(page)
    page.locator("#drop-adapters input[type=file]").set_input_files(str(adapter(tmp_path / "one.safetensors", 1)))
    expect(page.locator("#about-0")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    clicks.fill(page, "gen-steps", "15")
    open_grid(page)
    axis(page, 0, "Strength", "0, 0.8")
    axis(page, 1, "Seed", "11-12")
    expect(page.locator("#grid-plan")).to_contain_text("4 images", timeout=clicks.FIRST_LOAD)
    page.locator("#grid-go").click()
    expect(page.locator("#grid .no-image").first).to_be_visible()

    page.reload()
    clicks.tab(page, "Generate")
    open_grid(page)
    expect(page.locator("#grid th").filter(has_text="seed 12")).to_be_visible()
    done(page)
    images = page.locator("#grid td img")
    expect(images).to_have_count(4)
    assert images.nth(3).get_attribute("alt") == "strength 0.8, seed 12"
    outputs = tmp_path / "workspace" / "outputs"
    folder = next((outputs / "grids").iterdir())
    assert (outputs / f"{folder.name}.png").is_file() and len(list(folder.glob("0*.png"))) == 4

    page.locator("#grid-vote").click()
    pair = page.locator("#grid .blind-pair img")
    expect(pair).to_have_count(2)
    expect(page.locator("#grid table")).to_have_count(0)  # nothing on the page tells which is which
    assert {image.get_attribute("alt") for image in pair.all()} == {"left", "right"}
    page.get_by_role("button", name="Left is better").click()
    expect(page.locator("#grid")).to_contain_text("1 vote on this grid")
    page.get_by_role("button", name="The same").click()
    expect(page.locator("#grid")).to_contain_text("2 votes on this grid")
    page.get_by_role("button", name="End and show results").click()
    expect(page.locator("#grid-score tbody tr")).to_have_count(2)
    assert (folder / "votes.json").is_file()

    clicks.fill(page, "prompt", "something else")
    clicks.fill(page, "seed", "1")
    page.locator("#grid td button").nth(3).click()
    expect(page.locator("#prompt textarea")).to_have_value(PROMPT)
    expect(page.locator("#seed input")).to_have_value("12")
    expect(page.locator("#strength-0 input[type=number]")).to_have_value("0.8")

    open_grid(page)
    axis(page, 1, "Steps", "3")
    page.locator("#drop-adapters input[type=file]").set_input_files(str(outputs / f"{folder.name}.png"))
    expect(page.locator("#axis-1-text :is(textarea, input)").first).to_have_value("11, 12")
    expect(page.locator("#axis-0-text :is(textarea, input)").first).to_have_value("0, 0.8")


@pytest.mark.full
def test_stop_keeps_what_is_drawn_and_mistakes_are_one_line(page, tmp_path):
    open_generate(page)
    clicks.fill(page, "gen-steps", "30")
    open_grid(page)
    axis(page, 0, "Seed", "one")
    expect(page.locator("#grid-plan")).to_contain_text("'one' is no number", timeout=clicks.FIRST_LOAD)
    page.locator("#grid-go").click()
    expect(page.get_by_test_id("toast-text")).to_contain_text("'one' is no number")
    axis_text = page.locator("#axis-0-text :is(textarea, input)").first
    axis_text.fill("1-40")
    expect(page.locator("#grid-plan")).to_contain_text("40 images")
    page.locator("#grid-go").click()
    expect(page.locator("#grid td img").first).to_be_visible(timeout=clicks.FIRST_LOAD)
    page.locator("#grid-stop").click()
    expect(page.locator("#grid-line")).to_contain_text("Stopped")
    done(page)
    assert 1 <= page.locator("#grid td img").count() < 40
    expect(page.locator("#grid-go")).to_be_enabled()
