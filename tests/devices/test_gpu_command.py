"""`python -m tests.gpu` on the pretend device: checks run, their page is written, and a failure is one."""

import sys

import pytest

from tests.gpu import __main__ as command
from tests.gpu import checks


@pytest.mark.full
def test_a_selection_passes_and_is_written(tmp_path, monkeypatch):
    page = tmp_path / "gpu.md"
    wanted = ["--families", "sdxl", "--checks", "draw", "memory", "4bit", "fp8"]
    monkeypatch.setattr(sys, "argv", ["gpu", "--pretend", *wanted, "--out", str(page)])
    assert command.main() == 0
    text = page.read_text("utf-8")
    assert "on pretend device" in text and text.count("✓") == 3 and "- 4bit: bitsandbytes is not there" in text


def test_what_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "prepare", lambda *given: checks.Place("sd1", tmp_path, tmp_path, given[2], True))
    found = command.checked("sd1", ["draw"], pretend=True)
    assert found["draw"].startswith("✗ ")
    assert "| ✗ |" in command.page("pretend device", {"sd1": found}, ["draw"], "")


def test_without_a_gpu_it_says_so(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu"])
    if command.devices.accelerator() is None:
        assert command.main() == 2 and "--pretend" in capsys.readouterr().err
