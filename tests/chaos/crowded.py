"""Many people at once: clients that draw, browse, watch a run and upload, for minutes; what it costs and what fails.

python -m tests.chaos.crowded [--clients 30] [--minutes 10] [--attackers 5]

The studio is launched as a person does, and a run goes on meanwhile. The clients are gradio_client's, in a process of
their own. Memory, open files and threads are read after each tenth of the time, and once all is calm again; exit code
1 when a call was lost, or they grew since the third tenth, when everything has been used. A call is answered, refused
with a sentence, or lost; a client that waits for an image for more than a moment is told its place.

--attackers: a public studio instead, every client a visitor, and so many strangers from other addresses, who do all
that `tests.chaos.load` has, in turn, in a process of their own. Then the disk is measured as well, and light calls have
p95 below 1 s.

Everybody stops by the clock: a call that is not answered in PATIENCE seconds is lost, and what is asked last has that
long.
"""

import argparse
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gradio_client import Client, handle_file
from gradio_client.client import Job
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image

from tests.benchmarks.watching import resident, start, studio
from tests.chaos import load

PATIENCE = 120  # seconds that a call may take
MOMENT = 5  # seconds of waiting after which the place is known
CALM = 20  # seconds until the studio has nothing left to do
DRAW, UPLOAD = "draw an image", "upload an image"
GROWTH, MORE_FILES = 1.15, 60  # what is still called flat: of memory, and of files that come and go


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--attackers", type=int, default=0)
    given = parser.parse_args()
    if given.attackers:
        return attacked(given.clients, 60 * given.minutes, given.attackers)
    cores = set(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as root, studio(Path(root), cores) as (process, url):
        run = start(Client(url, verbose=False))
        told = crowd(url, run, Path(root), process.pid, given.clients, 60 * given.minutes)
    return report(*told)


def attacked(clients: int, seconds: float, attackers: int) -> int:
    """Visitors and attackers of a public studio at once."""
    addresses = [f"127.0.0.{66 + number}" for number in range(attackers)]
    with tempfile.TemporaryDirectory() as root, load.studio(Path(root)) as place:
        before = resident(place.pid)
        with load.attackers(place.url, place.root, addresses) as strangers:
            told, facts = crowd(place.url, "", Path(root), place.pid, clients, seconds, place.disk, strangers.stop.set)
            answers = strangers.end()
    print(f"{attackers} attackers: {', '.join(f'{count:,} {what}' for what, count in answers.most_common())}")
    print(f"memory before them: {before:.0f} MB; load of the machine: {os.getloadavg()[1]:.1f}\n")
    code = report(told, facts)
    limits = {DRAW: PATIENCE, UPLOAD: 2 * load.WAIT}  # an upload is two requests
    slow = [name for name, found in told.times.items() if percentile(found) > limits.get(name, load.WAIT)]
    print(f"slower than they may be: {', '.join(slow) or 'none'}")
    return int(bool(code or slow))


@dataclass
class Told:
    """What became of the calls. times: {call: seconds of each that was answered}."""

    times: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    waited: int = 0  # for more than a moment
    placed: int = 0  # and knew their place

    def of(self, name: str, job: Job) -> None:
        """Wait for what becomes of one call."""
        began = time.monotonic()
        try:
            try:
                job.result(timeout=MOMENT)
            except TimeoutError:
                self.waited, self.placed = self.waited + 1, self.placed + (job.status().rank is not None)
                job.result(timeout=PATIENCE - MOMENT)
            self.times[name].append(time.monotonic() - began)
        except TimeoutError:
            self.lost.append(f"{name}: no answer within {PATIENCE} s")
        except (AppError, QueueError) as error:
            said = f"{name}: {error}"
            (self.lost if "upstream Gradio app" in said else self.refused).append(said)
        except Exception as error:  # whatever it is, it is told
            self.lost.append(f"{name}: {type(error).__name__}: {error}"[:300])


def crowd(
    url: str,
    run: str,
    folder: Path,
    pid: int,
    clients: int,
    seconds: float,
    more: Callable[[], dict[str, float]] = dict,
    at_end: Callable[[], object] = lambda: None,
) -> tuple[Told, list[dict[str, float]]]:
    """(what became of the calls, the studio's facts after each tenth of the time, and once all is calm)."""
    image = folder / "crowd.png"
    Image.new("RGB", (96, 96), "teal").save(image)
    told = Told()
    until, ready = time.monotonic() + seconds, threading.Barrier(clients + 1, timeout=PATIENCE)

    def person(number: int) -> None:
        chance = random.Random(number)
        # As a proxy on this machine says it, which the studio believes: everybody calls from an address of their own.
        headers = {"x-forwarded-for": f"10.0.0.{number + 1}"}
        client = Client(url, verbose=False, headers=headers, httpx_kwargs={"timeout": PATIENCE})
        calls = _calls(client, run, image, number, chance)
        ready.wait()
        while time.monotonic() < until:
            name = chance.choices(list(calls), weights=[2, 5, 8, 1])[0]
            told.of(name, calls[name]())
            time.sleep(chance.uniform(0.5, 3))

    people = [threading.Thread(target=person, args=(number,), daemon=True) for number in range(clients)]
    for one in people:
        one.start()
    ready.wait()
    until = time.monotonic() + seconds
    facts = []
    for tenth in range(9, -1, -1):
        time.sleep(max(0.0, until - tenth * seconds / 10 - time.monotonic()))
        facts.append(_facts(pid) | more())
    at_end()
    for one in people:
        one.join(max(0.0, until + PATIENCE + 10 - time.monotonic()))
    told.lost += ["a client never came back"] * sum(one.is_alive() for one in people)
    time.sleep(CALM)
    facts.append(_facts(pid) | more())
    return told, facts


def _calls(client: Client, run: str, image: Path, number: int, chance: random.Random) -> dict[str, Callable[[], Job]]:
    def draw() -> Job:
        words = chance.choice(["red apple", "fish, on a pink background", "teddy bear"])
        return client.submit(prompt=words, seed=chance.randrange(9999), steps=2, api_name="/generate")

    def watch() -> Job:
        return client.submit(run, api_name="/run_status") if run else client.submit(api_name="/list_datasets")

    return {
        DRAW: draw,
        "browse images": lambda: client.submit(api_name="/list_images"),
        "watch a run" if run else "list datasets": watch,
        UPLOAD: lambda: client.submit([handle_file(str(image))], f"crowd-{number}", api_name="/import_images"),
    }


def _facts(pid: int) -> dict[str, float]:
    return {
        "memory, MB": resident(pid),
        "open files": len(os.listdir(f"/proc/{pid}/fd")),
        "threads": len(os.listdir(f"/proc/{pid}/task")),
    }


def percentile(found: list[float]) -> float:
    """p95"""
    return statistics.quantiles(found, n=20)[-1] if len(found) > 1 else found[0]


def report(told: Told, facts: list[dict[str, float]]) -> int:
    print("| call | how many | median, s | p95, s |\n| --- | --- | --- | --- |")
    for name, found in told.times.items():
        print(f"| {name} | {len(found):,} | {statistics.median(found):.2f} | {percentile(found):.2f} |")
    heads = ["the studio", *(f"{tenth}0 %" for tenth in range(1, len(facts))), "calm"]
    print(f"\n| {' | '.join(heads)} |\n" + "| --- " * len(heads) + "|")
    for name in facts[0]:
        print(f"| {name} | {' | '.join(f'{one[name]:.0f}' for one in facts)} |")
    print(f"\n{told.waited} calls waited for more than {MOMENT} s, of which {told.placed} were told their place")
    for what, lines in (("refused with a sentence", told.refused), ("lost", told.lost)):
        print(f"{len(lines)} calls were {what}")
        for line, many in Counter(lines).most_common(20):
            print(f"{many} x {line}")
    first, last = facts[2], facts[-1]  # after three tenths everything has been used
    flat = last["memory, MB"] < GROWTH * first["memory, MB"] and last["open files"] < first["open files"] + MORE_FILES
    return 0 if flat and not told.lost else 1


if __name__ == "__main__":
    sys.exit(main())
