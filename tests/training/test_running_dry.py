"""A run that lacks something at its end, or under a clock that is set back, ends well and loses nothing."""

import os
import shutil
import time

import psutil
import pytest

from studio.basemodels import base_folder
from studio.training import checkpoints, config_from, read_run, train
from studio.training.events import Checkpoint, Finished, Step, Warned


def test_a_disk_that_fills_while_a_checkpoints_adapter_is_written_does_not_end_the_run(workspace, quick, monkeypatch):
    from studio.training import train_step

    write = train_step.atomic_write

    def fails(path, data, lasting=True):
        if "000004" in str(path):
            raise OSError(28, "No space left on device", str(path))
        write(path, data, lasting)

    monkeypatch.setattr(train_step, "atomic_write", fails)
    events = list(train(config_from(quick | {"name": "full"}), workspace))
    assert isinstance(events[-1], Finished)
    assert [event.step for event in events if isinstance(event, Checkpoint)] == [2, 6]
    warned = [event.message for event in events if isinstance(event, Warned)]
    assert any("No space left" in said and "step 2 is whole" in said for said in warned)
    assert sorted(os.listdir(workspace.runs / "full" / "checkpoints")) == ["000002", "000006"]


@pytest.mark.full
def test_a_base_model_that_is_gone_at_the_end_leaves_a_finished_run_that_says_so(workspace, quick, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(base_folder("starter"), base)
    events = []
    for event in train(config_from(quick | {"name": "gone", "base": str(base), "training.steps": 3}), workspace):
        events.append(event)
        if isinstance(event, Step) and event.step == 2:
            shutil.rmtree(base)
    assert isinstance(events[-1], Finished)
    view = read_run(workspace, "gone")
    assert view.state == "finished" and view.adapter and view.export_check is None
    assert any("was not tried in a fresh copy of the base" in said for _, said in view.warnings)
    assert [folder.name for folder in checkpoints.every(workspace.runs / "gone")] == ["000002", "000003"]


def test_a_run_is_running_also_when_the_clock_is_set_back(workspace, quick, monkeypatch):
    """psutil adds a process's age to the time of the machine's start, which moves with the clock."""
    boot, now = psutil._psplatform.boot_time, time.time
    states = []
    for event in train(config_from(quick | {"name": "back"}), workspace):
        if isinstance(event, Step):
            monkeypatch.setattr(psutil._psplatform, "boot_time", lambda: boot() - 3600)
            monkeypatch.setattr(time, "time", lambda: now() - 3600)
            states.append(read_run(workspace, "back").state)
    assert set(states) == {"running"} and read_run(workspace, "back").state == "finished"


def test_the_browsers_copy_of_an_adapter_is_the_newest_also_when_the_clock_was_set_back(workspace, quick):
    from studio.services.runs import download_copy

    list(train(config_from(quick | {"name": "ink", "training.steps": 1, "training.warmup": 0}), workspace))
    file = workspace.runs / "ink" / "adapter.safetensors"
    os.utime(file, (time.time() + 9e6,) * 2)
    assert download_copy(workspace, "ink").read_bytes() == file.read_bytes()
    file.write_bytes(b"newer")
    assert download_copy(workspace, "ink").read_bytes() == b"newer"
