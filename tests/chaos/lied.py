"""Lied to: whatever is read or typed, damaged and hostile, many thousand times. Seeded: the same flags, the same lies.

python -m tests.chaos.lied [--inputs 50000] [--seed 0] [--only PART-OF-A-NAME] [--keep FOLDER] [--examples 300]

Each reader is given good inputs that were cut, flipped, spliced and sprinkled with hostile words. It may answer, or
raise a StudioError of one line, within LIMIT seconds. What it answers must be text that a page can hold, and nothing
outside the workspace may be written. --keep: each input that broke something goes there. Then the round trips, found by
hypothesis: what is written is what is read.
"""

import argparse
import os
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from studio.errors import StudioError

LIMIT = 3.0  # seconds of the processor for one input; patterns of a person have one of their own for each use
LONGEST = 300_000  # bytes of an input
PRIVATE = (Path("/etc/passwd"), Path("/etc/hostname"))  # what nothing here has a reason to open
WORDS = [
    b"\0", b"../", b"../../../../etc/passwd", b"/etc/passwd", b"\\\\host\\share\\x", b"file:///etc/passwd",
    b"http://127.0.0.1:9/x", b"~nobody-here/x", b"C:\\x", b"9" * 400, b"9" * 5000, b"0x" + b"f" * 6000, b"1e999",
    b"-1", b"0", b"1.5", b"NaN", b"nan", b"Infinity", b"-Infinity", b"inf", b"null", b"true", b"[]", b"{}", b'""',
    b"[" * 6000, b'{"a":' * 3000, b"(" * 3000, b'"\\ud800"', b"\\ud800", b"\xed\xa0\x80", b"\xff\xfe", b"\xc3(",
    "\u202eabc".encode(), "\u2066\u200b\ufeff".encode(), "\u0663".encode(), "\u00b2".encode(), b" " * 90_000, b"\n",
    b"<script>alert(1)</script>", b"'\"><img src=x onerror=alert(1)>", b"{0.__class__}", b"%s%n", b"$(id)", b"'; --",
    b"<lora:a:1>", b"BREAK", b"(a+)+$", b"(?:a|a)*b", b"{99999999999}", b",", b":", b'"', b"'", b"\\", b"#", b"=",
    b"x" * 3000, b"CON", b".", b"..", b"-rf", b"1-99999999", b"0-1 in 999999", b"1e-320", b"2**99", b"[1,2,3]", b"[[]]",
]  # fmt: skip
_WORD = re.compile(rb'"(?:[^"\\]|\\.){0,200}"|-?\d+(?:\.\d+)?|\w+')


@dataclass(frozen=True)
class Reader:
    """One way in. starts: good inputs; read: raises or answers; share: how many of the inputs it gets, against 4."""

    name: str
    starts: list[bytes]
    read: Callable[[bytes], Any]
    share: float = 4


@dataclass
class Tally:
    """What happened to a reader."""

    inputs: int = 0
    refused: int = 0
    longest: float = 0.0  # seconds
    breaks: Counter[str] = field(default_factory=Counter)  # what went wrong, and where: how often


class Hang(BaseException):
    """The time for one input is over; no `except Exception` swallows it."""


def mutated(start: bytes, other: bytes, draw: random.Random) -> bytes:
    """One to three things done to `start`."""
    data = start
    for _ in range(draw.randint(1, 3)):
        place = draw.randint(0, len(data))
        end = min(len(data), place + draw.randint(1, 40))
        match draw.randrange(9):
            case 0 if data:
                place = min(place, len(data) - 1)
                data = data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
            case 1:
                data = data[:place]
            case 2:
                data = data[:place] + data[end:]
            case 3:
                data = data[:place] + draw.choice(WORDS) + data[place:]
            case 4:
                data = data[:place] + data[place:end] * draw.randint(2, 60) + data[end:]
            case 5:
                data = data[:place] + other[draw.randint(0, len(other)) :]
            case _:  # a number or a word gives way to another one
                found = list(_WORD.finditer(data[:LONGEST]))
                if found:
                    word = draw.choice(found)
                    data = data[: word.start()] + draw.choice(WORDS) + data[word.end() :]
        data = data[:LONGEST]
    return data


def typed(data: bytes) -> str:
    """As text from a browser; half characters don't come through the door, see guard.py."""
    return data.decode("utf-8", "replace")


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Of the processor's time, since others may be at work too; or five minutes by the clock, should it only wait."""

    def ring(*_):
        raise Hang

    clocks = ((signal.SIGPROF, signal.ITIMER_PROF, seconds), (signal.SIGALRM, signal.ITIMER_REAL, 300))
    before = [signal.signal(sign, ring) for sign, _, _ in clocks]
    for _, clock, most in clocks:
        signal.setitimer(clock, most)
    try:
        yield
    finally:
        for (sign, clock, _), handler in zip(clocks, before):
            signal.setitimer(clock, 0)
            signal.signal(sign, handler)


def fit_for_a_page(value: Any, depth: int = 0) -> None:
    """Raises UnicodeEncodeError for half characters anywhere in an answer: no page can be sent with them."""
    if isinstance(value, str):
        value.encode()
    elif depth < 12 and isinstance(value, BaseModel):
        fit_for_a_page(value.model_dump(), depth + 1)
    elif depth < 12 and is_dataclass(value):
        for one in fields(value):
            fit_for_a_page(getattr(value, one.name), depth + 1)
    elif depth < 12 and isinstance(value, dict):
        fit_for_a_page([*value.keys(), *value.values()], depth + 1)
    elif depth < 12 and isinstance(value, list | tuple | set):
        for one in value:
            fit_for_a_page(one, depth + 1)


def judged(reader: Reader, data: bytes, tally: Tally, limit: float = LIMIT) -> str:
    """Give it to the reader; "" when all went as it should, else what did not."""
    began, wrong = time.process_time(), ""
    try:
        with at_most(limit):
            fit_for_a_page(reader.read(data))
    except StudioError as error:
        tally.refused += 1
        if "\n" in str(error).strip() or len(str(error)) > 1500:
            wrong = f"a refusal that is no line ({len(str(error)):,} characters) by {_where(error)}"
    except Hang as error:
        wrong = f"longer than {limit:g} s in {_where(error)}"
    except Exception as error:
        wrong = f"{type(error).__name__} in {_where(error)}"
    tally.inputs += 1
    tally.longest = max(tally.longest, time.process_time() - began)
    if wrong:
        tally.breaks[wrong] += 1
    return wrong


def _where(error: BaseException) -> str:
    """The innermost line of the studio in a traceback."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}studio{os.sep}" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno} {ours[-1].name}"


# What is written outside --------------------------------------------------------------------------------------------


class Watch:
    """What this process changes outside its `places`, and which `secrets` it opens, as the interpreter itself tells."""

    _on: "list[Watch]" = []
    _hooked = False
    _CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "os.chmod")

    def __init__(self, places: Sequence[Path], secrets: Sequence[Path] = ()):
        self.places = tuple(os.path.realpath(one) + os.sep for one in places) + ("/dev/", "/proc/")
        self.secrets = {os.path.realpath(one) for one in secrets}
        self.changed: list[str] = []
        self.asked: list[str] = []  # names that were looked up, and addresses that were called
        self.opened: list[str] = []

    def __enter__(self) -> "Watch":
        if not Watch._hooked:  # a hook can't be taken off again
            sys.addaudithook(Watch._heard)
            Watch._hooked = True
        Watch._on.append(self)
        return self

    def __exit__(self, *_) -> None:
        Watch._on.remove(self)

    @staticmethod
    def _heard(event: str, given: tuple) -> None:
        for one in Watch._on:
            if event == "open" and isinstance(given[0], str | bytes):
                one._note(given[0], bool((given[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)))
            elif event == "socket.getaddrinfo":
                one.asked.append(str(given[0]))
            elif event == "socket.connect" and isinstance(given[1], tuple):
                one.asked.append(f"{given[1][0]}:{given[1][1]}")
            elif event in Watch._CHANGES:
                both = event in ("os.rename", "os.link")
                for path, folder in zip(given[: 1 + both], given[-1 - both :]):
                    if isinstance(path, str | bytes):
                        inside = os.readlink(f"/proc/self/fd/{folder}") if type(folder) is int and folder > 0 else ""
                        one._note(os.path.join(inside, os.fsdecode(path)), True)

    def _note(self, path: str | bytes, changes: bool) -> None:
        try:
            real = os.path.realpath(os.fsdecode(path))
        except (ValueError, OSError):
            return
        if real in self.secrets:
            self.opened.append(real)
        if changes and not f"{real}/".startswith(self.places) and "__pycache__" not in real:
            self.changed.append(real)


# The run ------------------------------------------------------------------------------------------------------------


def watched(
    root: Path, inputs: int, seed: int, only: str = "", keep: Path | None = None
) -> tuple[dict[str, Tally], list[str]]:
    """(what happened to each reader, what was written or read outside the workspace and the folders of the inputs)."""
    guard, usual = root / "guard", tempfile.tempdir
    for name in ("in", "aside", "guard"):
        (root / name).mkdir()
    (guard / "secret.txt").write_text("secret")
    before = listing(guard)
    tempfile.tempdir = str(root / "aside")
    try:
        with Watch([guard / "workspace", root / "in", root / "aside", *filter(None, [keep])], PRIVATE) as watch:
            told = lie(root, inputs, seed, only, keep)
    finally:
        tempfile.tempdir = usual
    changed = [name for name, data in listing(guard).items() if before.get(name) != data]
    return told, sorted({*watch.changed, *watch.opened, *changed})


def listing(guard: Path) -> dict[str, bytes]:
    """What lies there, but for the workspace."""
    return {
        str(path): path.read_bytes() if path.is_file() else b""
        for path in [*guard.iterdir()]
        if path.name != "workspace"
    }


def lie(root: Path, inputs: int, seed: int, only: str = "", keep: Path | None = None) -> dict[str, Tally]:
    """`inputs` lies to all readers together, in a workspace below `root`; {reader: what happened}."""
    from tests.chaos.readers import adapters, readers

    found = [one for one in readers(root) if only in one.name]
    parts = sum(one.share for one in found)
    told: dict[str, Tally] = {}
    if only in "adapter files":
        told["adapter files"] = adapters(root, inputs // 6, seed)
        inputs -= inputs // 6
    for reader in found:
        draw, tally = random.Random(f"{seed} {reader.name}"), told.setdefault(reader.name, Tally())
        for start in reader.starts:  # they are good; and libraries are read with the first
            if wrong := judged(reader, start, tally, 60):
                print(f"{reader.name}: a good input: {wrong}", file=sys.stderr)
        if tally.refused == len(reader.starts):
            tally.breaks["every good input is refused"] += 1
        tally.longest, tally.refused = 0.0, 0
        for number in range(max(1, round(inputs * reader.share / parts)) - len(reader.starts)):
            data = mutated(reader.starts[number % len(reader.starts)], draw.choice(reader.starts), draw)
            wrong = judged(reader, data, tally)
            if wrong and keep and tally.breaks[wrong] == 1:
                keep.mkdir(parents=True, exist_ok=True)
                name = re.sub(r"\W+", "-", f"{reader.name} {wrong}")[:120]
                (keep / name).write_bytes(data)
    return told


def table(told: dict[str, Tally], outside: list[str]) -> str:
    rows = ["| what is read | inputs | refused in a line | slowest | unexpected |", "| --- | --- | --- | --- | --- |"]
    for name, one in told.items():
        rows.append(
            f"| {name} | {one.inputs:,} | {one.refused:,} | {one.longest:.2f} s | {sum(one.breaks.values()):,} |"
        )
    total, broken = sum(one.inputs for one in told.values()), sum(one.breaks.total() for one in told.values())
    hangs = sum(n for one in told.values() for what, n in one.breaks.items() if what.startswith("longer"))
    rows.append(
        f"| **together** | {total:,} | {sum(one.refused for one in told.values()):,} | "
        f"{max(one.longest for one in told.values()):.2f} s | {broken:,} ({hangs} hangs) |"
    )
    return "\n".join([*rows, "", f"Written outside the workspace, or read where nothing may be: {len(outside)} files."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="readers with this in their name")
    parser.add_argument("--keep", type=Path, help="a folder for what broke something")
    parser.add_argument("--examples", type=int, default=300, help="of each round trip")
    given = parser.parse_args()
    sys.dont_write_bytecode = True
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        told, outside = watched(Path(place), given.inputs, given.seed, given.only, given.keep)
        print(table(told, outside), f"{time.perf_counter() - began:.0f} s.", sep="\n")
    for name, tally in told.items():
        for what, count in tally.breaks.most_common():
            print(f"BROKE {name}: {what}, {count} times", file=sys.stderr)
    for path in outside:
        print(f"TOUCHED {path}", file=sys.stderr)
    failed = round_trips(given.examples) if not given.only else []
    return int(any(one.breaks for one in told.values()) or bool(outside) or bool(failed))


def round_trips(examples: int) -> list[str]:
    """Names of those that do not hold; prints a line each."""
    from tests.chaos.trips import TRIPS, tried

    failed = []
    for name, trip in TRIPS.items():
        try:
            tried(trip, examples)
            print(f"round trip: {name}, {examples} examples, holds")
        except Exception:
            print(f"round trip: {name} does not hold", file=sys.stderr)
            traceback.print_exc(limit=-2)
            failed.append(name)
    return failed


if __name__ == "__main__":
    sys.exit(main())
