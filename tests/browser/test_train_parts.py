"""What the Train tab shows of its settings and of a run under way, clicked in one short run on a tiny base."""

import os
import re

import pytest
from playwright.sync_api import expect

from studio.services import base_models
from studio.workspace import Workspace
from tests.basemodels import tiny
from tests.browser import clicks
from tests.browser.conftest import open_studio
from tests.browser.test_training import settings, wait_for_a_step_after


@pytest.mark.full
def test_lines_plots_and_buttons_of_a_run_are_clicked(context, studio, tmp_path, tmp_path_factory):
    space = Workspace.open(tmp_path / "workspace")
    line = base_models.line_from(space, str(tiny.save("sd1", tmp_path_factory.mktemp("bases"))), {})
    base_models.remember(space, line)
    page = open_studio(context, studio)
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    prompts = page.locator("#preview-prompts textarea")
    for part in ("expert", "previews-settings"):
        page.locator(f"#{part} > button").click()
    expect(prompts).to_have_value(re.compile(r"(.+\n){3}.+"), timeout=clicks.FIRST_LOAD)  # of the dataset
    clicks.choose(page, "train-base", "sd1")
    expect(page.locator("#training-steps input")).to_have_value("2000")  # the base's own
    page.locator("#preview-lines > button").click()
    for field, text in (("line-prompt", "a boat"), ("line-negative", "dog"), ("line-strength", "-1")):
        clicks.fill(page, field, text)
    page.locator("#put-line").click()
    expect(prompts).to_have_value(re.compile(r"\na boat --n dog --am -1$"))

    settings(page, "previews-settings", "preview-every", "0")
    clicks.fill(page, "preview-steps", "1")
    settings(page, "validation-settings", "validation-every", "0")
    page.locator("#adapter-settings > button").click()
    clicks.fill(page, "adapter-patterns", "attn2 rank=two")
    expect(page.locator("#patterns-error")).to_contain_text("adapter.patterns", timeout=clicks.FIRST_LOAD)
    expect(page.locator("#parameters")).to_contain_text("Not counted: see Layers by pattern")
    clicks.fill(page, "adapter-patterns", "attn2 rank=2")
    expect(page.locator("#layer-table tbody tr").first).to_contain_text("attn2 rank=2", timeout=clicks.FIRST_LOAD)
    page.locator("#loss-settings > button").click()
    before = page.locator("#timestep-plot svg").inner_html()
    clicks.choose(page, "training-timesteps", "mode")
    page.wait_for_function("old => document.querySelector('#timestep-plot svg').innerHTML !== old", arg=before)

    clicks.fill(page, "run-name", "parts")
    clicks.fill(page, "training-steps", "20000")
    page.locator("#start").click()
    wait_for_a_step_after(page, 0)
    page.locator("#sample-now").click()
    expect(page.locator("#previews img")).to_have_count(5, timeout=clicks.FIRST_LOAD)
    page.locator("#previews td button").last.click()
    expect(page.locator("#preview-large img")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#preview-large img")).to_have_count(0)
    if place := os.environ.get("STUDIO_LOOK"):
        page.screenshot(path=f"{place}/train.png", full_page=True)
    page.locator("#save-now").click()
    page.locator("#stop").click()
    clicks.run_state(page, "stopped")
    expect(page.locator("#start")).to_be_visible()
    page.locator("#previews td button").first.click()
    page.get_by_role("button", name="Open in Generate").click()
    expect(page.locator("#prompt textarea")).to_have_value(prompts.input_value().splitlines()[0])
    assert list((tmp_path / "workspace/runs/parts/checkpoints").glob("0*"))
