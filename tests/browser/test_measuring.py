"""Measuring an adapter and going through earlier images, by clicking."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import clicks
from tests.browser.test_generate import adapter, open_generate


@pytest.mark.full
def test_an_adapter_is_measured_against_a_dataset_and_a_reload_finds_the_result(page, tmp_path):
    open_generate(page)
    clicks.tab(page, "Measure")
    page.locator("#measure").click()
    told = page.get_by_test_id("toast-text")
    expect(told.filter(has_text="add an adapter on the left")).to_be_visible(timeout=clicks.FIRST_LOAD)
    page.locator("#drop-adapters input[type=file]").set_input_files(str(adapter(tmp_path / "one.safetensors", 1)))
    expect(page.locator("#about-0")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#measure-adapter input")).to_have_value("one (file)")
    page.locator("#measure").click()
    expect(told.filter(has_text="one came as a file")).to_be_visible()
    clicks.choose(page, "measure-dataset", "silhouette")
    clicks.fill(page, "measure-seeds", "2")
    page.locator("#measure").click()
    board = page.locator("#measured")
    expect(board.locator(".sweep")).to_have_count(2, timeout=clicks.FIRST_LOAD)
    expect(board.locator("svg")).to_have_count(3)
    expect(board.locator(".nearest img")).to_have_count(14)
    expect(board).to_contain_text("compared with 24 images of silhouette")
    expect(board.locator(".suggested")).to_be_visible()
    expect(page.locator("#stop-measure")).to_be_hidden()

    page.reload()
    clicks.tab(page, "Generate")
    clicks.tab(page, "Measure")
    expect(board.locator(".sweep")).to_have_count(2)
    clicks.set_strength(page, 0, 0.1)
    board.locator(".sweep").first.locator("button").nth(6).click()  # its recipe goes into the form
    expect(page.locator("#strength-0 input[type=number]")).to_have_value("1.5")
    expect(page.locator("#image")).to_be_hidden()  # the tab of the image is open, and empty


@pytest.mark.full
def test_earlier_images_are_searched_opened_taken_up_deleted_and_put_back(page, tmp_path):
    from studio.generation import Recipe, save_image

    outputs = tmp_path / "workspace" / "outputs"
    for number, thing in enumerate(["apple", "bear", "rocket"]):
        recipe = Recipe(prompt=f"{thing}, on a blue background", seed=100 + number, steps=7)
        save_image(Image.new("RGB", (64, 64), (80 * number, 90, 90)), recipe, outputs)
    (outputs / "torn.png").write_bytes(b"torn")
    open_generate(page)
    clicks.tab(page, "Gallery")
    cells = page.locator("#history .cell")
    expect(cells).to_have_count(4)
    clicks.fill(page, "history-search", "101")
    expect(cells).to_have_count(1)
    cells.locator("button").click()
    large = page.locator("#history-large")
    expect(large).to_contain_text("bear, on a blue background")
    assert large.locator("img").evaluate("image => image.complete && image.naturalWidth") == 64
    with page.expect_download() as download:
        large.get_by_role("link", name="Download").click()
    assert download.value.path().read_bytes() == next(outputs.glob("bear*.png")).read_bytes()

    clicks.fill(page, "history-search", "background")
    expect(cells).to_have_count(3)
    large.get_by_role("button", name="Delete").click()
    expect(cells).to_have_count(2)
    expect(large).to_contain_text("apple")  # the next one
    assert not list(outputs.glob("bear*.png"))
    page.locator("#history-undo").click()
    expect(cells).to_have_count(3)
    expect(large).to_contain_text("bear")
    expect(page.locator("#history-undo")).to_be_hidden()

    large.get_by_role("button", name="Use this recipe").click()
    expect(page.locator("#prompt textarea")).to_have_value("bear, on a blue background")
    expect(page.locator("#seed input")).to_have_value("101")
    expect(page.locator("#gen-steps input")).to_have_value("7")
