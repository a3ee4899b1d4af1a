"""What was deleted on the page, and how it goes for good: asked once more, told in bytes, not offered afterwards."""

import pytest
from PIL import Image
from playwright.sync_api import expect

from studio.generation import Recipe, save_image
from studio.workspace import Workspace
from tests.browser import clicks
from tests.browser.test_generate import adapter


@pytest.mark.full
def test_the_bin_is_emptied_after_a_question_and_nothing_in_it_is_offered_any_more(page, tmp_path):
    workspace = Workspace.open(tmp_path / "workspace")
    adapter(workspace.adapters / "one.safetensors", 1)
    for prompt in ("a cat", "a dog"):
        save_image(Image.new("RGB", (64, 64), "teal"), Recipe(prompt=prompt), workspace.outputs)
    page.set_default_timeout(clicks.FIRST_LOAD)
    empty, freed = page.locator("#empty-trash"), page.locator("#cleared")
    back, put_back = page.locator("#history-undo"), page.locator("#library-removed").get_by_text("Restore it")

    clicks.tab(page, "About")
    expect(page.locator("#sizes")).to_contain_text("0 bytes", timeout=clicks.FIRST_LOAD)
    expect(empty).to_be_disabled()
    clicks.tab(page, "Generate")
    part = page.locator("#generate-tabs")
    part.get_by_role("tab", name="Adapters").click()
    card = page.locator('#library .adapter-card[data-name="one"]')
    card.hover()
    card.get_by_label("Remove one from the library").click()
    expect(put_back).to_be_visible()
    part.get_by_role("tab", name="Gallery").click()
    page.locator("#history button[data-act=open]").first.click()
    page.locator("#history-large button[data-act=delete]").click()
    expect(back).to_be_visible()

    clicks.tab(page, "About")
    empty.click()
    expect(page.locator("#sure")).to_contain_text("Delete 1 image and 1 adapter for good?")
    page.locator("#keep-them").click()
    expect(page.locator("#really")).to_be_hidden()
    assert len(list(workspace.outputs.glob(".removed/*"))) == len(list(workspace.adapters.glob(".removed/*"))) == 1
    empty.click()
    page.locator("#really").click()
    expect(freed).to_contain_text("freed")
    expect(page.locator("#really")).to_be_hidden()
    expect(empty).to_be_disabled()
    assert not list(workspace.root.glob("**/.removed/*")) and len(list(workspace.outputs.glob("*.png"))) == 1

    clicks.tab(page, "Generate")
    expect(page.locator("#history .cell")).to_have_count(1)
    expect(back).to_be_hidden()
    part.get_by_role("tab", name="Adapters").click()
    expect(put_back).to_have_count(0)
