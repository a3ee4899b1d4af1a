"""Many people at once: clients that draw, browse, watch a run and upload, for minutes; what it costs and what fails.

python -m tests.chaos.crowded [--clients 30] [--minutes 10]

The studio is launched as a person does, and a run goes on meanwhile. The clients are gradio_client's, in a process of
their own. Memory, open files and threads are read after the first quarter, when everything has been used,
and at the end; exit code 1 when a call failed or they grew.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from gradio_client import Client, handle_file
from PIL import Image

from tests.benchmarks.watching import resident, start, studio

GROWTH, MORE_FILES = 1.15, 60  # what is still called flat: of memory, and of files that come and go


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=30)
    parser.add_argument("--minutes", type=float, default=10)
    given = parser.parse_args()
    cores = set(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as root, studio(Path(root), cores) as (process, url):
        run = start(Client(url, verbose=False))
        told = crowd(url, run, Path(root), process, given.clients, 60 * given.minutes)
    return report(*told)


def crowd(
    url: str, run: str, folder: Path, process: subprocess.Popen, clients: int, seconds: float
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
    facts = [_facts(process.pid)]
    for one in people:
        one.join()
    facts.append(_facts(process.pid))
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


def report(times: dict[str, list[float]], failed: list[str], facts: list[dict[str, float]]) -> int:
    print("| call | how many | median, s | p95, s |\n| --- | --- | --- | --- |")
    for name, found in times.items():
        p95 = statistics.quantiles(found, n=20)[-1] if len(found) > 1 else found[0]
        print(f"| {name} | {len(found):,} | {statistics.median(found):.2f} | {p95:.2f} |")
    print("\n| the studio | after a quarter | at the end |\n| --- | --- | --- |")
    for name in facts[0]:
        print(f"| {name} | {facts[0][name]:.0f} | {facts[1][name]:.0f} |")
    print(f"\n{len(failed)} calls failed", *sorted(set(failed))[:20], sep="\n")
    first, last = facts
    flat = last["memory, MB"] < GROWTH * first["memory, MB"] and last["open files"] < first["open files"] + MORE_FILES
    return 0 if flat and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
