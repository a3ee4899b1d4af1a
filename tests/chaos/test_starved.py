"""A quick share of `python -m tests.chaos.starved`, and that it would notice."""

import sys

import pytest

from studio.errors import DatasetError
from tests import tiers
from tests.chaos.starving import NOT_TRIED, refused
from tests.forking import Forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts and limits, which are tried on Linux")
ROWS = "training with room,captioning on a full,importing on a full,saving an image on a full,base model loses"


@pytest.mark.parametrize("rows", tiers.default([ROWS.split(",")[2], ROWS]))
def test_what_runs_out_is_said_in_a_sentence_and_nothing_is_lost(tmp_path, rows):
    """In a process of its own: torch's threads, which other tests have begun here, do not survive a fork."""
    process = Forked(tmp_path / "log", "--only", rows, module="tests.chaos.starved")
    status, said = process.wait(), process.log.read_text()
    assert status == 0, said
    if NOT_TRIED in said:
        pytest.skip(NOT_TRIED)
    assert f"{rows.count(',') + 1} tried, none broke." in said


def test_silence_and_a_bug_are_no_sentence():
    def fail(error: Exception):
        raise error

    assert refused(lambda: fail(DatasetError("Put images in."))) == "Put images in."
    with pytest.raises(AssertionError, match="nothing was said"):
        refused(lambda: None)
    with pytest.raises(AssertionError, match="no sentence for KeyError"):
        refused(lambda: fail(KeyError("x")))
