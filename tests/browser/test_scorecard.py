"""The verdict on the page: the sentence, the checkpoint that it picks, and the setting that its remedy means."""

from PIL import Image
from playwright.sync_api import expect

from studio.training import config_from, config_to_toml
from studio.training.events import Finished, Judged, Scored, Started, Validation
from studio.training.runs import append
from tests.browser.conftest import open_studio


def test_the_page_shows_the_verdict_and_leads_to_the_remedy(context, studio, tmp_path):
    folder = tmp_path / "workspace" / "runs" / "scored"
    (folder / "scorecard").mkdir(parents=True)
    Image.new("RGB", (64, 64), "red").save(folder / "scorecard" / "000060.png")
    config = config_from({"name": "scored", "data.folder": "/images"})
    (folder / "run.toml").write_text(config_to_toml(config), encoding="utf-8")
    for event in (
        Started(0, 80, 1, 0.0, "1"),
        Validation(60, 0.3, 0.5, verdict="learning"),
        Scored(60, {"likeness": [0.41, 0.1, 5.0]}, [0.8, 1.0], [0.6, 0.7], sheet="scorecard/000060.png"),
        Judged(80, "unfinished", 60, 0.8, "Take step 60 at strength 0.8: learned.", "More.", "training.steps"),
        Finished(80, 60, "Finished."),
    ):
        append(folder, event)
    page = open_studio(context, studio)
    page.get_by_role("tab", name="Train", exact=True).click()
    expect(page.locator("#verdict .sentence")).to_have_text("Take step 60 at strength 0.8: learned.")
    page.locator("#verdict summary").click()
    expect(page.locator("#verdict table")).to_contain_text("+41 % ± 10")
    page.wait_for_function("document.querySelector('#verdict .sheets img').naturalWidth > 0")
    page.locator("#verdict button[data-go]").click()
    expect(page.locator("#training-steps input").first).to_be_focused()
