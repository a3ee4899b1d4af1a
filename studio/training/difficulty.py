"""Loss per image: which ones the adapter finds hard, to be compared with their captions."""

import json
from pathlib import Path
from statistics import median
from typing import Any

from studio.workspace import atomic_write, is_valid_unicode, with_older_name

FILE, OLD_FILE = "images.json", "pictures.json"  # OLD: of before 0.2
ENOUGH = 6  # images; fewer have no usual spread
OUTLYING = 3.0  # robust standard deviations: 1 image in 740 by luck
LEAST = 0.1  # of the usual loss: less is no difference that matters
PARTS = 10  # of the noise schedule: a loss is compared with others at about the same noise


class Difficulty:
    """Running means: of the loss in each part of the schedule, and of each image's loss divided by that."""

    def __init__(self) -> None:
        self.content: dict[str, str] = {}  # name: hash of the image's file; what another one did is not counted
        self.parts = [[0, 0.0] for _ in range(PARTS)]  # count, mean
        self.images: dict[str, list[Any]] = {}  # name: [times seen, mean of loss / usual loss]

    def see(self, names: list[str], losses: list[float], shares: list[float]) -> None:
        """One batch: the images, their losses, and where in the noise schedule (0..1) each was."""
        for name, loss, share in zip(names, losses, shares):
            part = self.parts[min(PARTS - 1, int(share * PARTS))]
            _mean(part, loss)
            usual = part[1] or 1.0
            _mean(self.images.setdefault(name, [0, 0.0]), loss / usual)

    def state(self) -> dict[str, Any]:
        return {"parts": self.parts, "images": self.images, "content": self.content}

    def restore(self, state: dict[str, Any]) -> None:
        self.parts = [list(part) for part in state["parts"]]
        before = state.get("content", self.content)  # runs of before 0.2 did not say
        rows = state["images"] if "images" in state else state["pictures"]  # its name of before 0.2
        self.images = {name: list(row) for name, row in rows.items() if before.get(name) == self.content.get(name)}

    def write(self, folder: Path) -> None:
        """images.json in the run folder: {name: [times seen, how hard (1 is usual)]}, the hardest first."""
        rows = sorted(self.images.items(), key=lambda row: -row[1][1])
        atomic_write(folder / FILE, json.dumps({name: [n, round(mean, 4)] for name, (n, mean) in rows}), lasting=False)
        (folder / OLD_FILE).unlink(missing_ok=True)


def file_of(folder: Path) -> Path:
    """Where a run keeps what it knows of its images."""
    return with_older_name(folder / FILE, OLD_FILE)


def stamp_of(folder: Path) -> int:
    """Changes when the run says anew which images are hard, 0 before it has: cheap to ask every second."""
    try:
        return file_of(folder).stat().st_mtime_ns
    except OSError:
        return 0


def hardest(folder: Path, count: int | None = 12) -> list[tuple[str, int, float]]:
    """(image, times seen, how hard) of a run, the hardest first; empty when none are known. count: None for all."""
    try:
        found = json.loads(file_of(folder).read_text("utf-8"))
        return [(name, int(row[0]), float(row[1])) for name, row in found.items() if is_valid_unicode(name)][:count]
    except (OSError, ValueError, TypeError, AttributeError, IndexError, KeyError, OverflowError, RecursionError):
        return []


def standing_out(rows: list[tuple[str, int, float]]) -> list[tuple[str, int, float]]:
    """Those of `hardest` that are unlike the rest: more than OUTLYING robust standard deviations above the median.

    The robust one is 1.4826 times the median distance from the median, which a few odd images do not move
    (Iglewicz and Hoaglin, How to detect and handle outliers, 1993).
    """
    if len(rows) < ENOUGH:
        return []
    values = [hard for _, _, hard in rows]
    middle = median(values)
    spread = 1.4826 * median(abs(value - middle) for value in values)
    return [row for row in rows if row[2] > middle + max(OUTLYING * spread, LEAST)]


def _mean(row: list[Any], value: float) -> None:
    row[0] += 1
    row[1] += (value - row[1]) / row[0]
