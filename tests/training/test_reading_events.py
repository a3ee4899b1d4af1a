"""Reading a run again costs what is new in it, and tells what reading it afresh tells."""

import json
import random
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from studio.errors import StudioError
from studio.training import config_from, config_to_toml, read_run
from studio.training.events import (
    ExportChecked,
    Failed,
    Finished,
    Preview,
    RolledBack,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
    from_dict,
    to_dict,
)
from studio.training.reading import KEPT, Log, at_work, read_run_folder, skim_run_folder
from studio.training.runs import append, here
from studio.training.summary import course, summaries, summary
from studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    return Workspace.open(tmp_path)


def make(workspace, name: str = "a", **settings):
    folder = workspace.runs / name
    folder.mkdir(parents=True)
    config = config_from({"name": name, "data.folder": "/images/cats"} | settings)
    (folder / "run.toml").write_text(config_to_toml(config), encoding="utf-8")
    return folder


def step(number: int) -> Step:
    return Step(number, 1 / number, 2 / number, 1e-3, 3.0, 1.0, 0.1, 0.5)


def story(chance: random.Random) -> list:
    """What a run may say: also resumed, rolled back, failed, and looks taken twice."""
    events, at = [Started(0, 100, 1, 0.0, "1")], 0
    for _ in range(60):
        kind = chance.choice("sssssvvpwcrRfx")
        if kind == "s":
            at += 1
            events.append(step(at))
        elif kind == "v":
            events.append(Validation(at, chance.random(), 0.5, 0.01, [0.1] * 4, [0.2] * 4, "learning"))
        elif kind == "p":
            events.append(Preview(at, "fish", f"previews/{at:06d}-0.png"))
        elif kind == "w":
            events.append(Warned(at, "carefully"))
        elif kind == "c":
            events.append(ExportChecked(at, 0.1, 0, "as trained"))
        elif kind in "rR":
            at = chance.randint(0, at)
            events.append(Started(at, 100, 1, 0.0, "1") if kind == "r" else RolledBack(at, "back"))
        elif kind == "f":
            events.append(Stopped(at, "stopped"))
        else:
            events.append(Failed(at, "failed"))
    return [*events, Finished(at, at, "done")]


@pytest.mark.parametrize("seed", range(8))
def test_a_log_read_in_pieces_of_any_size_tells_what_the_whole_tells(workspace, seed):
    chance = random.Random(seed)
    folder = make(workspace)
    events = story(chance)
    lines = [json.dumps(to_dict(event)) for event in events]
    lines.insert(chance.randrange(len(lines)), '{"event": "Step", "step": 3')  # torn, and gone on after it
    lines.insert(chance.randrange(len(lines)), "no JSON at all")
    lines.insert(chance.randrange(len(lines)), '{"event": "Foreign", "step": 3}')
    lines.insert(chance.randrange(len(lines)), "")
    data = "\n".join(lines).encode() + chance.choice([b"", b"\n"])
    growing, place = Log(folder), 0
    with (folder / "events.jsonl").open("ab", buffering=0) as stream:
        while place < len(data):
            piece = data[place : place + chance.randint(1, 400)]
            stream.write(piece)
            place += len(piece)
            assert growing.poll() == Log(folder).poll()
    view = growing.poll()
    told: list[int] = []
    for event in events:
        if isinstance(event, Step):
            told.append(event.step)
        elif isinstance(event, Started | RolledBack):
            told = [number for number in told if number <= event.step]
    assert view.state == "finished" and view.message == "done" and [row[0] for row in view.losses] == told


def test_a_log_that_was_replaced_or_cut_is_read_afresh(workspace):
    folder = make(workspace)
    for number in range(1, 30):
        append(folder, step(number))
    assert len(read_run(workspace, "a").losses) == 29
    other = [json.dumps(to_dict(replace(step(n), loss=9.0))) for n in range(1, 60)]
    (folder / "events.jsonl").write_text("\n".join(other) + "\n")  # the same file, longer, with other content
    assert {row[1] for row in read_run(workspace, "a").losses} == {9.0}
    (folder / "events.jsonl").write_text(other[0] + "\n")
    assert len(read_run(workspace, "a").losses) == 1
    (folder / "events.jsonl").unlink()
    assert read_run(workspace, "a").losses == []


def test_a_reader_can_change_its_view_and_nobody_else_sees_it(workspace):
    folder = make(workspace)
    append(folder, step(1))
    mine = read_run(workspace, "a")
    mine.state = "paused"
    mine.losses.clear()
    assert read_run(workspace, "a").losses == [(1, 1.0, 2.0)] and read_run(workspace, "a").state == "interrupted"


def test_a_run_whose_process_ends_becomes_interrupted_though_its_log_stays(workspace):
    import subprocess
    import sys

    import psutil

    folder = make(workspace)
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    append(folder, Started(0, 10, process.pid, psutil.Process(process.pid).create_time(), "1"))
    assert read_run(workspace, "a").state == "running" and summary(workspace, "a").state == "running"
    process.communicate(b"\n")
    assert read_run(workspace, "a").state == "interrupted" and summary(workspace, "a").state == "interrupted"


def test_a_look_that_is_taken_again_after_a_kill_counts_once(workspace):
    """Killed between the look at step 0 and the first checkpoint, a run begins with that look again."""
    folder = make(workspace)
    for _ in range(2):
        append(folder, Started(0, 10, 1, 0.0, "1"))
        append(folder, Validation(0, 0.5, 0.5))
        append(folder, Preview(0, "fish", "previews/000000-0.png"))
    view = read_run(workspace, "a")
    assert len(view.validations) == 1 and len(view.previews) == 1


def long_log(folder, steps: int) -> None:
    with (folder / "events.jsonl").open("w") as stream:
        stream.write(json.dumps(to_dict(Started(0, steps, 1, 0.0, "1"))) + "\n")
        for number in range(1, steps + 1):
            stream.write(json.dumps(to_dict(step(number))) + "\n")
            if number % 500 == 0:
                stream.write(json.dumps(to_dict(Validation(number, 1 / number, 0.5, verdict="learning"))) + "\n")
        stream.write(json.dumps(to_dict(Finished(steps, steps, "done"))) + "\n")


def test_looking_again_reads_what_is_new_and_nothing_twice(workspace, monkeypatch):
    from studio.training import reading

    folder, read = make(workspace), []
    monkeypatch.setattr(reading, "from_dict", lambda values: read.append(values["step"]) or from_dict(values))
    long_log(folder, 1000)
    assert len(read_run(workspace, "a").losses) == 1000 and len(read) == 1004
    for number in range(3):
        read.clear()
        read_run(workspace, "a")
        assert read == []
        append(folder, step(1001 + number))
        assert len(read_run(workspace, "a").losses) == 1001 + number
        assert read == [1001 + number]


def test_only_a_few_logs_are_kept_in_memory(workspace):
    from studio.training import reading

    for number in range(KEPT + 3):
        append(make(workspace, f"r{number}"), step(1))
        read_run(workspace, f"r{number}")
    assert len(reading._kept) <= KEPT
    assert read_run_folder(workspace.runs / "r0").losses == [(1, 1.0, 2.0)]


def test_a_skimmed_log_leaves_out_losses_and_nothing_else(workspace):
    folder = make(workspace)
    long_log(folder, 30_000)
    append(folder, step(30_001))  # broken off after it went on
    skimmed, whole = skim_run_folder(folder), Log(folder).poll()
    assert 1000 < len(skimmed.losses) < 10_000 and set(skimmed.losses) < set(whole.losses)
    assert skimmed.losses[-1] == whole.losses[-1]
    assert replace(skimmed, losses=[]) == replace(whole, losses=[])


def test_a_summary_tells_what_the_folder_does_and_is_made_once(workspace, monkeypatch):
    folder = make(workspace, base="starter")
    long_log(folder, 3000)
    (folder / "adapter.safetensors").write_bytes(b"x" * 1000)
    found = summary(workspace, "a")
    assert (found.base, found.dataset, found.state) == ("starter", "cats", "finished")
    assert (found.step, found.steps) == (3000, 3000)
    assert found.best == pytest.approx(1 / 3000) and found.base_loss == 0.5 and found.verdict == "learned"
    assert found.size == sum(path.stat().st_size for path in folder.rglob("*"))
    line = course(workspace, "a")
    assert len(line.trained) == 1000 and line.trained[-1] == (3000, 2 / 3000) and len(line.held_out) == 6

    from studio.training import summary as module

    monkeypatch.setattr(module, "_seen", {})  # as after a restart
    for reader in ("read_run_folder", "skim_run_folder"):
        monkeypatch.setattr(module, reader, lambda _: pytest.fail("the log was read again"))
    assert summary(workspace, "a") == found and course(workspace, "a") == line


@pytest.mark.parametrize("damage", [b"", b"[]", b"nonsense\n{}", b'[1, 0, 0, 0]\n{"name": 5}\n'])
def test_a_damaged_cache_is_made_again(workspace, damage, monkeypatch):
    from studio.training import summary as module

    folder = make(workspace)
    append(folder, step(1))
    found = summary(workspace, "a")
    (file,) = (workspace.cache / "summaries").iterdir()
    if damage.startswith(b"[1"):
        damage = file.read_bytes().splitlines()[0] + b'\n{"name": 5}\n'
    file.write_bytes(damage)
    monkeypatch.setattr(module, "_seen", {})
    assert summary(workspace, "a") == found and course(workspace, "a").trained == [(1, 2.0)]


def test_many_runs_are_read_a_part_at_a_time_and_then_at_once(workspace, monkeypatch):
    """By a clock that a run takes 0.1 s of."""
    from studio.training import summary as module

    make_one, now = module._make, [0.0]

    def made(*arguments):
        now[0] += 0.1
        return make_one(*arguments)

    monkeypatch.setattr(module, "_make", made)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0], time=time.time))
    names = [f"r{number}" for number in range(20)]
    for name in names:
        long_log(make(workspace, name), 10)
    parts = []
    for left in (14, 8, 2, 0):
        found, remaining = summaries(workspace, names, seconds=0.55)
        parts.append(len(found))
        assert remaining == left and len(found) + left == 20
    assert parts == [6, 12, 18, 20]
    monkeypatch.setattr(module, "_make", lambda *_: pytest.fail("a log was read again"))
    monkeypatch.setattr(module, "_seen", {})  # as after a restart
    assert summaries(workspace, names, 60)[0] == found
    monkeypatch.setattr(module, "_kept", lambda *_: pytest.fail("what is kept was read again"))
    assert summaries(workspace, names, 60)[0] == found


def test_a_broken_run_does_not_hide_the_others(workspace):
    append(make(workspace, "good"), step(1))
    (make(workspace, "bad") / "run.toml").write_text("nonsense = [")
    found, left = summaries(workspace, ["good", "bad", "gone"])
    assert [one.name for one in found] == ["good"] and left == 0
    with pytest.raises(StudioError):
        summary(workspace, "bad")


def test_a_run_of_this_process_is_running_while_it_is_trained_and_no_longer(workspace):
    """As when it ended without a word on a full disk: it may be deleted then."""
    folder = make(workspace)
    append(folder, Started(0, 10, *here(), "1"))
    with at_work(folder):
        assert read_run(workspace, "a").state == "running"
    assert read_run(workspace, "a").state == "interrupted"
