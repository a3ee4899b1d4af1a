"""What is known of each image of a dataset, so that opening it and examining it again cost little.

Kept in `.studio/images.json`, and believed only while the file's size and time of change are the same. Losing it
costs time and nothing else, so a folder that can't be written is no error.
"""

import os
from contextlib import suppress
from dataclasses import astuple, dataclass
from pathlib import Path

from studio.datasets.meta_dir import META_DIR, read_meta, write_meta
from studio.errors import DatasetError
from studio.workspace import with_older_name

_FILE, _OLD_FILE = "images.json", "pictures.json"  # OLD: of before 0.2, with the key "pictures"


@dataclass(frozen=True)
class ImageInfo:
    """bytes, changed: of the file, its size and its time of change in nanoseconds, as they were then.

    width, height   as it is seen, in pixels
    content         hash of the file's bytes, hex; "" while the pixels have not been read, as for the rest
    likeness        perceptual hash of 64 bits, hex; "" when ImageHash was not installed
    colours         16 colours of 3 bytes, hex
    sharpness       variance of the Laplacian, see `analysis`
    several         1 where the file holds several images, 0 where one; -1 is not known (written before 0.2)
    """

    bytes: int
    changed: int
    width: int
    height: int
    content: str = ""
    likeness: str = ""
    colours: str = ""
    sharpness: float = 0.0
    several: int = -1

    def still(self, stat: os.stat_result) -> bool:
        """Whether the file is the one that these facts are about."""
        return self.bytes == stat.st_size and self.changed == changed_at(stat)


def changed_at(stat: os.stat_result) -> int:
    """When a file changed, in nanoseconds: a copy may keep the time of its content, not that of its status."""
    return max(stat.st_mtime_ns, stat.st_ctime_ns)


def read_index(folder: Path) -> dict[str, ImageInfo]:
    """{name in the dataset: facts}; whatever does not look like ours is left out."""
    notes = read_meta(with_older_name(folder / META_DIR / _FILE, _OLD_FILE))
    rows = None
    if isinstance(notes, dict) and notes.get("version") == 1:
        rows = notes["images"] if "images" in notes else notes.get("pictures")
    return {file: ImageInfo(*row) for file, row in rows.items() if _sound(row)} if isinstance(rows, dict) else {}


def write_index(folder: Path, known: dict[str, ImageInfo]) -> None:
    """Keep the facts for the next time; in a folder that can't be written, don't."""
    with suppress(DatasetError):
        rows = {file: astuple(facts) for file, facts in known.items()}
        write_meta(folder, _FILE, {"version": 1, "images": rows}, lasting=False)


def _sound(row: object) -> bool:
    return (
        isinstance(row, list)
        and len(row) in (8, 9)
        and row[8:] in ([], [-1], [0], [1])
        and all(type(number) is int and number >= 0 for number in (row[0], *row[2:4]))
        and type(row[1]) is int
        and row[2] * row[3] > 0
        and all(type(text) is str for text in row[4:7])
        and type(row[7]) in (int, float)
        and all(len(text) in (0, size) and _hex(text) for text, size in zip(row[4:7], (32, 16, 96)))
    )


def _hex(text: str) -> bool:
    return not text.strip("0123456789abcdef")
