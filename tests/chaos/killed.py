"""The studio killed at random moments: is what it said was saved there, is nothing half-written, does it go on?

python -m tests.chaos.killed [--kills 100] [--seed 1] [--only captions,runs] [--keep FOLDER]

Each kill is a SIGKILL for a process that works in a workspace, at a moment drawn from the seed: by the clock, or just
before one of its changes of files (see `children.count_changes`). After each, everything under its final name is read
whole, what the process had reported as saved is compared with what is there, and the next process goes on in the same
workspace. At the end the runs that were killed again and again are compared, bit for bit, with runs that never were.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.workspace import Workspace
from tests.chaos import killed_work as work
from tests.chaos.children import NEVER, Child, Ended, Say, count_changes
from tests.chaos.whole import broken_files


@dataclass
class Place:
    """One kind of work, its own workspace, and what is known to be saved in it.

    work    does it, from wherever the one before was killed, and says what is saved
    check   what is wrong in the workspace after a kill, given what was said; may keep what it learned in `known`
    share   of all kills; seconds: the longest until a kill
    """

    name: str
    work: Callable[[Path, Say, bool], None]
    check: Callable[[Path, list[Any], dict], list[str]]
    share: int
    root: Path = Path()
    known: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    changes: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


PLACES = (
    Place("cache building", work.encode, work.check_runs, 12),
    Place("training", work.train_busy, work.check_runs, 14),
    Place("checkpointing", work.train_keeping, work.check_runs, 18),
    Place("captions", work.write_captions_in, work.check_captions, 16),
    Place("adapter files", work.write_adapters, work.check_adapters, 10),
    Place("notes, queue and bin", work.keep_runs, work.check_kept, 14),
    Place("images", work.save_images, work.check_images, 8),
    Place("opening the page", work.open_page, work.check_page, 6),
    Place("the command line", work.command_line, work.check_runs, 2),
)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names of PLACES, or their beginnings, with commas between")
    parser.add_argument("--keep", type=Path, help="a folder for the workspaces, which stay there")
    given = parser.parse_args(arguments)
    wanted = [name.strip() for name in given.only.split(",") if name.strip()]
    places = [place for place in PLACES if not wanted or any(place.name.startswith(name) for name in wanted)]
    with tempfile.TemporaryDirectory() as aside:
        killed(places, given.kills, given.seed, given.keep or Path(aside))
    return report(places, given.seed)


def killed(places: list[Place], kills: int, seed: int, root: Path) -> None:
    """Kill `kills` times, spread over the places by their shares; what was found stands in them."""
    work.import_everything(page=any(place.work is work.open_page for place in places))
    chance, whole = random.Random(seed), sum(place.share for place in places)
    for place in places:
        place.root = root / place.name.replace(" ", "-")
        begin(place)
    for number, place in enumerate(places):
        before = sum(one.share for one in places[:number])
        for turn in range(kills * (before + place.share) // whole - kills * before // whole):
            kill(place, chance, by_change=bool(turn % 2 and place.changes))
        finish(place)
        print(f"{place.name}: {dict(place.kills)}, {len(place.wrong)} broke", file=sys.stderr)


def begin(place: Place) -> None:
    """Do the work without a kill, first for what comes of it, then for how long it takes and how often it changes files
    once what can be cached is.
    """
    Workspace.open(place.root / "uninterrupted")
    Workspace.open(place.root / "killed")

    def whole(say: Say) -> None:
        count = count_changes()
        place.work(place.root / "uninterrupted", say, False)
        say({"changes": count()})

    place.known["uninterrupted"] = place.root / "uninterrupted"
    for _ in range(2):
        ended = Child(whole, quiet=True).end(after=60)
        place.seconds = min(ended.seconds, 60.0)
        place.changes = ended.said[-1].get("changes", 0) if ended.said else 0
        if ended.how != "done":
            place.wrong.append(f"it ended by itself ({ended.how}) before any kill")


def kill(place: Place, chance: random.Random, by_change: bool) -> None:
    """One kill, or several tries where the work was quicker."""
    for _ in range(20):
        count = chance.randint(1, place.changes) if by_change else NEVER
        after = NEVER if by_change else chance.uniform(0, place.seconds)

        def doomed(say: Say, count: int = count) -> None:
            count_changes(count)
            place.work(place.root / "killed", say, True)

        ended = Child(doomed, quiet=True).end(after)
        where = f"change {count}" if by_change else f"{after:.2f} s"
        look(place, ended, where)
        if ended.how == "killed":
            place.kills["changes" if by_change else "clock"] += 1
            return
        if ended.how != "done":
            place.wrong.append(f"it ended by itself ({ended.how}) with {where} to go")
            return


def look(place: Place, ended: Ended, where: str) -> None:
    root = place.root / "killed"
    found = broken_files(root)
    try:
        found += place.check(root, ended.said, place.known)
    except Exception as error:  # what is there can't even be opened
        found.append(f"{type(error).__name__}: {error}".splitlines()[0])
    place.wrong += [f"after {where}: {line}" for line in found]


def finish(place: Place) -> None:
    """The next start, with no kill: it must end well, and what was killed then equals what was not."""
    ended = Child(lambda say: place.work(place.root / "killed", say, False), quiet=True).end(after=120)
    look(place, ended, "the last start")
    if ended.how != "done":
        place.wrong.append(f"the last start ended by itself ({ended.how})")


def report(places: list[Place], seed: int) -> int:
    """Print what was tried and what happened; 1 when anything broke."""
    print(f"| killed while it was at (seed {seed}) | kills by the clock, before a change of a file | what broke |")
    print("| --- | --- | --- |")
    for place in places:
        kills = f"{place.kills['clock']}, {place.kills['changes']}"
        print(f"| {place.name} | {kills} | {'; '.join(place.wrong[:5]) or 'nothing'} |")
    total = sum(sum(place.kills.values()) for place in places)
    wrong = sum(len(place.wrong) for place in places)
    print(f"| all | {total} | {wrong or 'nothing'} |")
    return 1 if wrong else 0


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
