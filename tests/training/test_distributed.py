"""One run on two processes, over gloo: the same losses as on one, one folder, one set of events.

By default the two are forks of one process, which has read the libraries once; `full` starts them as README says.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studio.errors import RunError
from studio.training import config_from, config_to_toml, read_events, read_run, train
from studio.training.distributed import Distributed
from tests.forking import Forked
from tests.serving import free_port

# As for two GPUs; where there is none, the processes find the CPU and speak over gloo.
TWO = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
       "--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]  # fmt: skip


def launched(*arguments: str) -> tuple[int, str]:
    """The command that the documentation gives for several GPUs, on two CPU processes; its status and what it said."""
    command = [sys.executable, *TWO, "--main_process_port", str(free_port()), "-m", "studio", *arguments]
    given = {"capture_output": True, "text": True, "timeout": 300, "env": os.environ | {"OMP_NUM_THREADS": "1"}}
    done = subprocess.run(command, **given)
    return done.returncode, done.stderr + done.stdout


def forked(*arguments: str) -> tuple[int, str]:
    """The same two processes, with the variables that a launcher sets."""
    log = Path(arguments[1]) / "log"
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    both = [Forked(log, *arguments, RANK=rank, LOCAL_RANK=rank, **common) for rank in "01"]
    return max(process.wait() for process in both), log.read_text("utf-8")


@pytest.fixture
def settings(quick) -> dict:
    return quick | {
        "training.batch_size": 4, "training.accumulation": 2, "validation.every": 3, "validation.fraction": 0.2,
        "training.ema": 0.9, "preview.every": 6, "preview.steps": 1, "preview.prompts": ["rocket"],
    }  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("begun", [forked, launched], ids=["forked", "launched"])
def test_two_processes_make_the_run_that_one_makes(workspace, settings, begun):
    for _ in train(config_from(settings | {"name": "one"}), workspace):
        pass
    config = config_from(settings | {"name": "two"})
    (workspace.root / "two.toml").write_text(config_to_toml(config), encoding="utf-8")
    status, said = begun("--workspace", str(workspace.root), "train", str(workspace.root / "two.toml"))
    assert status == 0, said
    one, two = read_run(workspace, "one"), read_run(workspace, "two")
    assert two.state == "finished"
    assert [loss for _, loss, _ in two.losses] == pytest.approx([loss for _, loss, _ in one.losses], abs=1e-5)
    assert [look.loss for look in two.validations] == pytest.approx([look.loss for look in one.validations], abs=1e-5)
    kinds = [type(event).__name__ for event in read_events(workspace.runs / "two")]
    assert kinds.count("Step") == 6 and kinds.count("Started") == 1 and kinds.count("Preview") == 2
    assert "on 2 processes" in two.setup
    assert str(two.adapter) in said.splitlines()
    assert [run.name for run in workspace.runs.iterdir() if run.name != "one"] == ["two"]


def test_each_process_takes_its_rows_and_what_cannot_be_dealt_out_is_said():
    found = []
    for rank in range(2):
        process = Distributed()
        process.count, process.rank = 2, rank
        found.append(process.share(list("abcd")))
        with pytest.raises(RunError, match="must be a multiple of the 2 processes .you gave 3"):
            process.share(list("abc"))
    assert found == [slice(0, 2), slice(2, 4)]


@pytest.mark.full
def test_a_batch_that_cannot_be_dealt_out_is_said_in_one_line(workspace, settings):
    config = config_from(settings | {"name": "odd", "training.batch_size": 3})
    (workspace.root / "odd.toml").write_text(config_to_toml(config), encoding="utf-8")
    status, said = launched("--workspace", str(workspace.root), "train", str(workspace.root / "odd.toml"))
    assert status != 0
    assert "training.batch_size must be a multiple of the 2 processes (you gave 3)." in said
