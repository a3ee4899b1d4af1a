"""A small share of load.py: many calls, sessions and bodies of strangers, and what they leave behind."""

import asyncio
import gc
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest
from gradio.state_holder import SessionState

from studio.errors import BusyError
from studio.server import callers, owners
from studio.server.callers import Stop, asked
from studio.server.middleware import MOST_BODIES, Guard
from studio.server.permissions import MB, VISITED
from studio.server.uploads import MOST_AT_ONCE, MOST_BROKEN, Sending, Uploads
from studio.services.jobs import AT_ONE_ADDRESS, Job, Jobs, jobs
from studio.workspace import size_of
from tests.serving import run_apart, served


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("uploads")
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def studio(tmp_path_factory, uploads):
    """A program that asks a public studio."""
    with (
        served(tmp_path_factory.mktemp("load") / "workspace", public=True) as url,
        httpx.Client(base_url=url, timeout=120) as http,
    ):
        http.get("/")  # for a cookie
        yield http


def join(http: httpx.Client, name: str, **given) -> httpx.Response:
    return http.post(f"/gradio_api/call/v2/{name}", json=given)


def answer(http: httpx.Client, name: str, began: httpx.Response) -> str:
    assert began.status_code == 200, began.text
    return http.get(f"/gradio_api/call/{name}/{began.json()['event_id']}").text


def call(http: httpx.Client, name: str, **given) -> str:
    return answer(http, name, join(http, name, **given))


def test_plain_calls_leave_no_session_behind(studio):
    """Each is a session of its own, of 1.4 MB as Gradio makes them."""

    def held() -> int:
        gc.collect()
        return sum(isinstance(one, SessionState) for one in gc.get_objects())

    before = held()  # of other studios of this process
    for _ in range(5):
        assert "complete" in call(studio, "list_datasets")
    assert held() <= before + 1


def test_a_visitor_has_one_image_that_waits_and_others_are_answered(studio):
    """Sixty drawings once kept six of six calls of somebody else waiting for ever."""
    small = {"prompt": "x", "steps": 1, "width": 64, "height": 64}
    with jobs.device(), httpx.Client(base_url=studio.base_url, timeout=120) as other:
        taken = [join(studio, "generate", **small) for _ in range(60)]
        assert [one.status_code for one in taken] == [200, 200, *[503] * 58]
        assert "wait for its answers first" in taken[2].json()["detail"]
        other.get("/")
        assert "complete" in call(other, "list_datasets")
        for client, one in ((studio, taken[0]), (studio, taken[1]), (other, join(other, "generate", **small))):
            hang_up(client, one)
        assert wait_for(lambda: not jobs._images)


def test_work_ends_when_its_caller_hangs_up(studio):
    with jobs.device():
        began = join(studio, "generate", prompt="x", steps=50)
        hang_up(studio, began)
        assert wait_for(lambda: not jobs._images)


def send(url: httpx.URL, length: int, part: bytes) -> socket.socket:
    """An upload that says how long it is, and sends its beginning."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
    lines = ["POST /gradio_api/upload HTTP/1.1", f"Host: {url.host}:{url.port}", f"Content-Length: {length}",
             "Content-Type: multipart/form-data; boundary=x", "", ""]  # fmt: skip
    connection = socket.create_connection((url.host, url.port))
    connection.sendall("\r\n".join(lines).encode() + head + part)
    return connection


def test_an_upload_that_is_broken_off_leaves_nothing_and_its_place_is_free_again(studio, uploads):
    for _ in range(3):
        with send(studio.base_url, 150 * MB, b"x" * 100_000):
            assert wait_for(lambda: size_of(uploads) >= 100_000)
        assert wait_for(lambda: size_of(uploads) == 0), list(uploads.rglob("*"))
    assert studio.post("/gradio_api/upload", files={"files": ("a.txt", b"x")}).status_code == 200


def test_the_place_of_what_is_being_sent_is_taken(studio, uploads):
    """A visitor has 1 GB, an address 2 GB. All of them passed once, since nothing lay there yet."""
    sending = [send(studio.base_url, 190 * MB, b"x") for _ in range(MOST_AT_ONCE)]
    assert wait_for(lambda: len(select.select(sending, [], [], 0)[0]) == 2)
    assert [one.recv(20)[9:12] for one in select.select(sending, [], [], 0)[0]] == [b"413"] * 2
    for one in sending:
        one.close()


def test_who_breaks_off_many_uploads_waits_a_minute(tmp_path):
    uploads, sent = Uploads(tmp_path, VISITED), []

    async def break_off(address: str) -> bool:
        begun = await uploads.begin("a", address, 1000)
        if isinstance(begun, tuple):
            assert begun[0] == 429
            return False
        uploads.end(begun)
        return True

    async def go() -> None:
        sent.extend([await break_off("6.6.6.6") for _ in range(MOST_BROKEN + 5)])
        sent.append(await break_off("1.1.1.1"))

    run_apart(go())
    assert MOST_BROKEN <= sum(sent[:-1]) < MOST_BROKEN + 5 and sent[-1]


def test_a_sender_who_stalls_is_given_up(studio, uploads, monkeypatch):
    held = size_of(uploads)
    monkeypatch.setattr("studio.server.uploads.STALL", 0.1)

    def told() -> bytes:
        with send(studio.base_url, 150 * MB, b"x" * 1000) as connection:
            return connection.recv(1000)[9:12]

    assert wait_for(lambda: told() == b"408")  # places of other tests may still be taken
    assert wait_for(lambda: size_of(uploads) == held)


def test_a_sender_who_drips_is_given_up_after_its_patience_and_a_steady_one_is_not(tmp_path, monkeypatch):
    """Bytes that keep coming, too few of them, held a place for hours."""
    now = [0.0]
    monkeypatch.setattr("studio.server.uploads.time.monotonic", lambda: now[0])

    async def lasted(each: int, minutes: int) -> float:
        """Seconds until a sender of so many bytes a second is given up, at most so many minutes."""
        began = now[0]
        sending = Sending("a", "6.6.6.6", 190 * MB, began=began)

        async def receive() -> dict:
            now[0] += 1
            return {"type": "http.request", "body": b"x" * each, "more_body": True}

        counting = Uploads(tmp_path, replace(VISITED, room=None)).counted(sending, receive)
        while now[0] - began < 60 * minutes and (await counting())["type"] == "http.request":
            pass
        return now[0] - began

    assert run_apart(lasted(1000, 10)) <= 130 and run_apart(lasted(25_000, 10)) == 600


def test_an_event_that_comes_too_slowly_is_given_up(studio, monkeypatch):
    monkeypatch.setattr("studio.server.middleware.STALL", 0.1)
    url = studio.base_url
    with socket.create_connection((url.host, url.port)) as connection:
        lines = "POST /gradio_api/call/list_datasets HTTP/1.1", f"Host: {url.host}:{url.port}", "Content-Length: 9"
        connection.sendall("\r\n".join([*lines, "", '{"d']).encode())
        assert connection.recv(1000)[9:12] == b"408"


def test_one_address_sends_so_many_events_at_once(tmp_path):
    guard = Guard(None, (), (), False, tmp_path, VISITED, visitors=tmp_path)

    async def go() -> list:
        never = asyncio.Event()
        sending = [asyncio.create_task(guard._body(never.wait, "6.6.6.6")) for _ in range(MOST_BODIES)]
        await asyncio.sleep(0)
        refused = await guard._body(never.wait, "6.6.6.6")
        for one in sending:
            one.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        return [refused, guard._sending]

    assert run_apart(go()) == [(429, "Too much is being sent at once: wait for its answers first."), {}]


def test_a_caller_who_is_gone_stops_the_job_that_it_waits_for():
    job = Jobs().start("check", "Checking", lambda job: job.stop_event.wait(60))
    with asked(lambda: True):
        job.wait()
    assert job.state == "stopped"


def test_an_image_may_hold_the_device_for_its_time_and_no_longer():
    stop = Stop(seconds=0.05)
    time.sleep(0.06)
    assert not stop.is_set(), "waiting for the device does not count"
    with stop.timed():
        time.sleep(0.06)
        assert stop.is_set() and stop.too_long
    assert stop.is_set()


def test_an_image_ends_sooner_while_others_wait(monkeypatch):
    waiting = set()
    monkeypatch.setattr(callers, "_who_waits", [lambda who: bool(waiting - {who})])
    stop = Stop(seconds=60, shared=0)
    with stop.timed():
        assert not stop.is_set()
        waiting.add("")
        assert not stop.is_set(), "one's own do not count"
        waiting.add("other")
        assert stop.is_set() and stop.too_long


def test_images_of_the_page_come_in_their_order_and_know_how_many_are_before_them():
    """Whichever thread woke first had the device, for as long as others waited."""
    line, drawn, told = Jobs(), [], {}

    def draw(number: int) -> None:
        with line.device(waiting=lambda before: told.setdefault(number, before)):
            drawn.append(number)

    with line.device():
        threads = [threading.Thread(target=draw, args=(number,)) for number in range(6)]
        for number, one in enumerate(threads):
            one.start()
            assert wait_for(lambda many=number: len(line._images) > many)
    for one in threads:
        one.join(10)
    assert drawn == [0, 1, 2, 3, 4, 5] and told == {number: number for number in range(6)}


def test_an_image_that_is_stopped_while_it_waits_lets_the_next_one_in():
    line, stop, drawn = Jobs(), threading.Event(), []

    def draw(given: threading.Event | None) -> None:
        with suppress(BusyError), line.device(given):
            drawn.append(given)

    with line.device():
        threads = [threading.Thread(target=draw, args=(one,)) for one in (stop, None)]
        for number, one in enumerate(threads):
            one.start()
            assert wait_for(lambda many=number: len(line._images) > many)
        stop.set()
        assert wait_for(lambda: len(line._images) == 1)
    threads[1].join(10)
    assert drawn == [None]


def hang_up(http: httpx.Client, began: httpx.Response) -> None:
    with http.stream("GET", f"/gradio_api/call/generate/{began.json()['event_id']}"):
        pass


def wait_for(what, seconds: float = 30) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


def test_one_address_has_a_quarter_of_the_jobs_and_the_line_takes_turns(monkeypatch):
    """One with 24 cookies once kept everybody else from training for hours."""
    line, who = Jobs(), ["", "10.0.0.1"]
    monkeypatch.setattr(owners, "_ask", [lambda: who[0]])
    monkeypatch.setattr(owners, "_ask_where", [lambda: who[1]])
    begun = []

    def start(name: str, address: str) -> Job:
        who[:] = name, address
        begun.append(line.start("train", name, lambda job: job.stop_event.wait(60)))
        return begun[-1]

    try:
        for number in range(AT_ONE_ADDRESS):
            start(f"cookie-{number}", "10.0.0.1")
        with pytest.raises(BusyError, match="Your network"):
            start("another", "10.0.0.1")
        assert start("honest", "10.0.0.2").ahead == 1 and start("third", "10.0.0.3").ahead == 2
        who[1] = ""  # in the background, without a request
        assert owners.address() == "10.0.0.3"
    finally:
        for job in begun:
            job.stop()
        for job in begun:
            job.thread.join(10)
        for job in begun:
            owners.forget(job.owner)
