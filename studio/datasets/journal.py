"""The history file, `.studio/history.jsonl`: one line for each change, appended before the change is made.

A line {"done": id} after it says that the change was made whole. So a crash in between leaves an entry that is not
done, and a crash while the entry itself was written leaves a torn line that never took effect and is passed over.
"""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studio.datasets.mask_files import is_mask_name
from studio.datasets.meta_dir import MAX_BYTES, META_DIR, meta_folder, unwritable
from studio.errors import DatasetError
from studio.workspace import is_valid_unicode

CHANGE, UNDO, REDO = "change", "undo", "redo"
_FILE = "history.jsonl"
_TAIL = 40  # bytes: a whole {"done": id} line

Authors = dict[str, dict[str, str]]  # {file: {phrase: who wrote it}}


@dataclass(frozen=True)
class Entry:
    """One change of the dataset.

    time      when, UTC, like 2026-01-31T12:00:00+00:00
    author    "person", "model:NAME" or "rule:NAME"
    kind      CHANGE, UNDO or REDO
    captions  {file: (sidecar before, after)}; None where there was or will be no sidecar
    moved     {file: ((from, to), …)}: an image, then its sidecars and masks, which go where it goes
    masks     {file: (mask before, after)}, by their names in `mask_files`; "" where there was or will be none
    gains     who wrote the phrases that the change brings, where it was not a person
    losses    who had written those that it takes away
    batch     changes of one batch that follow each other are undone together
    """

    id: int
    time: str
    label: str
    author: str
    kind: str = CHANGE
    captions: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)
    moved: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    gains: Authors = field(default_factory=dict)
    losses: Authors = field(default_factory=dict)
    batch: str = ""
    masks: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        return list(dict.fromkeys([*self.captions, *self.moved, *self.masks]))


def append(folder: Path, make: Callable[[int, str], Entry]) -> Entry:
    """Write make(id, time) at the end, on the disk before this returns. Raises DatasetError when it can't."""
    place = meta_folder(folder, make=True) / _FILE
    entry = make(_next_id(folder), datetime.now(UTC).isoformat(timespec="seconds"))
    _write(folder, place, asdict(entry), lasting=True)
    return entry


def mark_done(folder: Path, entry: Entry) -> None:
    _write(folder, meta_folder(folder) / _FILE, {"done": entry.id}, lasting=False)


def all_done(folder: Path) -> bool:
    """Whether the last change was made whole; from the last bytes of the file, so asking is cheap."""
    tail = _tail(folder)
    return tail is None or _done_id(tail) is not None


def read_journal(folder: Path) -> tuple[list[Entry], set[int]]:
    """(entries, oldest first; ids of those that are done). Lines that can't be read are passed over.

    Raises DatasetError when the file is too large to be ours.
    """
    place = folder / META_DIR / _FILE
    try:
        if place.is_symlink() or place.parent.is_symlink() or not place.is_file():
            return [], set()
        if place.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{folder.name}: its history is larger than {MAX_BYTES // 10**6} MB, move it away.")
        lines = place.read_bytes().split(b"\n")
    except OSError:
        return [], set()
    entries: dict[int, Entry] = {}
    done: set[int] = set()
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and _is_id(row.get("done")):
            done.add(row["done"])
        elif (entry := _entry(row)) is not None and entry.id not in entries:
            entries[entry.id] = entry
    return list(entries.values()), done


def _next_id(folder: Path) -> int:
    tail = _tail(folder)
    if tail is None:
        return 1
    last = _done_id(tail)
    if last is None:
        last = max((entry.id for entry in read_journal(folder)[0]), default=0)
    return last + 1


def _tail(folder: Path) -> bytes | None:
    """The last bytes of the file; None when there is none."""
    place = folder / META_DIR / _FILE
    try:
        if place.is_symlink() or place.parent.is_symlink() or not place.is_file():
            return None
        with open(place, "rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - _TAIL))
            return stream.read() or None
    except OSError:
        return None


def _done_id(tail: bytes) -> int | None:
    """The id in the tail's last line if that is a {"done": id}."""
    try:
        row = json.loads(tail[:-1].rpartition(b"\n")[2]) if tail.endswith(b"\n") else None
    except (ValueError, RecursionError):
        return None
    return row["done"] if isinstance(row, dict) and _is_id(row.get("done")) else None


def _write(folder: Path, place: Path, row: dict[str, Any], lasting: bool) -> None:
    try:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        with os.fdopen(os.open(place, flags, 0o644), "rb+") as stream:
            size = stream.seek(0, os.SEEK_END)
            torn = size and stream.seek(size - 1) is not None and stream.read(1) != b"\n"
            stream.write(b"\n" * bool(torn) + json.dumps(row, separators=(",", ":")).encode() + b"\n")
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
    except OSError as error:
        raise unwritable(folder, error) from error


def _entry(row: Any) -> Entry | None:
    """The entry in a line; None when it is not one of ours, as every value is looked at."""
    if not isinstance(row, dict) or not _is_id(row.get("id")) or row.get("kind") not in (CHANGE, UNDO, REDO):
        return None
    if not all(_is_text(row.get(key, "")) for key in ("time", "label", "author", "batch")):
        return None
    try:
        captions = {file: (_text(before), _text(after)) for file, (before, after) in row["captions"].items()}
        moved = {file: tuple((_name(a), _name(b)) for a, b in pairs) for file, pairs in row["moved"].items()}
        for key in ("gains", "losses"):
            if not all(
                _is_text(who) and is_valid_unicode(*names) for names in row[key].values() for who in names.values()
            ):
                return None
        masks = {file: (_mask(before), _mask(after)) for file, (before, after) in row.get("masks", {}).items()}
        if not is_valid_unicode(*captions, *moved, *masks, *row["gains"], *row["losses"]):
            return None
        row = row | {"captions": captions, "moved": moved, "masks": masks}
        return Entry(**{one.name: row[one.name] for one in fields(Entry) if one.name in row})
    except (KeyError, AttributeError, TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    if value is None or _is_text(value):
        return value
    raise ValueError


def _name(value: Any) -> str:
    if _is_text(value):
        return value
    raise ValueError


def _mask(value: Any) -> str:
    if is_mask_name(value):
        return str(value)
    raise ValueError


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_valid_unicode(value)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53
