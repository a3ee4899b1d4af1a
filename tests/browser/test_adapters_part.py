"""The Adapters part by clicking: the library, an inspection, another rank with its image, the adapters as one file."""

import pytest
import torch
from playwright.sync_api import expect

from studio.adapters import Update, read_adapter, write_adapter
from tests.browser import clicks
from tests.browser.test_generate import adapter, open_generate


@pytest.fixture
def library(tmp_path):
    """The workspace's folder of dropped adapters, with one that fits the starter and one for SDXL."""
    folder = tmp_path / "workspace/adapters"
    folder.mkdir(parents=True, exist_ok=True)
    adapter(folder / "one.safetensors", 1)
    other = {
        ("unet", "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k"): Update(
            "lora", {"A": torch.ones(4, 2048), "B": torch.ones(640, 4)}, 4.0
        )
    }
    write_adapter(folder / "foreign.safetensors", other, "kohya")
    return folder


def open_library(page):
    page.set_default_timeout(clicks.FIRST_LOAD)
    open_generate(page)
    page.locator("#generate-tabs").get_by_role("tab", name="Adapters").click()
    expect(card(page, "one")).to_be_visible(timeout=clicks.FIRST_LOAD)


def card(page, name):
    return page.locator(f'#library .adapter-card[data-name="{name}"]')


@pytest.mark.full
def test_a_look_inside_shows_where_it_acts_and_a_file_for_another_base_is_told_in_one_line(library, page):
    open_library(page)
    expect(card(page, "one")).to_contain_text("rank 4")
    expect(card(page, "foreign")).to_contain_text("SDXL")
    card(page, "one").get_by_text("Inspect").click()
    cells = page.locator("#inspector .heat td.on")
    expect(cells.first).to_be_visible(timeout=clicks.FIRST_LOAD)
    assert "of their weights" in cells.first.get_attribute("title")
    expect(page.locator("#load-report")).to_contain_text("layers are applied")
    expect(page.locator("#inspector .energy path.line0")).to_have_count(1)

    page.reload()  # what was looked at stands there again
    expect(page.get_by_role("tab", name="Dataset")).to_be_visible(timeout=150_000)
    clicks.tab(page, "Generate")
    page.locator("#generate-tabs").get_by_role("tab", name="Adapters").click()
    expect(page.locator("#inspector .heat td.on").first).to_be_visible(timeout=clicks.FIRST_LOAD)

    card(page, "foreign").get_by_text("Inspect").click()
    line = page.locator("#load-report.bad")
    expect(line).to_contain_text("Made for SDXL: none of its 1 layers fits", timeout=clicks.FIRST_LOAD)
    assert "\n" not in line.inner_text().strip()
    expect(page.locator("#inspector .heat")).to_have_count(0)
    expect(page.locator("#inspector-tools")).to_be_hidden()

    page.locator("#library-search input").fill("one")
    expect(card(page, "foreign")).to_have_count(0)
    card(page, "one").hover()
    card(page, "one").get_by_label("Remove one from the library").click()
    expect(card(page, "one")).to_have_count(0)
    page.locator("#library-removed").get_by_text("Restore it").click()
    expect(card(page, "one")).to_be_visible()


@pytest.mark.full
def test_resized_and_exported_files_come_with_their_image_and_go_back_on_the_rows(library, page):
    open_library(page)
    card(page, "one").get_by_text("Inspect").click()
    expect(page.locator("#convert")).to_be_visible(timeout=clicks.FIRST_LOAD)
    clicks.fill(page, "resize-rank", "1")
    page.locator("#resize").click()
    made = page.locator("#made")
    expect(made.locator("#made-difference")).to_contain_text("of 255", timeout=clicks.FIRST_LOAD)
    expect(made).to_contain_text("Rank 4 → 1")
    expect(made.locator("img")).to_have_count(2)
    assert made.locator("img").last.evaluate("image => image.complete && image.naturalWidth") == 128
    made.get_by_text("Add to the image").click()
    expect(page.locator("#strength-0")).to_contain_text("one-rank1", timeout=clicks.FIRST_LOAD)

    card(page, "one").get_by_text("Add", exact=True).click()
    expect(page.locator("#strength-1")).to_contain_text("one", timeout=clicks.FIRST_LOAD)
    clicks.set_strength(page, 1, 0.5)
    clicks.fill(page, "merge-name", "both")
    page.locator("#merge").click()
    expect(made).to_contain_text("both.safetensors", timeout=clicks.FIRST_LOAD)
    difference = made.locator("#made-difference")
    expect(difference).to_contain_text("differ by 0.0", timeout=clicks.FIRST_LOAD)
    with page.expect_download() as coming:
        made.get_by_text("Download").click()
    file = read_adapter(library / "both.safetensors")
    assert coming.value.path().read_bytes() == (library / "both.safetensors").read_bytes()
    assert file.metadata["modelspec.merged_from"] == "one-rank1:1, one:0.5"
    expect(card(page, "both").locator("img")).to_be_visible()  # the image inside the file
