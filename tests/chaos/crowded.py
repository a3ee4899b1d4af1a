"""Many people at once: clients that draw, browse, watch a run and upload, for minutes; what it costs and what fails.

python -m tests.chaos.crowded [--clients 30] [--minutes 10] [--attackers 5]

The studio is launched as a person does, and a run goes on meanwhile. The clients are gradio_client's, in a process of
their own. Memory, open files and threads are read after the first quarter, when everything has been used,
and at the end; exit code 1 when a call failed or they grew.

--attackers: a public studio instead, every client a visitor, and so many strangers from other addresses, who do all
that `tests.chaos.load` has, in turn. Then the disk is measured as well, and light calls have p95 below 1 s.
"""

import argparse
import itertools
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import httpx
from gradio_client import Client, handle_file
from PIL import Image

from tests.benchmarks.watching import resident, start, studio
from tests.chaos import load

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
    stop, said = threading.Event(), Counter[str]()
    with tempfile.TemporaryDirectory() as root, load.studio(Path(root)) as place:
        strangers = [load.Stranger(place.url, f"127.0.0.{66 + number}", place.root) for number in range(attackers)]

        def attack(number: int) -> None:
            names = list(load.ATTACKS)
            for turn in itertools.count(number * len(names) // attackers):
                until = time.monotonic() + 15
                while time.monotonic() < until and not stop.is_set():
                    try:
                        load.ATTACKS[names[turn % len(names)]](strangers[number])
                    except (httpx.HTTPError, ValueError) as error:
                        said[type(error).__name__] += 1
                if stop.is_set():
                    return

        workers = [threading.Thread(target=attack, args=(number,), daemon=True) for number in range(attackers)]
        for one in workers:
            one.start()
        times, failed, facts = crowd(place.url, "", Path(root), place.pid, clients, seconds, place.disk)
        stop.set()
        for one in workers:
            one.join(load.PATIENCE)
    for one in strangers:
        said += one.said
    print(f"{attackers} attackers: {', '.join(f'{count:,} {what}' for what, count in said.most_common())}\n")
    code = report(times, failed, facts)
    slow = [name for name, found in times.items() if name != "draw an image" and percentile(found) > load.WAIT]
    print(f"past {load.WAIT:g} s: {', '.join(slow) or 'none of the light calls'}")
    return int(bool(code or slow))


def crowd(
    url: str,
    run: str,
    folder: Path,
    pid: int,
    clients: int,
    seconds: float,
    more: Callable[[], dict[str, float]] = dict,
) -> tuple[dict[str, list[float]], list[str], list[dict[str, float]]]:
    """({call: seconds of each}, what failed, the studio's facts after a quarter of the time and at the end)."""
    image = folder / "crowd.png"
    Image.new("RGB", (96, 96), "teal").save(image)
    times, failed = defaultdict[str, list[float]](list), list[str]()
    until, ready = time.monotonic() + seconds, threading.Barrier(clients + 1)

    def person(number: int) -> None:
        chance, client = random.Random(number), Client(url, verbose=False)
        calls = _calls(client, run, image, number, chance)
        ready.wait()
        while time.monotonic() < until:
            name = chance.choices(list(calls), weights=[2, 5, 8, 1])[0]
            began = time.monotonic()
            try:
                calls[name]()
            except Exception as error:  # whatever it is, it is told
                failed.append(f"{name}: {type(error).__name__}: {error}"[:300])
            times[name].append(time.monotonic() - began)
            time.sleep(chance.uniform(0.5, 3))

    people = [threading.Thread(target=person, args=(number,), daemon=True) for number in range(clients)]
    for one in people:
        one.start()
    ready.wait()
    until = time.monotonic() + seconds
    time.sleep(seconds / 4)
    facts = [_facts(pid) | more()]
    for one in people:
        one.join()
    facts.append(_facts(pid) | more())
    return times, failed, facts


def _calls(
    client: Client, run: str, image: Path, number: int, chance: random.Random
) -> dict[str, Callable[[], object]]:
    def draw() -> object:
        words = chance.choice(["red apple", "fish, on a pink background", "teddy bear"])
        return client.predict(prompt=words, seed=chance.randrange(9999), steps=2, api_name="/generate")

    return {
        "draw an image": draw,
        "browse images": lambda: client.predict(api_name="/list_images"),
        "watch a run": lambda: client.predict(run, api_name="/run_status"),
        "upload an image": lambda: client.predict(
            [handle_file(str(image))], f"crowd-{number}", api_name="/import_images"
        ),
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


def report(times: dict[str, list[float]], failed: list[str], facts: list[dict[str, float]]) -> int:
    print("| call | how many | median, s | p95, s |\n| --- | --- | --- | --- |")
    for name, found in times.items():
        print(f"| {name} | {len(found):,} | {statistics.median(found):.2f} | {percentile(found):.2f} |")
    print("\n| the studio | after a quarter | at the end |\n| --- | --- | --- |")
    for name in facts[0]:
        print(f"| {name} | {facts[0][name]:.0f} | {facts[1][name]:.0f} |")
    print(f"\n{len(failed)} calls failed", *sorted(set(failed))[:20], sep="\n")
    first, last = facts
    flat = last["memory, MB"] < GROWTH * first["memory, MB"] and last["open files"] < first["open files"] + MORE_FILES
    return 0 if flat and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
