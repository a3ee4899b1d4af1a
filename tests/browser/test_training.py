"""A run from the page: checked first, paused, stopped, taken up again, given more steps, copied."""

import json

import psutil
import pytest
from playwright.sync_api import expect

from tests.browser import clicks
from tests.browser.conftest import open_studio


def settings(page, group: str, name: str, value: str) -> None:
    """Type into a field of the folded settings."""
    for folded, inside in (("expert", f"#{group} > button"), (group, f"#{name}")):
        if not page.locator(inside).is_visible():
            page.locator(f"#{folded} > button").click()
    clicks.fill(page, name, value)


# While a run goes on, the docked bar says its step; when it is over, the run's own numbers.
STEP_JS = """() => Number(document.querySelector('#jobs-bar .going.train')?.dataset.step
  ?? parseInt(document.querySelector('#status .facts b')?.innerText.replaceAll(',', '')))"""


def step_of(page) -> int:
    return page.evaluate(STEP_JS)


def wait_for_a_step_after(page, step: int) -> None:
    """Wait until the page shows that the run is beyond `step`: before that, its base model may still be loading."""
    page.wait_for_function(f"step => ({STEP_JS})() > step", arg=step, timeout=clicks.FIRST_LOAD)


@pytest.mark.full
def test_check_says_what_hurts_and_how_long_it_takes(page):
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    settings(page, "previews-settings", "preview-every", "0")
    page.locator("#check").click()
    expect(page.locator("#report")).to_contain_text("a step", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#report")).to_contain_text("GB")
    expect(page.locator("#start")).to_be_enabled()
    clicks.fill(page, "training-learning_rate", "0.5")
    page.locator("#check").click()
    expect(page.locator("#report")).to_contain_text("very high", timeout=clicks.FIRST_LOAD)


@pytest.mark.full
def test_pause_frees_the_device_and_stop_and_resume_lose_nothing(page, tmp_path):
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    settings(page, "previews-settings", "preview-every", "0")
    settings(page, "validation-settings", "validation-every", "0")
    begin(page, "held", 3000)
    wait_for_a_step_after(page, 0)
    page.locator("#pause").click()
    clicks.run_state(page, "paused")
    expect(page.locator("#pause")).to_have_text("Resume")
    paused_at = step_of(page)
    assert list((tmp_path / "workspace/runs/held/checkpoints").glob("0*")), "a pause writes a checkpoint"
    page.wait_for_timeout(1500)
    assert step_of(page) == paused_at
    page.locator("#pause").click()
    clicks.run_state(page, "running")
    page.locator("#stop").click()
    clicks.run_state(page, "stopped")
    stopped_at = step_of(page)
    page.locator("#resume").click()
    clicks.run_state(page, "running")
    wait_for_a_step_after(page, stopped_at)
    page.locator("#stop").click()
    clicks.run_state(page, "stopped")
    assert step_of(page) > stopped_at
    steps = [json.loads(line) for line in (tmp_path / "workspace/runs/held/events.jsonl").read_text().splitlines()]
    numbers = [event["step"] for event in steps if event["event"] == "Step"]
    assert numbers == list(range(1, numbers[-1] + 1)), "no step twice, none left out"


def begin(page, name: str, steps: int) -> None:
    clicks.fill(page, "run-name", name)
    clicks.fill(page, "training-steps", str(steps))
    page.locator("#start").click()


@pytest.mark.full
def test_a_run_whose_process_died_is_resumed_by_one_click_then_extended_and_copied(context, studio, tmp_path):
    """As after a crash: the folder says running, and the process it names is gone."""
    from studio.training import config_from, config_to_toml
    from studio.workspace import ASSETS

    folder = tmp_path / "workspace/runs/crashed"
    folder.mkdir(parents=True)
    data = str(ASSETS / "datasets" / "silhouette")
    config = {"name": "crashed", "data.folder": data, "training.steps": 4, "adapter.rank": 3, "preview.every": 0}
    (folder / "run.toml").write_text(config_to_toml(config_from(config)), encoding="utf-8")
    gone = next(number for number in range(4_000_000, 5_000_000) if not psutil.pid_exists(number))
    started = {"event": "Started", "step": 0, "steps": 4, "process": gone, "process_started": 1.0, "parameters": "1"}
    (folder / "events.jsonl").write_text(json.dumps(started) + "\n")
    page = open_studio(context, studio)
    clicks.tab(page, "Train")
    clicks.run_state(page, "interrupted")
    page.locator("#resume").click()
    clicks.run_state(page, "finished")
    expect(page.locator("#status")).to_contain_text("4 of 4")
    expect(page.locator("#run-notes")).to_contain_text("reproduces the trained model")
    clicks.fill(page, "more-steps", "3")
    page.locator("#go-on").click()
    expect(page.locator("#status")).to_contain_text("7 of 7", timeout=clicks.FIRST_LOAD)
    clicks.run_state(page, "finished")
    page.locator("#copy-settings").click()
    expect(page.locator("#adapter-rank input")).to_have_value("3")


@pytest.mark.full
def test_a_preset_fills_the_form_and_the_crops_are_shown(page):
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    clicks.choose(page, "preset", "starter, character")
    expect(page.locator("#training-steps input")).to_have_value("150")
    page.locator("#crops > button").click()
    expect(page.locator("#buckets")).to_contain_text("128 × 128: 24")
    expect(page.locator("#cropped button.thumbnail-lg").first).to_be_visible()
