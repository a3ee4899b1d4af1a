"""Hands and screens: a double click, a neighbour that goes, a phone, a dark page, and a studio that is killed."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests import tiers
from tests.browser import clicks
from tests.browser.conftest import open_studio
from tests.browser.test_generate import adapter, open_generate
from tests.browser.test_runs import events
from tests.browser.test_training import settings
from tests.serving import launched

TABS = ("Dataset", "Train", "Generate", "About")


@pytest.mark.full
def test_a_double_click_on_start_starts_one_run(page, tmp_path):
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    clicks.fill(page, "run-name", "once")
    clicks.fill(page, "training-steps", "3")
    settings(page, "previews-settings", "preview-every", "0")
    page.locator("#start").dblclick()
    clicks.run_state(page, "finished")
    assert [folder.name for folder in (tmp_path / "workspace/runs").iterdir() if not folder.name.startswith(".")] == [
        "once"
    ]
    assert len(events(tmp_path / "workspace", "once", "Started")) == 1


@pytest.mark.full
def test_a_caption_survives_that_its_neighbours_go(page, tmp_path):
    clicks.open_sample(page, "silhouette")
    folder = tmp_path / "workspace/datasets/silhouette"
    names = [path.stem for path in sorted(folder.glob("*.png"))]
    images = page.locator("#images button.thumbnail-lg")
    images.nth(1).click()
    expect(page.locator("#caption textarea")).to_be_visible()
    clicks.fill(page, "caption", "the one to keep")
    images.nth(0).click()
    expect(page.locator("#caption label")).to_contain_text("(1 of 24)")  # else Remove takes the one that is still open
    expect(page.locator("#images")).to_contain_text("the one to keep")
    page.locator("#remove-image").click()
    expect(images).to_have_count(23)
    expect(images.first).to_contain_text("the one to keep")
    images.first.click()
    expect(page.locator("#caption textarea")).to_have_value("the one to keep")
    assert (folder / f"{names[1]}.txt").read_text().strip() == "the one to keep"
    assert not (folder / f"{names[0]}.png").exists()


@pytest.mark.full
def test_a_slider_keeps_its_value_when_another_adapter_comes_or_goes(page, tmp_path):
    open_generate(page)
    files = [adapter(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("one", "two", "three"))]
    drop = page.locator("#drop-adapters input[type=file]")
    drop.set_input_files([str(file) for file in files[:2]])
    expect(page.locator("#about-1")).to_contain_text("rank 4", timeout=clicks.FIRST_LOAD)
    clicks.set_strength(page, 0, 0.3)
    clicks.set_strength(page, 1, -0.7)
    drop.set_input_files(str(files[2]))
    expect(page.locator("#about-2")).to_contain_text("rank 4")
    values = [page.locator(f"#strength-{row} input[type=number]") for row in range(3)]
    for field, value in zip(values, ("0.3", "-0.7", "1")):
        expect(field).to_have_value(value)
    page.locator("#remove-1").click()
    expect(page.locator("#adapter-1")).to_be_hidden()
    expect(values[0]).to_have_value("0.3")
    expect(values[2]).to_have_value("1")


@pytest.mark.parametrize("shade", tiers.default(["dark", "light"]))
def test_a_phone_shows_every_tab_without_scrolling_sideways_and_text_stands_out(browser, studio, shade):
    window = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=shade)
    page = open_studio(window, studio)
    for tab in TABS:
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(700)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{tab} is {wide} pixels wide"
        paper, ink = (_light(page, name) for name in ("backgroundColor", "color"))
        assert (paper > 0.7 and ink < 0.4) if shade == "light" else (paper < 0.3 and ink > 0.6), (tab, paper, ink)
    window.close()


def _light(page, name: str) -> float:
    """Lightness from 0 to 1 of the page's background or text: of the innermost element that has one."""
    colour = page.evaluate(
        """name => {
            let one = document.querySelector('.gradio-container');
            while (one.parentElement && /, 0\\)$/.test(getComputedStyle(one)[name])) one = one.parentElement;
            return getComputedStyle(one)[name];
        }""",
        name,
    )
    return sum(map(float, re.findall(r"[\d.]+", colour)[:3])) / 765


@pytest.mark.full
def test_a_studio_that_is_killed_while_it_trains_goes_on_by_one_click_after_its_restart(browser, tmp_path):
    workspace = tmp_path / "workspace"
    window = browser.new_context(viewport={"width": 1440, "height": 1000})
    try:
        with launched(workspace) as (process, url):
            page = open_studio(window, url)
            clicks.open_sample(page, "silhouette")
            clicks.fill(page, "trigger", "zsk")
            page.locator("#to-train").click()
            settings(page, "previews-settings", "preview-every", "0")
            settings(page, "saving-settings", "training-checkpoint_every", "5")
            clicks.fill(page, "run-name", "killed")
            clicks.fill(page, "training-steps", "400")
            page.locator("#start").click()
            events = workspace / "runs/killed/events.jsonl"
            until = time.monotonic() + 180
            while not (events.is_file() and '"Checkpoint"' in events.read_text()):
                assert time.monotonic() < until, "no checkpoint came"
                time.sleep(0.2)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        with launched(workspace) as (_, url):
            page = open_studio(window, url)
            clicks.tab(page, "Train")
            clicks.run_state(page, "interrupted")
            page.locator("#resume").click()
            clicks.run_state(page, "running")
            kept = _numbers(events)
            until = time.monotonic() + 180
            while len(_numbers(events)) < len(kept) + 5:
                assert time.monotonic() < until, "the run did not go on"
                time.sleep(0.2)
            page.locator("#stop").click()
            clicks.run_state(page, "stopped")
            assert _numbers(events)[-1] > max(kept)
    finally:
        window.close()


def _numbers(events: Path) -> list[int]:
    """The steps of a run's log."""
    told = []
    for line in events.read_text().splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if event.get("event") == "Step":
            told.append(event["step"])
    return told
