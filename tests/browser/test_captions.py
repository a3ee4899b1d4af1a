"""Captions by hand, on one page: found, shown, edited. Each test goes on where the one before ended."""

import re

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser import clicks
from tests.browser.test_dataset import captions, sub_tab


def test_the_first_page_offers_a_sample_own_images_and_generating(kept_page):
    page = kept_page
    cards = page.locator("#start-cards")
    expect(cards.locator("img").first).to_be_visible()
    expect(cards.locator("img:not([alt]), img[alt='']")).to_have_count(0)
    expect(cards.locator("#drop-images")).to_be_visible()
    for later in ("caption-all", "find", "export", "dataset-tabs", "to-train"):  # of a dataset that is open
        expect(page.locator(f"#{later}")).to_be_hidden()
    steps = page.locator("#steps")
    expect(steps.locator("[data-step=dataset]")).to_have_attribute("aria-current", "step")
    expect(steps).to_contain_text("choose images")
    cards.get_by_text("silhouette").click()
    expect(steps).to_contain_text("silhouette: 24 images, all with captions")
    expect(steps.locator(".next")).to_have_attribute("data-step", "train")
    expect(steps.locator("[data-step=dataset].done")).to_have_attribute("aria-current", "step")
    expect(page.locator("#images button.thumbnail-lg").first).to_be_visible()
    expect(cards).to_be_hidden()
    expect(page.locator("#caption-all")).to_be_visible()


def test_filter_chips_and_keys_edit_one_caption_after_the_other(kept_page, home):
    page = kept_page
    clicks.open_sample(page, "silhouette")
    folder = home / "workspace/datasets/silhouette"
    clicks.fill(page, "find", "on a red")
    expect(page.locator("#dataset-summary")).to_contain_text("3 found")
    images = page.locator("#images button.thumbnail-lg")
    expect(images).to_have_count(3)
    images.first.click()
    chips = page.locator("#chips .chip")
    expect(chips).to_have_count(2)
    first = clicks.value(page, "caption")
    page.locator("#chips input").fill("small")
    page.locator("#chips input").press("Enter")
    expect(chips).to_have_count(3)
    expect(page.locator("#caption textarea")).to_have_value(f"{first}, small")
    chips.nth(2).drag_to(chips.nth(0))
    expect(page.locator("#caption textarea")).to_have_value(f"small, {first}")
    page.get_by_role("button", name="Remove small").click()
    expect(page.locator("#caption textarea")).to_have_value(first)
    expect(page.locator("#tokens")).to_contain_text("of 75 tokens")

    page.locator("#caption textarea").press("End")
    page.keyboard.type(", crisp")
    page.keyboard.press("PageDown")
    expect(page.locator("#caption label")).to_contain_text("(2 of 3)")
    expect(images.nth(1)).to_have_class(re.compile("selected"))  # the grid marks the one that is open
    assert f"{first}, crisp" in captions(folder).values()
    page.locator("#large img").click(position={"x": 5, "y": 5})
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#caption textarea")).to_have_value(f"{first}, crisp")
    clicks.fill(page, "find", "")
    expect(page.locator("#dataset-summary")).not_to_contain_text("found")
    expect(images).to_have_count(24)


def test_caption_edited_by_hand_is_kept(kept_page, home):
    page = kept_page
    clicks.open_sample(page, "silhouette")
    folder = home / "workspace/datasets/silhouette"
    page.locator("#images button.thumbnail-lg").nth(1).click()
    expect(page.locator("#caption label")).to_contain_text("(2 of 24)")
    clicks.fill(page, "caption", "a fox\nthat sleeps")
    page.locator("#images button.thumbnail-lg").nth(3).click()  # leaving the field saves it
    expect(page.locator("#images")).to_contain_text("a fox that sleeps")
    assert [path.read_text(encoding="utf-8").strip() for path in folder.glob("*.txt")].count("a fox that sleeps") == 1
    expect(page.locator("#caption label")).to_contain_text("(4 of 24)")
    clicks.fill(page, "caption", "a bear")
    page.locator("#next").click()
    expect(page.locator("#images")).to_contain_text("a bear")
    page.locator("#previous").click()
    expect(page.locator("#caption textarea")).to_have_value("a bear")


def test_captions_written_while_an_image_is_open_are_not_undone_by_looking_on(kept_page, home):
    page = kept_page
    clicks.open_sample(page, "silhouette")
    folder = home / "workspace/datasets/silhouette"
    page.locator("#images button.thumbnail-lg").nth(0).click()
    expect(page.locator("#caption label")).to_contain_text("(1 of 24)")
    clicks.fill(page, "trigger", "inkling")
    clicks.caption_everything(page)
    page.locator("#next").click()
    expect(page.locator("#caption textarea")).to_have_value(re.compile("^inkling, "))
    captions = [path.read_text(encoding="utf-8") for path in folder.glob("*.txt")]
    assert len(captions) == 24 and all(caption.startswith("inkling, ") for caption in captions)


def test_names_and_captions_are_shown_as_they_are_and_never_as_html(kept_page, home):
    page = kept_page
    folder = home / "workspace/datasets/odd"
    folder.mkdir(parents=True)
    name = 'a\' "quoted" <img src=x onerror=alert(1)> 猫.png'
    Image.new("RGB", (16, 16), "red").save(folder / name)
    (folder / name).with_suffix(".txt").write_text("<script>alert(1)</script>, <b>bold</b>", encoding="utf-8")
    page.on("dialog", lambda dialog: pytest.fail("a caption or a name was run as HTML"))
    clicks.choose(page, "dataset", "odd")
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(1)  # and no more those of the one before
    page.locator("#images button.thumbnail-lg").first.click()
    expect(page.locator("#chips .chip").first).to_contain_text("<script>alert(1)</script>")
    sub_tab(page, "Check")
    page.locator("#check-dataset").click()
    expect(page.locator(".finding").first).to_contain_text("<img src=x onerror=alert(1)>")
    sub_tab(page, "Bulk edit")
    clicks.fill(page, "bulk-first", "<i>new</i>")
    page.locator("#propose").click()
    expect(page.locator("#proposals ins")).to_contain_text("<i>new</i>")
    page.get_by_role("button", name="Apply to selected").click()
    sub_tab(page, "History")
    expect(page.locator("#past")).to_contain_text("Add a tag")
