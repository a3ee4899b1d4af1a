"""Strangers who take all that they can get, one kind after the other, while another visitor looks at a dataset.

python -m tests.chaos.load [--seconds 20] [--threads 4] [--only drawings,zips] [--calls 10000] [--sessions 1000]

A public studio is launched as a person does. Each attack comes from an address of its own (127.0.0.66 and on) and from
a process of its own, of lower priority; the other visitor calls from 127.0.0.1. Of each the table says how many calls
were taken and refused, memory and disk before and after it, and how long the other visitor waited. Exit code 1 when
memory, disk, log or wait grew past its limit.
"""

import argparse
import functools
import io
import itertools
import json
import multiprocessing
import os
import random
import secrets
import statistics
import struct
import sys
import tempfile
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from studio.server.permissions import GB, MB, VISITED
from studio.workspace import size_of
from tests.benchmarks.watching import resident
from tests.chaos.prying import png
from tests.serving import launched

WAIT = 1.0  # seconds: p95 of the other visitor's calls
GROWTH = 1.05  # of memory, by honest calls and sessions
ATTACKED = 300  # MB of memory that may be held while an attack goes on
LOG = 10 * MB
PATIENCE = 60  # seconds
TURN = 15  # seconds of each kind of attack, where a stranger does several


@dataclass
class Stranger:
    """A program that calls from an address of its own, and what it was answered."""

    url: str
    address: str
    folder: Path
    said: Counter[str] = field(default_factory=Counter)
    cookie: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def __post_init__(self) -> None:
        transport = httpx.HTTPTransport(local_address=self.address)
        self.http = httpx.Client(base_url=self.url, transport=transport, timeout=PATIENCE)

        config = self.http.get("/config", headers={"cookie": f"studio_visitor={self.cookie}"}).json()
        states = {one["id"] for one in config["components"] if one["type"] == "state"}
        loads = [one for one in config["dependencies"] if one["targets"] and one["targets"][0][1] == "load"]
        event = next(one for one in loads if states & set(one["outputs"]))
        self.event = {"data": [None] * len(event["inputs"]), "fn_index": event["id"], "trigger_id": None}

    def post(self, path: str, cookie: str = "", **options) -> httpx.Response:
        headers = {"cookie": f"studio_visitor={cookie or self.cookie}"} | options.pop("headers", {})
        answer = self.http.post(f"/gradio_api/{path}", headers=headers, **options)
        self.said["taken" if answer.status_code == 200 else "refused"] += 1
        return answer

    def call(self, name: str, cookie: str = "", /, **given) -> str:
        """What a call answers, read to its end."""
        began = self.post(f"call/v2/{name}", cookie, json=given)
        if began.status_code != 200:
            return began.text
        return self.http.get(f"/gradio_api/call/{name}/{began.json()['event_id']}").text

    def upload(self, name: str, data: bytes) -> dict:
        answer = self.post("upload", files={"files": (name, data)})
        return {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}} if answer.status_code == 200 else {}


# Attacks: each is one round ------------------------------------------------------------------------------------------


def drawings(me: Stranger) -> None:
    """Large images, of which some are disconnected on and others are never asked for."""
    began = me.post("call/v2/generate", json={"prompt": "x", "steps": 50, "width": 512, "height": 512})
    if began.status_code == 200 and random.random() < 0.5:
        with me.http.stream("GET", f"/gradio_api/call/generate/{began.json()['event_id']}"):
            pass


def cookies(me: Stranger) -> None:
    """A new visitor each time, who opens a sample."""
    cookie = secrets.token_urlsafe(32)
    me.call("list_datasets", cookie)
    if "complete" not in me.call("open_dataset", cookie, dataset="silhouette"):
        me.said["no workspace"] += 1


def sessions(me: Stranger) -> None:
    """A new page each time, to whose state something is written."""
    me.post("queue/join", json={**me.event, "session_hash": secrets.token_hex(8)})


def bodies(me: Stranger) -> None:
    """Bodies of countless values, and of as many bytes as may be."""
    for body in (b"[" + b"[]," * 600_000 + b"[]]", b"[" + b" " * 30_000_000, _event(19_000), _event(90_000)):
        with suppress(httpx.WriteError, httpx.ReadError):  # the answer comes before the body was sent
            me.post("call/list_datasets", content=body, headers={"content-type": "application/json"})


def _event(values: int) -> bytes:
    return json.dumps({"data": [["x" * 10] * values] * 1}).encode()


def unread(me: Stranger) -> None:
    """Answers that nobody fetches."""
    me.post("call/v2/open_dataset", json={"dataset": "silhouette"})


def wrong(me: Stranger) -> None:
    """Calls with too few values, which Gradio writes into the log with all that was sent."""
    began = me.post("call/save_caption", json={"data": ["x" * 1_800_000]})
    if began.status_code == 200:
        me.http.get(f"/gradio_api/call/save_caption/{began.json()['event_id']}")


def broken_off(me: Stranger) -> None:
    """Uploads of 150 MB that end after some of it."""

    def some() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.bin"\r\n\r\n'
        for _ in range(20):
            yield b"x" * 100_000
        raise httpx.WriteError("disconnected")

    headers = {"content-type": "multipart/form-data; boundary=x", "content-length": str(150 * MB)}
    try:
        me.post("upload", content=some(), headers=headers)
    except httpx.HTTPError:
        me.said["broken off"] += 1


def files(me: Stranger) -> None:
    """Uploads of 50 MB that are never used."""
    with suppress(httpx.WriteError, httpx.ReadError):
        me.upload(f"{random.random()}.bin", os.urandom(1000) * 50_000)


def zips(me: Stranger) -> None:
    """A small zip that holds many large, flat images."""
    with _packing:
        bomb = _zip_bomb()
    me.call("import_images", files=[me.upload("bomb.zip", bomb)], name=f"set-{random.randrange(99)}")


_packing = threading.Lock()


@functools.cache
def _zip_bomb() -> bytes:
    """One image is packed and stands there 45 times: packing all at low priority took longer than the attack."""
    stream, many, first = io.BytesIO(), 45, b"00.png"
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(first.decode(), png("red") + bytes(20 * MB))
        start = archive.fp.tell()  # type: ignore[union-attr]
    whole = stream.getvalue()
    one, entry = whole[:start], whole[start:-22]
    names = [f"{number:02}.png".encode() for number in range(many)]
    images = b"".join(one.replace(first, name, 1) for name in names)
    entries = b"".join(
        entry[:42] + struct.pack("<L", number * len(one)) + entry[46:].replace(first, name)
        for number, name in enumerate(names)
    )
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, many, many, len(entries), len(images), 0)
    return images + entries + end


def reruns(me: Stranger) -> None:
    """A rerun file of millions of empty lists, and one of as many losses."""
    head = b'{"format":"lora-studio rerun","version":1,"name":"a","made_of":{},'
    for body in (
        head + b'"expected":{},"settings":{"x":[' + b"[]," * 15_000_000 + b"[]]}}",
        head + b'"settings":{},"expected":{"losses":[' + b"[1,2]," * 900_000 + b"[1,2]]}}",
    ):
        with suppress(httpx.WriteError, httpx.ReadError):
            me.call("check_rerun", file=me.upload("a.rerun.json", body))


def listeners(me: Stranger) -> None:
    """A run is begun, and its events are listened to by many pages that read nothing."""
    me.call("start_training", dataset="silhouette", steps=1000)
    with suppress(httpx.HTTPError):
        open_ = [me.http.build_request("GET", "/studio/jobs", headers={"cookie": f"studio_visitor={me.cookie}"})] * 20
        answers = [me.http.send(one, stream=True) for one in open_]
        for one in answers:
            me.said["taken" if one.status_code == 200 else "refused"] += 1
            one.close()
    me.call("stop_training")


ATTACKS: dict[str, Callable[[Stranger], None]] = {
    one.__name__: one
    for one in (drawings, cookies, sessions, bodies, unread, wrong, broken_off, files, zips, reruns, listeners)
}


@dataclass
class Attackers:
    """Strangers at work in another process."""

    stop: Any
    said: Any

    def end(self) -> Counter[str]:
        """They stop; what they were answered."""
        self.stop.set()
        return self.said.get(timeout=PATIENCE)


@contextmanager
def attackers(url: str, root: Path, addresses: Sequence[str], kinds: Sequence[str] = ()) -> Iterator[Attackers]:
    """One from each address, in a process of low priority. kinds: each does these in turn, or all."""
    spawn = multiprocessing.get_context("spawn")
    stop, said = spawn.Event(), spawn.Queue()
    process = spawn.Process(target=_work, args=(url, root, addresses, kinds, stop, said), daemon=True)
    process.start()
    try:
        said.get(timeout=2 * PATIENCE)  # they have begun
        yield Attackers(stop, said)
    finally:
        process.kill()


def _work(url: str, root: Path, addresses: Sequence[str], kinds: Sequence[str], stop: Any, said: Any) -> None:
    os.nice(10)
    strangers, rounds = [Stranger(url, one, root) for one in addresses], [ATTACKS[one] for one in kinds or ATTACKS]
    said.put("begun")

    def go(me: Stranger, first: int) -> None:
        for kind in itertools.islice(itertools.cycle(rounds), first, None):
            until = time.monotonic() + TURN
            while time.monotonic() < until:
                if stop.is_set():
                    return
                try:
                    kind(me)
                except (httpx.HTTPError, ValueError) as error:
                    me.said[type(error).__name__] += 1

    workers = [
        threading.Thread(target=go, args=(one, number * len(rounds) // len(strangers)), daemon=True)
        for number, one in enumerate(strangers)
    ]
    for one in workers:
        one.start()
    stop.wait()
    until = time.monotonic() + PATIENCE / 2
    for one in workers:
        one.join(max(0.0, until - time.monotonic()))
    said.put(sum((one.said for one in strangers), Counter()))


# Measuring ------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """What one attack did. before, after: memory in MB, and bytes of uploads, of workspaces and of the log."""

    calls: Counter[str]
    before: dict[str, float]
    after: dict[str, float]
    waits: list[float]
    failed: int

    @property
    def p95(self) -> float:
        return statistics.quantiles(self.waits, n=20)[-1] if len(self.waits) > 1 else float("inf")

    @property
    def broke(self) -> list[str]:
        """What went past its limit."""
        found = {
            "the other visitor waited": self.p95 > WAIT,
            f"{self.failed} calls of the other visitor failed": self.failed > 0,
            "memory": self.after["memory"] > self.before["memory"] + ATTACKED,
            "uploads": self.after["uploads"] > 2.05 * (VISITED.room or 0),
            "workspaces": self.after["workspaces"] > 2.6 * GB,
            "log": self.after["log"] - self.before["log"] > LOG,
        }
        return [name for name, past in found.items() if past]


@dataclass
class Studio:
    url: str
    pid: int
    root: Path

    def disk(self) -> dict[str, float]:
        """What of its disk is used, in MB."""
        facts = self.facts()
        return {f"{name}, MB": facts[name] / MB for name in ("uploads", "workspaces", "log")}

    def facts(self) -> dict[str, float]:
        visitors = self.root / "workspace" / "visitors"
        return {
            "memory": resident(self.pid),
            "uploads": size_of(self.root / "uploads"),
            "workspaces": size_of(visitors),
            "folders": len(list(visitors.iterdir())) if visitors.is_dir() else 0,
            "log": (self.root / "log.txt").stat().st_size,
        }


@contextmanager
def studio(root: Path) -> Iterator[Studio]:
    """A public studio that has loaded what it needs."""
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(root / "uploads")}
    (root / "uploads").mkdir()
    with (
        open(root / "log.txt", "wb") as log,
        launched(root / "workspace", "--public", env=environment, stdout=log, stderr=log) as (
            process,
            url,
        ),
    ):
        first = Stranger(url, "127.0.0.1", root)
        first.call("open_dataset", dataset="silhouette")
        first.call("generate", prompt="red apple", steps=2)
        yield Studio(url, process.pid, root)


def attack(studio: Studio, name: str, seconds: float, threads: int) -> Row:
    """One kind of attack, while another visitor lists their datasets."""
    waits, failed = list[float](), 0
    other = Stranger(studio.url, "127.0.0.1", studio.root)
    address = f"127.0.0.{66 + list(ATTACKS).index(name)}"
    before = studio.facts()
    with attackers(studio.url, studio.root, [address] * threads, [name]) as strangers:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            began = time.monotonic()
            try:
                failed += "complete" not in other.call("list_datasets")
            except httpx.HTTPError:
                failed += 1
            waits.append(time.monotonic() - began)
            time.sleep(0.1)
        said = strangers.end()
    return Row(said, before, studio.facts(), waits, failed)


def many(studio: Studio, calls: int, sessions_: int) -> tuple[str, bool]:
    """Honest calls, each a session of its own, then invented sessions, while another visitor lists their datasets.

    (a line, whether memory stayed as it was and no visitor waited)
    """
    me = Stranger(studio.url, "127.0.0.66", studio.root)
    for _ in range(50):
        me.call("list_datasets")
    before, waits, ended = studio.facts()["memory"], list[float](), threading.Event()

    def look() -> None:
        other = Stranger(studio.url, "127.0.0.1", studio.root)
        while not ended.wait(0.5):
            began = time.monotonic()
            other.call("list_datasets")
            waits.append(time.monotonic() - began)

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    began = time.monotonic()
    for _ in range(calls):
        me.call("list_datasets")
    each = (time.monotonic() - began) / calls
    between = studio.facts()["memory"]
    for number in range(sessions_):
        sessions(me)
        if number % 20 == 19:
            time.sleep(0.2)
    ended.set()
    looking.join(PATIENCE)
    time.sleep(2)
    after, p95 = studio.facts()["memory"], statistics.quantiles(waits, n=20)[-1]
    line = (
        f"{calls:,} plain calls, {1000 * each:.0f} ms each: {before:.0f} → {between:.0f} MB; {sessions_:,} sessions: → "
        f"{after:.0f} MB ({100 * (after / before - 1):+.1f} %); the other visitor's p95 {p95:.2f} s of {len(waits):,}"
    )
    return line, after < GROWTH * before and p95 < WAIT


_COLUMNS = "attack", "calls", "taken", "refused", "memory, MB", "uploads, MB", "workspaces, MB (folders)", "log, kB"
HEADS = [f"| {' | '.join(_COLUMNS)} | the other's p95, s, of calls |", "| --- " * 9 + "|"]


def line_of(name: str, row: Row) -> str:
    a, b = row.before, row.after
    return (
        f"| {name} | {row.calls.total():,} | {row.calls['taken']:,} | {row.calls['refused']:,} | "
        f"{a['memory']:.0f} → {b['memory']:.0f} | {a['uploads'] / MB:.0f} → {b['uploads'] / MB:.0f} | "
        f"{a['workspaces'] / MB:.0f} → {b['workspaces'] / MB:.0f} ({b['folders']:.0f}) | "
        f"{(b['log'] - a['log']) / 1000:.0f} | {row.p95:.2f} of {len(row.waits)} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--only", default="", help=f"some of {', '.join(ATTACKS)}, with commas between")
    parser.add_argument("--calls", type=int, default=10_000, help="plain calls of one program; 0: leave that out")
    parser.add_argument("--sessions", type=int, default=1000)
    given = parser.parse_args()
    chosen = [name for name in ATTACKS if not given.only or name in given.only.split(",")]
    with tempfile.TemporaryDirectory() as folder, studio(Path(folder)) as place:
        flat = True
        if given.calls:
            line, flat = many(place, given.calls, given.sessions)
            print(line, flush=True)
        print("\n".join(HEADS), flush=True)
        rows = {}
        for name in chosen:
            rows[name] = attack(place, name, given.seconds, given.threads)
            print(line_of(name, rows[name]), flush=True)
    broke = [f"{name}: {what}" for name, row in rows.items() for what in row.broke]
    for said in broke:
        print(f"BROKE {said}", file=sys.stderr)
    return int(bool(broke) or not flat)


if __name__ == "__main__":
    sys.exit(main())
