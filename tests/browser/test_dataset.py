"""From a zip as people have them to a set worth training on, by clicking; and two tabs on one set."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from studio.workspace import ASSETS
from tests import tiers
from tests.browser import clicks
from tests.browser.conftest import open_studio

SAMPLE = ASSETS / "datasets" / "silhouette"


@pytest.fixture(scope="module")
def mixed_zip(tmp_path_factory) -> Path:
    """12 files: eight good images, one broken, one double of the first, one turned by EXIF, one of 16 bits."""
    path = tmp_path_factory.mktemp("zip") / "phone.zip"
    images = sorted(SAMPLE.glob("*.png"))[:10]
    with zipfile.ZipFile(path, "w") as archive:
        for image in images[:8]:
            archive.writestr(image.name, image.read_bytes())
        archive.writestr("broken.png", b"\x89PNG\r\n\x1a\n" + b"no image at all" * 20)
        archive.writestr("again.png", images[0].read_bytes())
        turned, stream = Image.open(images[8]).convert("RGB"), io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.resize((192, 128)).save(stream, "JPEG", exif=exif, quality=95)
        archive.writestr("turned.jpg", stream.getvalue())
        grey = np.asarray(Image.open(images[9]).convert("L"), np.uint16) * 257
        stream = io.BytesIO()
        Image.fromarray(grey).save(stream, "PNG")
        archive.writestr("deep.png", stream.getvalue())
    return path


def captions(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text(encoding="utf-8").strip() for path in folder.glob("*.txt")}


def sub_tab(page: Page, name: str) -> None:
    page.locator("#dataset-tabs").get_by_role("tab", name=name, exact=True).click()


@pytest.mark.parametrize("trained", tiers.default([False, True]))
def test_from_a_mixed_zip_to_a_training_run(kept_page, mixed_zip, home, trained):
    page, folder = kept_page, home / "workspace/datasets/phone"
    clicks.add_images(page, mixed_zip, "phone")
    expect(page.locator("#added")).to_contain_text("phone has 11 images now")
    expect(page.locator("#added")).to_contain_text("Skipped broken.png")
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(11)
    with Image.open(folder / "turned.jpg") as turned:
        assert turned.getexif()[0x0112] == 6, "the file is the person's, byte for byte; turning is for whoever looks"

    sub_tab(page, "Check")
    page.locator("#check-dataset").click()
    doubles = page.locator('.finding[data-kind="near-duplicates"]')
    expect(doubles.locator(".cell")).to_have_count(2, timeout=150_000)
    kinds = page.locator(".finding").evaluate_all("all => all.map(one => one.dataset.kind)")
    assert sorted(kinds) == ["missing captions", "near-duplicates"], kinds
    doubles.get_by_role("button", name="Keep the largest of each").click()
    expect(doubles).to_have_count(0)
    sub_tab(page, "Images")
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(10)

    clicks.caption_everything(page)
    written = captions(folder)
    assert len(written) == 10 and all(written.values())
    sub_tab(page, "Bulk edit")
    clicks.fill(page, "bulk-first", "ink drawing")
    page.locator("#propose").click()
    expect(page.locator("#proposals .diff > li")).to_have_count(10)
    expect(page.locator("#proposals ins").first).to_contain_text("ink drawing")
    page.locator("#proposals input[data-tick]").first.uncheck()
    page.get_by_role("button", name="Apply to selected").click()
    expect(page.locator("#proposals")).to_contain_text("9 captions changed")
    assert sum("ink drawing" in caption for caption in captions(folder).values()) == 9
    expect(page.locator("#undo")).to_contain_text("Add a tag")
    page.locator("#undo").click()
    expect(page.locator("#undo")).to_contain_text("Caption with starter")
    assert captions(folder) == written

    page.reload()  # the set is still open
    expect(page.locator("#images button.thumbnail-lg")).to_have_count(10)
    expect(page.locator("#undo")).to_contain_text("Caption with starter")
    page.locator("#redo").click()
    expect(page.locator("#redo")).to_be_hidden()  # nothing more to make again
    assert sum("ink drawing" in caption for caption in captions(folder).values()) == 9
    sub_tab(page, "History")
    expect(page.locator("#past")).to_contain_text("1 removed")
    page.locator("#to-train").click()
    expect(page.locator("#train-dataset input")).to_have_value("phone")
    if trained:
        clicks.tab(page, "Dataset")
        clicks.start_run(page, "phone", steps=4)
        clicks.run_state(page, "finished")


def test_a_mask_is_painted_and_seen_where_it_is_trained(kept_page, home):
    """Painted on the image, kept beside it, shown among the masks, dark in what the trainer sees, and undone."""
    page, folder = kept_page, home / "workspace/datasets/silhouette"
    clicks.tab(page, "Dataset")
    clicks.open_sample(page, "silhouette")
    sub_tab(page, "Images")
    page.locator("#images button.thumbnail-lg").first.click()
    page.locator("#mask-part button").first.click()
    canvas = page.locator("#mask-paint canvas")
    expect(canvas).to_be_visible()
    page.wait_for_function("document.querySelector('#mask-paint canvas').width === 128")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.5, steps=8)
    page.mouse.up()
    expect(page.locator("#mask-seen img")).to_be_visible()
    expect(page.locator("#undo")).to_contain_text("Paint mask of")
    (mask,) = folder.glob("*-masklabel.png")
    with Image.open(mask) as opened:
        grey = np.asarray(opened)
    assert grey.shape == (128, 128) and grey[64, 64] == 255 and grey[10, 64] == 0
    sub_tab(page, "Masks")
    expect(page.locator("#masks-summary")).to_contain_text("1 of ")
    expect(page.locator("#masked button.thumbnail-lg")).to_have_count(1)
    page.locator("#undo").click()
    expect(page.locator("#masks-summary")).to_contain_text("0 of ")
    assert not list(folder.glob("*-masklabel.png"))


@pytest.mark.full
def test_two_tabs_on_one_caption_the_later_edit_wins_and_the_earlier_is_in_the_history(context, studio, page, tmp_path):
    other = open_studio(context, studio)
    folder = tmp_path / "workspace/datasets/silhouette"
    for tab in (page, other):
        clicks.open_sample(tab, "silhouette")
        tab.locator("#images button.thumbnail-lg").first.click()
        expect(tab.locator("#chips .chip").first).to_be_visible()
    name = sorted(folder.glob("*.png"))[0].stem
    clicks.fill(page, "caption", "the first of two")
    page.locator("#caption textarea").blur()
    expect(page.locator("#saved")).to_contain_text("Saved")
    expect(other.locator("#images")).to_contain_text("the first of two")  # the other page hears of it
    clicks.fill(other, "caption", "the second of two")
    other.locator("#caption textarea").blur()
    expect(page.locator("#caption textarea")).to_have_value("the second of two")
    assert captions(folder)[name] == "the second of two"
    page.locator("#undo").click()
    expect(page.locator("#caption textarea")).to_have_value("the first of two")


@pytest.mark.full
def test_two_captioners_are_tried_side_by_side_and_one_is_taken(page):
    clicks.open_sample(page, "silhouette")
    sub_tab(page, "Compare captioners")
    for name in ("Built-in tagger", "BLIP-2"):
        clicks.choose(page, "compare-which", name)
    page.locator("#compare").click()
    table = page.locator("#compared table")
    expect(table.locator("tbody tr")).to_have_count(4, timeout=clicks.FIRST_LOAD)
    expect(table).to_contain_text("background")
    expect(table).to_contain_text("is not on this machine: allow the download")  # offline, and said once
    page.get_by_role("button", name="Use this captioner").click()
    expect(page.locator("#captioner input")).to_have_value("Built-in tagger")


@pytest.mark.full
def test_export_gives_a_zip_of_the_very_images_and_captions(page):
    clicks.open_sample(page, "silhouette")
    page.locator("#export button").first.click()
    page.locator("#export-go").click()
    expect(page.locator("#exported")).to_contain_text("24 images written")
    with page.expect_download() as download:
        page.locator("#export-file a[download]").first.click()
    with zipfile.ZipFile(download.value.path()) as archive:
        files = [path for path in SAMPLE.iterdir() if path.suffix in (".png", ".txt")]
        assert sorted(archive.namelist()) == sorted(path.name for path in files) and len(files) == 48
        assert all(archive.read(path.name).strip() == path.read_bytes().strip() for path in files)
