"""The queue of runs: in order, one failing not the end of it, and after a restart only when it is told to."""

import json
import shutil
import time

import pytest

from studio.errors import RunError, StudioError
from studio.services import run_library, run_queue, runs
from studio.services.jobs import jobs, latest, running, stop_job
from studio.services.run_order import FILE, waiting
from studio.training import config_to_toml, read_events
from studio.training.events import Failed, Started
from studio.web.train import views
from studio.workspace import ASSETS, Workspace
from tests.serving import end_jobs

QUICK = {
    "dataset": "silhouette",
    "adapter.rank": 2,
    "adapter.targets": "attention",
    "training.steps": 2,
    "training.batch_size": 1,
    "training.warmup": 0,
    "preview.every": 0,
    "validation.every": 0,
}


@pytest.fixture
def workspace(tmp_path, quick_export_check):
    found = Workspace.open(tmp_path / "workspace")
    latest.clear()
    shutil.copytree(ASSETS / "datasets" / "silhouette", found.datasets / "silhouette")
    yield found
    run_queue.pause_queue(found)
    end_jobs()


def until(what, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def queued(workspace, name: str, **settings) -> str:
    return run_queue.queue_training(workspace, values=QUICK | {"name": name} | settings)


def state(workspace, name: str) -> str:
    return runs.run_view(workspace, name).state


def busy():
    """Something that holds the device until it is stopped."""
    return jobs.start("caption", "Captioning", lambda job: job.stop_event.wait(60))


@pytest.mark.full
def test_runs_begin_one_after_the_other_and_a_failing_one_stops_none(workspace):
    shutil.copytree(workspace.datasets / "silhouette", workspace.datasets / "gone")
    runs.start_training(workspace, values=QUICK | {"name": "first"})
    queued(workspace, "broken", dataset="gone")
    queued(workspace, "second", **{"training.seed": 1})
    queued(workspace, "third", **{"training.seed": 2})
    shutil.rmtree(workspace.datasets / "gone")
    (workspace.runs / "second" / "run.toml").write_text("nonsense = [")  # can't even begin
    assert state(workspace, "third") == "queued"
    until(lambda: state(workspace, "third") == "finished")
    assert state(workspace, "first") == "finished" and state(workspace, "broken") == "failed"
    (failed,) = [event for event in read_events(workspace.runs / "second") if isinstance(event, Failed)]
    assert "TOML" in failed.message
    began = {name: (workspace.runs / name / "events.jsonl").stat().st_mtime_ns for name in ("first", "third")}
    assert began["first"] < began["third"] and waiting(workspace) == []
    until(lambda: not run_queue.going(workspace))


def test_after_a_restart_the_queue_waits_to_be_told_and_then_goes_on(workspace):
    job = busy()
    for name in ("one", "two"):
        queued(workspace, name, **{"training.seed": len(name) + ord(name[0])})
    assert run_queue.going(workspace)
    run_queue.pause_queue(workspace)  # as when the process is gone: nothing but the file is left
    job.stop()
    until(lambda: not running())
    time.sleep(1)
    assert waiting(Workspace.open(workspace.root)) == ["one", "two"] and not running()
    html = views.queue_list(run_queue.queue_of(workspace), run_queue.going(workspace))
    assert "2 runs queued, queue paused" in html and "No run starts until you resume the queue" in html
    assert state(workspace, "one") == "queued" and not (workspace.runs / "one" / "events.jsonl").exists()
    run_queue.start_queue(workspace)
    until(lambda: state(workspace, "two") == "finished")
    assert state(workspace, "one") == "finished"


@pytest.mark.full
def test_a_stop_holds_the_queue(workspace):
    runs.start_training(workspace, values=QUICK | {"name": "long", "training.steps": 5000})
    queued(workspace, "next")
    until(lambda: any(isinstance(event, Started) for event in read_events(workspace.runs / "long")))
    stop_job("train")
    until(lambda: not running() and not run_queue.going(workspace))
    time.sleep(0.6)
    assert waiting(workspace) == ["next"] and not running()


@pytest.mark.full
def test_a_waiting_run_that_is_started_by_hand_waits_no_more(workspace):
    job = busy()
    queued(workspace, "mine")
    run_queue.pause_queue(workspace)
    job.stop()
    until(lambda: not running())
    runs.resume_training(workspace, "mine")
    assert waiting(workspace) == []
    until(lambda: state(workspace, "mine") == "finished")


def test_order_can_be_changed_and_what_is_taken_out_lies_in_the_bin(workspace):
    busy()
    for number, name in enumerate("abc"):
        queued(workspace, name, **{"training.seed": number})
    run_queue.move_in_queue(workspace, "c", -1)
    assert waiting(workspace) == ["a", "c", "b"]
    run_queue.move_in_queue(workspace, "a", 1)
    run_queue.move_in_queue(workspace, "a", 9)
    assert waiting(workspace) == ["c", "b", "a"]
    run_queue.move_in_queue(workspace, "nobody", 1)
    run_queue.leave_queue(workspace, "b")
    assert waiting(workspace) == ["c", "a"] and not (workspace.runs / "b").exists()
    (trashed,) = run_library.trashed_runs(workspace)
    assert run_library.restore_run(workspace, trashed.key) == "b" and (workspace.runs / "b" / "run.toml").is_file()
    assert waiting(workspace) == ["c", "a"], "it is there again and waits for nobody"
    with pytest.raises(RunError, match="does not wait"):
        run_queue.leave_queue(workspace, "b")


def test_a_second_click_adds_no_second_run(workspace):
    busy()
    queued(workspace, "a")
    with pytest.raises(RunError, match="a waits already"):
        queued(workspace, "")
    queued(workspace, "", **{"training.seed": 9})
    assert len(waiting(workspace)) == 2


def test_settings_that_cannot_run_are_refused_before_they_wait(workspace):
    busy()
    with pytest.raises(StudioError, match="adapter.rank"):
        queued(workspace, "a", **{"adapter.rank": 0})
    with pytest.raises(StudioError):
        queued(workspace, "a", dataset="../../etc")
    assert waiting(workspace) == [] and runs.list_run_names(workspace) == []


def test_each_person_of_a_public_studio_has_a_queue_of_their_own(tmp_path):
    from studio.server.owners import acting
    from studio.server.visitors import Visitors, VisitorsWorkspace

    workspace = VisitorsWorkspace(Visitors(tmp_path / "visitors"))
    anna, ben = "c" + "1" * 40, "c" + "2" * 40
    with acting(anna):
        job = busy()
        run_queue.queue_training(workspace, values=QUICK | {"name": "annas"})
        assert waiting(workspace) == ["annas"] and run_queue.going(workspace)
    with acting(ben):
        assert waiting(workspace) == [] and not run_queue.going(workspace)
        with pytest.raises(RunError):
            run_queue.leave_queue(workspace, "annas")
    job.pause_event.set()
    with acting(anna):
        run_queue.pause_queue(workspace)
    job.stop()
    job.wait()


@pytest.mark.parametrize("text", ["", "[]", "null", '{"runs": 5}', '{"runs": {"a": 1}}', '{"runs": [1, null, "../x"]}'])
def test_a_damaged_file_is_an_empty_queue(workspace, text):
    (workspace.root / FILE).write_text(text)
    assert waiting(workspace) == [] and run_queue.queue_of(workspace) == []


def test_a_run_whose_folder_is_gone_waits_no_more(workspace):
    config = runs.config_of(workspace, QUICK | {"name": "a"})
    (workspace.runs / "a").mkdir()
    (workspace.runs / "a" / "run.toml").write_text(config_to_toml(config))
    (workspace.root / FILE).write_text(json.dumps({"runs": ["gone", "a", "a"]}))
    assert waiting(workspace) == ["a"]
    run_library.move_to_trash(workspace, ["a"])
    assert waiting(workspace) == []


def test_names_are_escaped_where_they_are_shown(workspace):
    from studio.training.summary import Summary
    from studio.training.trash import TrashedRun

    evil = "<img src=x onerror=alert(1)>"
    run = Summary(evil, evil, evil, evil, 1, 2, 0.1, 0.2, evil, 0.0, "", 5)
    said = [
        views.queue_list([run, run], True),
        views.run_list([run_library.Row(run, evil, None)], [evil], 1, 1, 0),
        views.trash_line([TrashedRun("1-x", evil, 5), TrashedRun("2-x", evil, 5)], False),
        views.settings_table([evil, "b"], [(evil, [evil, [evil]])], {}),
        views.timeline([(evil, [(evil, [(1, workspace.root / evil)])]), ("b", [(evil, [(1, workspace.root)])])]),
    ]
    assert all(html and "<img src=x" not in html for html in said)
