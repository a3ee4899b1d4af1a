"""Captions as people keep them: `.txt` or `.caption` beside the image, or a folder's metadata.jsonl or .csv."""

import csv
import io
import json
import os
import re
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from studio.datasets.encodings import decode
from studio.errors import DatasetError
from studio.workspace import atomic_write, is_valid_unicode

CAPTION_SUFFIXES = (".txt", ".caption")
TABLES = ("metadata.jsonl", "metadata.csv")  # Hugging Face's imagefolder
MAX_TABLE_BYTES = 20_000_000  # 1 kB for each of 20,000 images
_TEXT_KEYS = ("text", "caption", "prompt")
UNKNOWN_ENCODING = "a caption in an encoding that is not known, save it as UTF-8."
_MAX_BYTES = 100_000  # of one caption file; a caption is a sentence, more is another kind of file


def set_caption(path: Path, caption: str) -> None:
    """Write the caption as one line of UTF-8 into the image's `.txt`; an empty one removes the sidecars.

    Raises DatasetError when the folder can't be written.
    """
    try:
        put_caption(path, one_line(caption) or None)
    except OSError as error:
        raise DatasetError(f"{path.name}: its caption can't be written ({error.strerror}).") from error


def put_caption(path: Path, text: str | None, lasting: bool = True) -> None:
    """Bring the image's sidecar into this state: a line of text in `.txt`, perhaps an empty one, or none at all.

    lasting: see `atomic_write`. Raises OSError.
    """
    if text is not None:
        atomic_write(path.with_suffix(".txt"), text + "\n", lasting=lasting)
        return
    for suffix in CAPTION_SUFFIXES:
        path.with_suffix(suffix).unlink(missing_ok=True)


class Sidecar(NamedTuple):
    """text: the caption in one line, None where there is none that can be read; lines: how many lines of the file hold
    words; problem: what of it is not read, in one line.
    """

    text: str | None = None
    lines: int = 0
    problem: str = ""


def read_caption(path: Path) -> str | None:
    """The caption in the image's sidecar; None when it has none in the same folder, or in no known encoding."""
    return read_sidecar(path).text


def read_sidecar(path: Path) -> Sidecar:
    """The image's caption file: `.txt`, else `.caption`."""
    for suffix in CAPTION_SUFFIXES:
        data = read_start(path.with_suffix(suffix), _MAX_BYTES + 1)
        if data is None:
            continue
        name = f"{path.stem}{suffix}"
        text, guessed = decode(data[:_MAX_BYTES], complete=len(data) <= _MAX_BYTES)
        if text is None:
            return Sidecar(None, 0, f"{name}: {UNKNOWN_ENCODING}")
        lines = sum(bool(line.strip()) for line in text.splitlines())
        problem = f"{name}: read as Windows-1252, save it as UTF-8 to be sure." if guessed else ""
        if len(data) > _MAX_BYTES:
            problem = f"{name}: longer than {_MAX_BYTES // 1000} kB, the rest is not read."
        return Sidecar(one_line(text), lines, problem)
    return Sidecar()


def caption_lines(path: Path) -> list[str]:
    """The lines of the image's caption file that hold words; [] where there is none that can be read."""
    for suffix in CAPTION_SUFFIXES:
        if lines := text_lines(path.with_suffix(suffix)):
            return lines
    return []


def text_lines(file: Path) -> list[str]:
    """The lines of a caption file that hold words, each in one line; [] where it can't be read."""
    data = read_start(file, _MAX_BYTES + 1)
    text = None if data is None else decode(data[:_MAX_BYTES], complete=len(data) <= _MAX_BYTES)[0]
    return [line for raw in (text or "").splitlines() if (line := one_line(raw))]


def read_start(path: Path, limit: int) -> bytes | None:
    """The first `limit` bytes; None when it is no plain file, or a link that leads out of its folder."""
    try:
        if path.is_symlink():
            path = path.resolve(strict=True) if path.resolve().parent == path.parent.resolve() else path
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError, RuntimeError):
        return None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return None
        with open(handle, "rb", closefd=False) as stream:
            return stream.read(limit)
    except OSError:
        return None
    finally:
        os.close(handle)


def decode_caption(data: bytes) -> str:
    """One line of text from a caption file. Raises DatasetError when its encoding is not certain, see `encodings`."""
    text, _ = decode(data[:_MAX_BYTES], complete=len(data) <= _MAX_BYTES)
    if text is None:
        raise DatasetError(UNKNOWN_ENCODING)
    return one_line(text)


def read_table(data: bytes, name: str = TABLES[0]) -> dict[str, str]:
    """{file name: caption} of a metadata.jsonl or, by its name, a metadata.csv; rows that say neither are left out.

    Raises DatasetError when it is longer than MAX_TABLE_BYTES, in no known encoding, or has no caption in any row.
    """
    if len(data) > MAX_TABLE_BYTES:
        raise DatasetError(f"{name}: larger than {MAX_TABLE_BYTES // 10**6} MB, its captions are not read.")
    text, _ = decode(data)
    if text is None:
        raise DatasetError(f"{name}: {UNKNOWN_ENCODING.replace('a caption', 'captions')}")
    table: dict[str, str] = {}
    rows = list(_csv_rows(text) if name.endswith(".csv") else _json_rows(text))
    for row in rows:
        file = row.get("file_name")
        captions = (row[key] for key in _TEXT_KEYS if isinstance(row.get(key), str))
        if isinstance(file, str) and is_valid_unicode(file) and (caption := next(captions, None)) is not None:
            table[file.removeprefix("./")] = one_line(caption)
    if rows and not table:
        keys = ", ".join(_TEXT_KEYS[:-1])
        raise DatasetError(f"{name}: no row has both file_name and one of {keys} or {_TEXT_KEYS[-1]}, nothing is read.")
    return table


def _json_rows(text: str) -> Iterator[dict[Any, Any]]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            yield row


def _csv_rows(text: str) -> Iterator[dict[Any, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    while True:
        try:
            yield next(rows)
        except StopIteration:
            return
        except csv.Error:  # a field that is too long, for instance
            continue


class Tables:
    """The captions of a folder's metadata.jsonl and .csv files, each read once. problems: a line for each not read."""

    def __init__(self, root: Path):
        self._root = root
        self._read: dict[Path, dict[str, str]] = {}
        self.problems: list[str] = []

    def caption(self, path: Path) -> str:
        """The image's caption in the tables of its folder or of one above, up to the root; "" when there is none."""
        for folder in path.parents:
            caption = self._of(folder).get(path.relative_to(folder).as_posix())
            if caption is not None:
                return caption
            if folder == self._root:
                break
        return ""

    def without_image(self, images: Collection[Path]) -> list[str]:
        """A line for each table that was read and has rows for images that are not among these."""
        lines = []
        for folder, table in self._read.items():
            missing = [name for name in table if folder / name not in images]
            if missing:
                many = f"{missing[0]} and {len(missing) - 1:,} more rows" if len(missing) > 1 else missing[0]
                lines.append(f"{'/'.join((*folder.relative_to(self._root).parts, 'metadata'))}: no image for {many}.")
        return lines

    def _of(self, folder: Path) -> dict[str, str]:
        if folder not in self._read:
            self._read[folder] = {}
            for name in reversed(TABLES):
                data = read_start(folder / name, MAX_TABLE_BYTES + 1)
                try:
                    self._read[folder] |= read_table(data, name) if data is not None else {}
                except DatasetError as error:
                    self.problems.append(str(error))
        return self._read[folder]


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the trigger stands in the caption as a word of its own, in any case: "ink" is not in "pink bird"."""
    return re.search(trigger_pattern(trigger), caption, re.IGNORECASE) is not None


def trigger_pattern(trigger: str) -> str:
    """A regular expression for the trigger as a word of its own."""
    return rf"(?<!\w){re.escape(trigger.strip())}(?!\w)"


def with_trigger(caption: str, trigger: str) -> str:
    """The caption with the trigger in front where it lacks it; "" is no trigger."""
    if not trigger or has_trigger(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def one_line(text: str) -> str:
    """Without line breaks, doubled spaces, marks of the byte order and half characters, which no file can hold."""
    text = text.encode("utf-8", errors="ignore").decode("utf-8").replace("\ufeff", "")
    return " ".join(text.replace("\0", " ").split())
