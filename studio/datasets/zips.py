"""Reading a zip from anywhere: bounded in count, size and ratio, and never a name that leads outside."""

import re
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

MAX_FILES = 20_000
MAX_FILE_BYTES = 200_000_000
MAX_ZIP_BYTES = 8_000_000_000  # unpacked
FLAT_BYTES = 50_000_000  # a flat image packs better than any ratio; below this, size alone is no danger
FLAT_ALL_BYTES = 1_000_000_000  # the same for all entries together
MAX_RATIO = 200  # unpacked to packed, of one entry; images are compressed already and stay near 1


def unzip(path: Path, skipped: list[str]) -> Iterator[tuple[PurePosixPath, bytes]]:
    """(name, content) of each visible file in the zip, one at a time; nothing is written.

    What is left out adds a line to `skipped`. A zip with one name that leads outside is left out as a whole, because
    nobody makes such a zip by accident.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries, hidden = archive.infolist(), list[str]()
            if problem := _problem_of(entries):
                skipped.append(f"{path.name}: {problem}")
                return
            for entry in entries:
                inside = _inside(entry)
                if not inside.name or entry.filename.endswith(("/", "\\")):
                    continue
                if any(p.startswith((".", "__MACOSX")) for p in inside.parts):
                    hidden.append(str(inside))
                    continue
                if problem := _problem_with(entry):
                    skipped.append(f"{inside.name}: {problem}")
                    continue
                try:
                    with archive.open(entry) as stream:
                        data = stream.read(entry.file_size + 1)
                except Exception:  # damaged or locked: zipfile raises what its decompressors do, zlib.error included
                    skipped.append(f"{inside.name}: can't be unpacked.")
                    continue
                yield inside, data
            skipped += hidden_line(hidden)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError):
        skipped.append(f"{path.name}: not a zip that can be read.")


def hidden_line(hidden: list[str]) -> list[str]:
    """A line for all files that a system keeps for itself, such as macOS' `._a.jpg`; none where there are none."""
    more = f" and {len(hidden) - 1} more" if len(hidden) > 1 else ""
    return [f"{hidden[0][:80]}{more}: hidden, nothing to do with images."] if hidden else []


def _inside(entry: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(entry.filename.replace("\\", "/"))


def _problem_of(entries: list[zipfile.ZipInfo]) -> str:
    if len(entries) > MAX_FILES:
        return f"holds more than {MAX_FILES:,} files, split it."
    if sum(entry.file_size for entry in entries) > MAX_ZIP_BYTES:
        return f"unpacks to more than {MAX_ZIP_BYTES // 10**9} GB, split it."
    packed, unpacked = (sum(getattr(entry, name) for entry in entries) for name in ("compress_size", "file_size"))
    if unpacked > max(FLAT_ALL_BYTES, MAX_RATIO * packed):
        return "unpacks to a suspicious size."
    for entry in entries:
        inside = _inside(entry)
        if inside.is_absolute() or ".." in inside.parts or re.match(r"[A-Za-z]:", str(inside)):
            return f"refused, a name in it points outside ({entry.filename[:60]!r})."
    return ""


def _problem_with(entry: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(entry.external_attr >> 16):
        return "a link, not a file."
    if entry.file_size > MAX_FILE_BYTES or entry.file_size > max(FLAT_BYTES, MAX_RATIO * entry.compress_size):
        return "unpacks to a suspicious size."
    return ""
