"""A quick share of `python -m tests.chaos.killed`, and that it would notice."""

import json
import os
import random
import sys
from pathlib import Path

import pytest

from tests import tiers
from tests.chaos import killed
from tests.chaos.whole import broken_files
from tests.forking import Forked

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks and kills, which is tried on Linux")


@pytest.mark.parametrize(
    "kills, places", tiers.default([("4", "captions"), ("16", "captions,adapter files,notes,images")])
)
def test_a_few_kills_lose_nothing_that_was_saved_and_leave_nothing_half_written(tmp_path, kills, places):
    """In a process of its own: torch's threads, which other tests have begun here, do not survive a fork."""
    given = ["--kills", kills, "--seed", "3", "--only", places]
    process = Forked(tmp_path / "log", *given, module="tests.chaos.killed")
    assert process.wait() == 0, process.log.read_text()
    assert f"| all | {kills} | nothing |" in process.log.read_text()


def test_a_file_that_is_written_in_place_is_noticed(tmp_path):
    """One kill just before the file that was made empty is filled, and the place says so."""

    def careless(root: Path, say, doomed: bool) -> None:
        for number in range(6):
            with open(root / "state.json", "w") as stream:
                stream.write(json.dumps({"number": number}))
                stream.flush() if number % 2 else os.fsync(stream.fileno())

    place = killed.Place("careless", careless, lambda root, said, known: [], 1, tmp_path)
    killed.begin(place)
    assert place.changes == 9 and not place.wrong
    for seed in range(12):
        killed.kill(place, random.Random(seed), by_change=True)
    assert place.kills["changes"] == 12 and any("state.json is broken" in line for line in place.wrong)


@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.json", "run.toml", "a.png", "state.pt", "encoded/ab/abc.safetensors"]
)
def test_half_a_file_is_found_under_its_final_name_alone(tmp_path, name):
    for hidden in (".a.tmp", ".gone/a.json", "000002.part/a.json"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"{")
    assert broken_files(tmp_path) == []
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b"{")
    (line,) = broken_files(tmp_path)
    assert line.startswith(f"{name} is broken")
