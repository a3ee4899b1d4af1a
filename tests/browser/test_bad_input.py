"""Bad input is answered in one clear line, and what was typed stays."""

import io

import pytest
from PIL import Image
from playwright.sync_api import expect

from tests import tiers
from tests.browser import clicks


def png(colour: str) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (128, 128), colour).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("field", "text", "part"),
    [("training-learning_rate", "abc", "training.learning_rate"), tiers.in_full("adapter-rank", "0", "adapter.rank")],
)
def test_bad_setting_is_named_and_the_form_is_kept(kept_page, field, text, part):
    page = kept_page
    clicks.tab(page, "Train")
    clicks.choose(page, "train-dataset", "silhouette")
    clicks.fill(page, "run-name", "mine")
    clicks.fill(page, field, text)
    page.locator("#start").click()
    clicks.message(page, part)
    assert clicks.value(page, field) == text
    assert clicks.value(page, "run-name") == "mine"
    expect(page.locator("#start")).to_be_enabled()


def test_a_setting_is_searched_changed_marked_and_reset(kept_page):
    page = kept_page
    clicks.tab(page, "Train")
    search, gamma = page.locator("#settings-search input"), page.locator("#training-min_snr_gamma")
    search.fill("snr")
    expect(page.locator(".found")).to_have_text("3 settings match")
    expect(gamma).to_be_visible()
    expect(page.locator("#training-huber_c")).to_be_hidden()
    clicks.fill(page, "training-min_snr_gamma", "5")
    expect(gamma.get_by_role("button", name="Reset Min-SNR gamma to 0")).to_be_visible()
    search.press("Escape")
    expect(gamma).to_be_hidden()
    expect(page.locator(".changed")).to_contain_text("Min-SNR gamma")
    page.locator(".changed").get_by_role("button", name="Reset all").click()
    expect(page.locator(".changed")).to_have_text("As the preset has it")


@pytest.mark.full
def test_text_file_named_png_is_refused_and_nothing_is_lost(page, tmp_path):
    clicks.add_images(page, {"name": "notes.png", "mimeType": "image/png", "buffer": b"dear diary"}, "mine")
    expect(page.locator("#added .bad")).to_contain_text("notes.png")
    assert clicks.value(page, "dataset-name") == "mine"
    assert not (tmp_path / "workspace/datasets/mine").exists()


def test_good_images_beside_a_bad_one_are_kept(kept_page, home):
    page = kept_page
    clicks.tab(page, "Dataset")
    files = [
        {"name": "notes.png", "mimeType": "image/png", "buffer": b"dear diary"},
        {"name": "red.png", "mimeType": "image/png", "buffer": png("red")},
        {"name": "blue.png", "mimeType": "image/png", "buffer": png("blue")},
    ]
    clicks.add_images(page, files, "mine")
    expect(page.locator("#added")).to_contain_text("Skipped notes.png")
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(2)
    assert len(list((home / "workspace/datasets/mine").glob("*.png"))) == 2


def test_empty_adapter_file_is_refused_in_one_line(kept_page, home):
    page = kept_page
    clicks.tab(page, "Generate")
    clicks.fill(page, "prompt", "a red apple")
    page.locator("#drop-adapters input[type=file]").set_input_files(
        {"name": "empty.safetensors", "mimeType": "application/octet-stream", "buffer": b""}
    )
    clicks.message(page, "empty.safetensors")
    assert clicks.value(page, "prompt") == "a red apple"
    assert not list((home / "workspace/adapters").iterdir())


def test_endless_prompt_is_refused_and_kept(kept_page):
    page = kept_page
    clicks.tab(page, "Generate")
    clicks.fill(page, "prompt", "a" * 10_000)
    page.locator("#go").click()
    clicks.message(page, "4000")
    assert len(clicks.value(page, "prompt")) == 10_000
