"""What the machine lacks is said in a sentence wherever it is met; a bug keeps its traceback."""

import errno
import os

import pytest

from studio.cli import main
from studio.errors import DatasetError, user_message
from studio.services.jobs import Jobs


def lacking(code: int, path: str = "/secret/place/runs/ink/.x9.tmp") -> OSError:
    return OSError(code, os.strerror(code), path)


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (DatasetError("Put some images in."), "Put some images in."),
        (lacking(errno.ENOSPC), "The disk is full: free"),
        (lacking(errno.EDQUOT), "The disk is full: free"),
        (lacking(errno.EROFS), "ink may not be written"),
        (lacking(errno.EACCES, "/secret/place/a.txt"), "a.txt may not be written"),
        (lacking(errno.EMFILE), "Too many files"),
        (lacking(errno.ENOMEM), "not enough memory"),
        (MemoryError(), "not enough memory"),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
            "not enough memory",
        ),
        (RuntimeError("can't start new thread"), "not enough memory"),
    ],
)
def test_what_is_lacking_is_one_sentence_without_places(error, part):
    line = user_message(error)
    assert line and part in line and "secret" not in line and "\n" not in line


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("shapes"), OSError("odd"), lacking(errno.ENOTDIR)])
def test_a_bug_has_no_sentence(error):
    assert user_message(error) is None


def test_the_command_line_says_it_in_a_line_and_raises_a_bug(capsys, monkeypatch):
    from studio import workspace

    def fails(*_, **__):
        raise raised

    monkeypatch.setattr(workspace.Workspace, "open", fails)
    raised: Exception = lacking(errno.ENOSPC)
    assert main.main(["generate", "--prompt", "x"]) == main.USER
    assert capsys.readouterr().err == "The disk is full: free some space and try again.\n"
    raised = KeyError("x")
    with pytest.raises(KeyError):
        main.main(["generate", "--prompt", "x"])


def test_a_job_says_it_and_one_that_cannot_begin_does_not_hold_the_device(monkeypatch):
    import threading

    jobs = Jobs()

    def fails(job):
        raise lacking(errno.ENOSPC)

    job = jobs.start("train", "Training", fails)
    job.wait()
    assert job.state == "failed" and job.error == "Training failed: The disk is full: free some space and try again."

    def no_thread(self):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        with pytest.raises(RuntimeError, match="new thread"):
            jobs.start("train", "Training", fails)
        with pytest.raises(RuntimeError, match="new thread"):
            jobs.start("look", "Looking", fails, device=False)
    assert jobs.running() == []
    jobs.start("train", "Training", lambda job: None).wait()
    jobs.start("look", "Looking", lambda job: None, device=False).wait()


def test_the_page_shows_it_and_leaves_its_fields(monkeypatch):
    import gradio as gr

    from studio.web import errors

    shown: list[str] = []
    monkeypatch.setattr(errors.gr, "Warning", lambda text, **_: shown.append(text))

    def handler():
        raise lacking(errno.EMFILE)

    def stream():
        yield 1
        raise lacking(errno.EROFS)

    def bug():
        raise KeyError("x")

    assert errors.show_errors(handler)() == gr.skip()
    assert list(errors.show_errors(stream)()) == [1, gr.skip()]
    assert "Too many files" in shown[0] and "ink may not" in shown[1]
    with pytest.raises(KeyError):
        errors.show_errors(bug)()
