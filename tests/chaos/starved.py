"""The studio without room, rights, memory, files, or what it works on: one clear sentence, and nothing lost.

python -m tests.chaos.starved [--only training,page]

Each row is a forked child on a disk of its own (a tmpfs in a mount namespace). In it something runs out in the middle
of a work; what is said must be one sentence for a person, what was saved before must be there, the process must stay
up, and once there is enough again, the work must end as if nothing had happened.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.chaos import starved_page, starved_sources, starved_work
from tests.chaos.children import Child, Say
from tests.chaos.killed_work import import_everything
from tests.chaos.starving import NOT_TRIED, small_disk

DISK = 64  # MB
ROWS: dict[str, Callable[[Path], str]] = {**starved_work.ROWS, **starved_sources.ROWS, **starved_page.ROWS}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="parts of the rows' names, with commas between")
    given = parser.parse_args(arguments)
    wanted = [part.strip() for part in given.only.split(",") if part.strip()]
    return report(starved([name for name in ROWS if not wanted or any(part in name for part in wanted)]))


def starved(names: list[str]) -> dict[str, tuple[bool, str]]:
    """{row: (whether it held, what was said)}"""
    import_everything(page=any(name in starved_page.ROWS for name in names))
    with tempfile.TemporaryDirectory() as aside:
        starved_work.prepare(Path(aside) / "prepared")
        return {name: _row(ROWS[name], Path(aside) / f"disk{number}") for number, name in enumerate(names)}


def _row(row: Callable[[Path], str], root: Path) -> tuple[bool, str]:
    def work(say: Say) -> None:
        try:
            small_disk(root, DISK)
        except OSError as error:
            say(f"{NOT_TRIED} ({error.strerror})")
            return
        say(row(root))

    ended = Child(work).end(after=120)
    if ended.how != "done":
        return False, f"it ended otherwise: {ended.how}"
    return True, ended.said[-1]


def report(rows: dict[str, tuple[bool, str]]) -> int:
    print("| what ran out, and where | what was said |")
    print("| --- | --- |")
    for name, (held, said) in rows.items():
        print(f"| {name} | {'' if held else '**broke:** '}{said} |")
    broken = sum(not held for held, _ in rows.values())
    tried = sum(not said.startswith(NOT_TRIED) for _, said in rows.values())
    print(f"\n{tried} tried, {broken or 'none'} broke.")
    return 1 if broken else 0


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
