"""The stream that a page in the background reads."""

import json
import threading

from studio.services.jobs import jobs
from studio.web import job_events
from studio.web.job_events import JobEvents, _events
from tests.serving import run_apart


async def read(person: str) -> list[dict]:
    return [json.loads(part.removeprefix("data: ")) async for part in _events(person) if part.startswith("data")]


def test_the_stream_ends_with_how_the_job_ended(monkeypatch):
    monkeypatch.setattr(job_events, "EVERY", 0.01)
    end = threading.Event()

    def work(job):
        job.done, job.total = 21, 50
        end.wait(10)
        job.done = 50

    job = jobs.start("train", "Training zsk", work)
    threading.Timer(0.1, end.set).start()
    said = run_apart(read(""))
    job.thread.join()
    assert said[0]["name"] == "zsk" and said[0]["state"] == "running"
    assert (said[-1]["state"], said[-1]["percent"]) == ("done", 100)


def test_somebody_elses_job_is_not_told():
    end = threading.Event()
    job = jobs.start("train", "Training zsk", lambda job: end.wait(10))
    assert run_apart(read("a visitor")) == [{"state": "none"}]
    end.set()
    job.thread.join()


def test_one_person_holds_few_streams():
    app, sent = JobEvents(None), []
    app._open[""] = job_events.EACH

    async def send(message):
        sent.append(message)

    run_apart(app({"type": "http", "method": "GET", "path": job_events.PATH}, None, send))
    assert sent[0]["status"] == 429 and app._open[""] == job_events.EACH
