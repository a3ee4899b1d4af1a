"""Killed at any moment and resumed: the same losses and weights, bit for bit, as a run that never stopped."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from studio.training import checkpoints, config_from, config_to_toml, read_run, train
from tests import tiers
from tests.forking import Forked

# Everything that keeps a state of its own: averages, momenta, dropout, mirroring, tag orders, several buckets.
BUSY = {
    "adapter.dropout": 0.1,
    "training.ema": 0.9,
    "training.accumulation": 2,
    "training.noise_offset": 0.05,
    "data.flip": True,
    "data.shuffle_tags": True,
    "data.caption_dropout": 0.3,
    "preview.every": 4,
    "preview.steps": 1,
    "preview.prompts": ["rocket"],
    "validation.every": 3,
}


def losses(workspace, name: str) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss, _ in read_run(workspace, name).losses]


def state(folder: Path) -> dict:
    found = checkpoints.newest(folder)
    assert found is not None
    return found


def same(one, two) -> bool:
    """Whether two states hold the same bits."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(same(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(same, one, two))
    return one == two


def run_on(config, workspace, folder=None) -> None:
    for _ in train(config, workspace, folder=folder):
        pass


OPTIMIZERS = ["adamw", "adafactor", "lion", "prodigy", "schedule-free-adamw", "came", "muon", "prodigy-schedule-free"]


@pytest.mark.parametrize("optimizer", tiers.default(OPTIMIZERS))
def test_stopped_and_resumed_run_has_the_very_state_of_one_that_never_stopped(workspace, quick, optimizer):
    busy = dict(BUSY) | {"training.optimizer": optimizer, "training.accumulation": 1, "preview.every": 0}
    if "schedule-free" in optimizer:
        busy |= {"training.schedule": "constant", "training.ema": 0}
    run_on(config_from(quick | busy | {"name": "whole"}), workspace)
    config, stop = config_from(quick | busy | {"name": "halves"}), threading.Event()
    for event in train(config, workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 3:
            stop.set()
    assert read_run(workspace, "halves").state == "stopped"
    run_on(config, workspace, workspace.runs / "halves")
    assert losses(workspace, "halves") == losses(workspace, "whole")
    assert same(state(workspace.runs / "halves"), state(workspace.runs / "whole"))


def count(folder: Path, kind: str) -> int:
    """How many events of this kind the run has written."""
    events = folder / "events.jsonl"
    return events.read_text().count(f'"event": "{kind}"') if events.exists() else 0


def killed_run(workspace, name: str, steps: int, after: float) -> None:
    """`lora-studio train`, or --resume, killed `after` seconds from the moment when it has said `steps` more."""
    folder = workspace.runs / name
    what = ["--resume", str(folder)] if (folder / "run.toml").exists() else [str(workspace.root / f"{name}.toml")]
    before = count(folder, "Step")
    process = Forked(workspace.root / "log", "--workspace", str(workspace.root), "train", *what)
    try:
        for _ in range(6000):
            if process.ended() or count(folder, "Step") >= before + steps:
                break
            time.sleep(0.01)
        time.sleep(after)
    finally:
        process.signal(signal.SIGKILL)
        process.wait()


@pytest.mark.full
@pytest.mark.parametrize("kills", [[3], [1, 3, 2]])  # steps until each
def test_a_run_killed_again_and_again_ends_bit_identical(workspace, quick, kills):
    settings = quick | BUSY | {"training.steps": 12 * len(kills)}  # not through before it is killed
    run_on(config_from(settings | {"name": "whole"}), workspace)
    config = config_from(settings | {"name": "killed"})
    (workspace.root / "killed.toml").write_text(config_to_toml(config), encoding="utf-8")
    chance = random.Random(5)
    for steps in kills:
        killed_run(workspace, "killed", steps, chance.uniform(0.0, 0.3))
    assert count(workspace.runs / "killed", "Started") == len(kills), "each was killed on its way"
    view = read_run(workspace, "killed")
    if view.state != "finished":
        assert view.state == "interrupted"
        run_on(config, workspace, workspace.runs / "killed")
    assert losses(workspace, "killed") == losses(workspace, "whole")
    one, two = state(workspace.runs / "killed"), state(workspace.runs / "whole")
    assert same(one, two)
    said = [(look.step, look.loss, look.verdict) for look in read_run(workspace, "killed").validations]
    assert said == [(look.step, look.loss, look.verdict) for look in read_run(workspace, "whole").validations]


def test_a_torn_checkpoint_is_passed_over_for_the_one_before(workspace, quick):
    config = config_from(quick | {"name": "torn"})
    run_on(config, workspace)
    folder = workspace.runs / "torn"
    whole = losses(workspace, "torn")
    newest = folder / "checkpoints" / "000006" / "state.pt"
    newest.write_bytes(newest.read_bytes()[:-2000])
    assert state(folder)["step"] == 4
    run_on(config, workspace, folder)
    assert losses(workspace, "torn") == whole


@pytest.mark.full
def test_a_finished_run_goes_on_when_given_more_steps(workspace, quick):
    from studio.cli.main import main

    flat = {"training.schedule": "constant"}  # so that the first steps are those of a longer run
    run_on(config_from(quick | flat | {"name": "long", "training.steps": 9}), workspace)
    run_on(config_from(quick | flat | {"name": "short"}), workspace)
    folder = str(workspace.runs / "short")
    assert main(["--workspace", str(workspace.root), "train", "--resume", folder, "--set", "training.steps=9"]) == 0
    assert losses(workspace, "short") == losses(workspace, "long")
    assert read_run(workspace, "short").state == "finished"


def test_old_checkpoints_go_and_only_the_newest_keep_their_state(workspace, quick):
    settings = {"name": "few", "training.steps": 8, "training.keep_checkpoints": 3}
    run_on(config_from(quick | settings), workspace)
    found = checkpoints.every(workspace.runs / "few")
    assert [f.name for f in found] == ["000004", "000006", "000008"]
    assert [(f / "state.pt").is_file() for f in found] == [False, True, True]
    assert all((f / "adapter.safetensors").is_file() for f in found)


def test_a_full_disk_leaves_the_checkpoint_before_whole_and_is_said(workspace, quick, monkeypatch):
    config = config_from(quick | {"name": "full"})
    write, full = checkpoints.atomic_write, []

    def fails(path, data, lasting=True):
        if "000004" in str(path):
            full.append(path)
            path.write_bytes(data[:100])
            raise OSError(28, "No space left on device")
        write(path, data, lasting)

    monkeypatch.setattr(checkpoints, "atomic_write", fails)
    kinds = [type(event).__name__ for event in train(config, workspace)]
    view = read_run(workspace, "full")
    assert full and kinds.count("Checkpoint") == 2 and view.state == "finished"
    assert any("No space left" in said and "step 2 is whole" in said for _, said in view.warnings)
    assert sorted(os.listdir(workspace.runs / "full" / "checkpoints")) == ["000002", "000006"]


def test_events_after_a_torn_line_are_still_read(workspace, quick):
    from studio.training import runs
    from studio.training.events import Warned

    run_on(config_from(quick | {"name": "lines", "training.steps": 1}), workspace)
    folder = workspace.runs / "lines"
    with (folder / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({"event": "Step", "step": 3})[:-4])
    runs.append(folder, Warned(1, "said afterwards"))
    assert read_run(workspace, "lines").warnings[-1] == (1, "said afterwards")


@pytest.mark.full
def test_a_removed_cache_is_made_again_and_changes_nothing(workspace, quick):
    run_on(config_from(quick | {"name": "one"}), workspace)
    (workspace.cache / "encoded").unlink()
    run_on(config_from(quick | {"name": "two"}), workspace)
    assert losses(workspace, "one") == losses(workspace, "two")
