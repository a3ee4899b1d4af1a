"""A quick share of `python -m tests.chaos.starved`, and that it would notice."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import DatasetError
from tests import tiers
from tests.chaos.starving import NOT_TRIED, refused

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits, which are tried on Linux")
ROOT = Path(__file__).parents[2]
ROWS = "training with room,captioning on a full,importing on a full,saving an image on a full,base model loses"


@pytest.mark.parametrize("rows", tiers.default([ROWS.split(",")[2], ROWS]))
def test_what_runs_out_is_said_in_a_sentence_and_nothing_is_lost(rows):
    """In a process of its own: torch's threads, which other tests have begun here, do not survive a fork."""
    command = [sys.executable, "-m", "tests.chaos.starved", "--only", rows]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
    assert found.returncode == 0, found.stdout + found.stderr
    if NOT_TRIED in found.stdout:
        pytest.skip(NOT_TRIED)
    assert f"{rows.count(',') + 1} tried, none broke." in found.stdout


def test_silence_and_a_bug_are_no_sentence():
    def fail(error: Exception):
        raise error

    assert refused(lambda: fail(DatasetError("Put images in."))) == "Put images in."
    with pytest.raises(AssertionError, match="nothing was said"):
        refused(lambda: None)
    with pytest.raises(AssertionError, match="no sentence for KeyError"):
        refused(lambda: fail(KeyError("x")))
