"""Plan for me: a person types minutes, reads why each setting is as it is, and takes the plan with one click."""

import re

import pytest
from playwright.sync_api import expect

from studio.training.planner import probes
from tests.browser import clicks
from tests.browser.conftest import open_studio


@pytest.mark.full
def test_a_plan_is_read_used_and_taken_back(context, studio, monkeypatch):
    monkeypatch.setattr(probes, "STEPS", 2)
    page = open_studio(context, studio)
    clicks.open_sample(page, "silhouette")
    page.locator("#to-train").click()
    steps = page.locator("#training-steps input")
    expect(steps).to_have_value("200", timeout=clicks.FIRST_LOAD)
    page.locator("#plan > button").click()
    clicks.fill(page, "plan-minutes", "0.05")
    page.locator("#measure-plan").click()
    table = page.locator("#plan-report table")
    expect(table).to_contain_text("As many as fit into 0.05 minutes", timeout=clicks.FIRST_LOAD)
    for label in ("Rank", "Resolution", "Learning rate"):
        expect(table).to_contain_text(label)
    expect(steps).to_have_value("200")  # nothing changes before the click
    page.locator("#use-plan").click()
    expect(steps).not_to_have_value("200")
    expect(page.locator("#settings-search .changed")).to_contain_text("Training steps")
    page.locator('#settings-search .changed button[data-reset="*"]').click()
    expect(steps).to_have_value(re.compile("200"))
