"""What a run loses while people watch it, and how quickly the page answers meanwhile.

python -m tests.benchmarks.watching [--tabs 4] [--rounds 5] [--seconds 15] [--apart]

Launches the studio as a person does, trains the starter model, and counts the run's steps in turns: nobody looks; so
many tabs of Chromium show the Train tab. `--apart` gives the studio one half of the processor's cores and the browser
the other, as when they are on two machines; without it they fight for the same ones. Steps are counted by the clock and
by the studio's own processor time, which others on the machine can't disturb. Also the memory of a studio whose
page was opened and that has loaded nothing yet.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from contextlib import AbstractContextManager
from pathlib import Path

from gradio_client import Client
from playwright.sync_api import BrowserContext, sync_playwright

from tests.serving import launched

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
CALLS = 100
SETTLED = 20  # seconds until the pages have nothing left to load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tabs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15, help="of each turn")
    parser.add_argument("--apart", action="store_true")
    given = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2 or len(cores)
    studios, browsers = (set(cores[:half]), set(cores[half:] or cores)) if given.apart else (set(cores), set(cores))
    with tempfile.TemporaryDirectory() as root, studio(Path(root), studios) as (process, url):
        os.sched_setaffinity(0, browsers)  # and whatever this process starts
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            context = chromium.new_context(viewport={"width": 1440, "height": 900})
            open_tabs(context, url, 1)
            time.sleep(3)
            print(f"page opened, nothing loaded: {resident(process.pid):.0f} MB")
            close_tabs(context)
            run = start(Client(url, verbose=False))
            events = Path(root) / "runs" / run / "events.jsonl"
            wait_for(events)
            measure(context, url, process.pid, events, given)
            chromium.close()


def measure(context: BrowserContext, url: str, pid: int, events: Path, given: argparse.Namespace) -> None:
    alone, watched, calls, calls_alone = [], [], [], []
    client = Client(url, verbose=False)
    for _ in range(given.rounds):
        alone.append(rate(events, pid, given.seconds))
        calls_alone += answers(client)
        open_tabs(context, url, given.tabs)
        time.sleep(SETTLED)
        watched.append(rate(events, pid, given.seconds))
        calls += answers(client)
        close_tabs(context)
        time.sleep(2)
    for place, name in enumerate(("steps a second", "steps a second of the studio's processor time")):
        without, there = (statistics.median(one[place] for one in turns) for turns in (alone, watched))
        kept = statistics.median(one[place] / other[place] for one, other in zip(watched, alone))
        print(f"{name}: nobody looks {without:.2f}, {given.tabs} tabs watch {there:.2f} ({kept:.3f} of it)")
    for name, found in (("nobody looks", calls_alone), (f"{given.tabs} tabs watch", calls)):
        print(
            f"a call that does nothing, {name}: median {1000 * statistics.median(found):.0f} ms, "
            f"p95 {1000 * statistics.quantiles(found, n=20)[-1]:.0f} ms"
        )


def studio(root: Path, cores: set[int]) -> AbstractContextManager[tuple[subprocess.Popen, str]]:
    return launched(root, preexec_fn=lambda: os.sched_setaffinity(0, cores))


def start(client: Client) -> str:
    """A run without images and looks in between, so that every second of it is alike."""
    client.predict("silhouette", api_name="/open_dataset")
    more = {"validation.every": 0, "preview.every": 0, "training.checkpoint_every": 100_000}
    return client.predict(dataset="silhouette", name="watched", steps=90_000, more=more, api_name="/start_training")


def wait_for(events: Path) -> None:
    for _ in range(1200):
        if steps(events) >= 10:
            return
        time.sleep(0.2)
    raise SystemExit("the run did not begin")


def steps(events: Path) -> int:
    try:
        with open(events, "rb") as lines:
            return sum(b'"Step"' in line for line in lines)
    except OSError:
        return 0


def rate(events: Path, pid: int, seconds: float) -> tuple[float, float]:
    """Steps by the second of the clock, and of the studio's processor time."""
    first, began, used = steps(events), time.monotonic(), processor_time(pid)
    time.sleep(seconds)
    done = steps(events) - first
    return done / (time.monotonic() - began), done / (processor_time(pid) - used)


def processor_time(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as line:
        user, system = line.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def answers(client: Client) -> list[float]:
    """Seconds of each call."""
    found = []
    for _ in range(CALLS):
        began = time.monotonic()
        client.predict(api_name="/list_queue")
        found.append(time.monotonic() - began)
    return found


def open_tabs(context: BrowserContext, url: str, many: int) -> None:
    for _ in range(many):
        page = context.new_page()
        page.goto(url)
        page.get_by_role("tab", name="Train").click()
        page.locator("#status").wait_for()


def close_tabs(context: BrowserContext) -> None:
    for page in context.pages:
        page.close()


def resident(pid: int) -> float:
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
