"""Many runs on the page: one waits for the other, both are compared, scrubbed through, deleted and taken back."""

import json

import pytest
from playwright.sync_api import expect

from studio.services.jobs import jobs
from tests.browser import clicks
from tests.browser.conftest import open_studio
from tests.browser.test_training import settings


def events(workspace, run: str, kind: str) -> list[dict]:
    lines = (workspace / "runs" / run / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.slow  # two runs, and most of a minute in the page
def test_a_queued_run_begins_after_the_first_and_both_are_compared_deleted_and_taken_back(page, tmp_path):
    workspace = tmp_path / "workspace"
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    settings(page, "previews-settings", "preview-prompts", "red apple\nfish")
    settings(page, "previews-settings", "preview-every", "2")
    settings(page, "previews-settings", "preview-steps", "2")
    settings(page, "validation-settings", "validation-every", "2")
    clicks.fill(page, "run-name", "first")
    clicks.fill(page, "training-steps", "4")
    with jobs.device():  # as while an image is drawn: the first run goes no further meanwhile
        page.locator("#start").click()
        expect(page.locator("#enqueue")).to_be_visible(timeout=clicks.FIRST_LOAD)
        expect(page.locator("#start")).to_have_count(0)  # Pause and Stop stand there meanwhile
        clicks.fill(page, "run-name", "second")
        clicks.fill(page, "adapter-rank", "3")
        page.locator("#enqueue").click()
        expect(page.locator("#queue")).to_contain_text("1 run queued")
        expect(page.locator("#queue")).to_contain_text("second")
    expect(page.locator("#status")).to_contain_text("second", timeout=clicks.FIRST_LOAD)  # the page follows it
    clicks.run_state(page, "finished")
    expect(page.locator("#queue")).to_be_hidden()
    first, second = (workspace / "runs" / name / "events.jsonl" for name in ("first", "second"))
    assert events(workspace, "first", "Finished") and events(workspace, "second", "Finished")
    assert first.stat().st_mtime_ns < (second.parent / "previews" / "000000-0.png").stat().st_mtime_ns

    page.get_by_role("tab", name="All runs").click()
    expect(page.locator("#runs .run")).to_have_count(2)
    for run in ("first", "second"):
        page.locator(f"#runs input[data-tick={run}]").check()
    expect(page.locator("#runs-chart path.held")).to_have_count(2)
    expect(page.locator("#runs-chart .legend")).to_contain_text("second")
    expect(page.locator("#runs-settings")).to_contain_text("Rank")
    expect(page.locator("#runs-settings")).not_to_contain_text("Batch")
    scrub(page)
    delete_and_undo(page, workspace)
    filtered(page)


def scrub(page) -> None:
    """The slider shows another image of every prompt, without one more request."""
    frames = page.locator("#runs-timeline .frames")
    expect(frames).to_have_count(4)  # two prompts of two runs
    expect(page.locator("#runs-timeline img")).to_have_count(12)  # at steps 0, 2 and 4
    expect(page.locator("#runs-timeline .slider-value")).to_have_text("4")
    slider = page.locator("#runs-timeline input[type=range]")
    slider.focus()
    slider.press("Home")
    page.wait_for_function("[...document.querySelectorAll('#runs-timeline img')].every(one => one.complete)")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if "/file=" in request.url else None)
    for step in (0, 2, 4):
        expect(page.locator("#runs-timeline .slider-value")).to_have_text(str(step))
        shown = page.locator("#runs-timeline img:visible")
        expect(shown).to_have_count(4)
        assert {one.get_attribute("data-step") for one in shown.all()} == {str(step)}
        slider.press("ArrowRight")
    assert not asked


def delete_and_undo(page, workspace) -> None:
    page.locator("#runs input[data-tick=first]").uncheck()
    page.get_by_role("button", name="Delete 1").click()
    expect(page.locator("#runs .run")).to_have_count(1)
    assert not (workspace / "runs" / "second").exists()
    expect(page.locator("#runs-trash")).to_contain_text("1 run in the trash")
    page.get_by_role("button", name="Undo: restore second").click()
    expect(page.locator("#runs .run")).to_have_count(2)
    assert (workspace / "runs" / "second" / "adapter.safetensors").is_file()
    page.locator("#runs input[data-tick=second]").check()
    page.get_by_role("button", name="Delete 1").click()
    page.get_by_role("button", name="Empty trash").click()
    page.get_by_role("button", name="Keep them").click()
    page.get_by_role("button", name="Empty trash").click()
    page.locator("#runs-trash button[data-act=really]").click()
    expect(page.locator("#runs-trash .trash")).to_have_count(0)
    assert not list((workspace / ".bin").iterdir()) and not (workspace / "runs" / "second").exists()


def filtered(page) -> None:
    clicks.fill(page, "runs-text", "nothing like it")
    expect(page.locator("#runs")).to_contain_text("No run found")
    clicks.fill(page, "runs-text", "silhouette FIRST")
    expect(page.locator("#runs .run")).to_have_count(1)
    page.locator("#runs button[data-act=open]").click()
    expect(page.locator("#status")).to_contain_text("first")
    expect(page.locator("#status")).to_contain_text("4 of 4")


@pytest.mark.full
def test_after_a_restart_the_queue_is_offered_and_a_note_and_the_files_of_a_run_are_found(context, studio, tmp_path):
    from studio.training import config_from, config_to_toml
    from studio.workspace import ASSETS

    workspace = tmp_path / "workspace"
    data = str(ASSETS / "datasets" / "silhouette")
    for number, name in enumerate(("early", "late")):
        (workspace / "runs" / name).mkdir(parents=True)
        values = {"name": name, "data.folder": data, "training.steps": 2, "preview.every": 0, "training.seed": number}
        (workspace / "runs" / name / "run.toml").write_text(config_to_toml(config_from(values)), encoding="utf-8")
    (workspace / "queue.json").write_text(json.dumps({"runs": ["early", "late"]}))
    page = open_studio(context, studio)
    clicks.tab(page, "Train")
    expect(page.locator("#queue")).to_contain_text("2 runs queued, queue paused")
    clicks.run_state(page, "queued")
    page.get_by_role("button", name="Move late forward").click()
    expect(page.locator("#queue li").first).to_contain_text("late")
    page.get_by_role("button", name="Remove early from the queue").click()
    expect(page.locator("#queue")).to_contain_text("1 run queued, queue paused")
    page.wait_for_timeout(1500)
    assert not (workspace / "runs" / "late" / "events.jsonl").exists(), "it was not begun without being told"
    page.locator("#queue button[data-act=go]").click()
    clicks.run_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("late")

    page.locator("#note-and-files > button").click()
    clicks.fill(page, "run-note", "The ears <b>are</b> good.")
    page.locator("#run-note textarea").blur()
    expect(page.locator("#run-folder textarea, #run-folder input")).to_have_value(str(workspace / "runs" / "late"))
    with page.expect_download() as download:
        page.locator("#run-toml").click()
    assert "training" in download.value.path().read_text() and download.value.suggested_filename == "late.toml"
    page.get_by_role("tab", name="All runs").click()
    expect(page.locator("#runs .run")).to_contain_text("The ears <b>are</b> good.")
    assert (workspace / "runs" / "late" / "note.txt").read_text() == "The ears <b>are</b> good."
    page.get_by_role("tab", name="This run").click()
    page.locator("#publish > button").click()
    page.locator("#prepare").click()
    expect(page.locator("#published")).to_contain_text("late.safetensors", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#published")).to_contain_text("Nothing was sent")
    clicks.fill(page, "publish-token", "hf_secretsecretsecret")
    page.locator("#send").click()
    clicks.message(page, "owner/name")
    page.locator("#delete-run").click()
    expect(page.locator("#status")).to_contain_text("No run yet")
