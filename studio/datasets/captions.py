"""Captions as people keep them: `.txt` or `.caption` beside the picture, or a folder's metadata.jsonl."""

import codecs
import json
import re
from pathlib import Path

from studio.errors import DatasetError
from studio.workspace import write_whole

CAPTION_SUFFIXES = (".txt", ".caption")
TABLE = "metadata.jsonl"  # Hugging Face's imagefolder
_TEXT_KEYS = ("text", "caption", "prompt")
_MAX_BYTES = 100_000  # of one caption file; a caption is a sentence, more is another kind of file


def set_caption(path: Path, caption: str) -> None:
    """Write the caption as one line of UTF-8 into the picture's `.txt`; an empty one removes the sidecars.

    Raises DatasetError when the folder can't be written.
    """
    text = one_line(caption)
    try:
        if text:
            write_whole(path.with_suffix(".txt"), text + "\n")
            return
        for suffix in CAPTION_SUFFIXES:
            sidecar = path.with_suffix(suffix)
            if sidecar.exists():
                sidecar.unlink()
    except OSError as error:
        raise DatasetError(f"{path.name}: its caption can't be written ({error.strerror}).") from error


def read_caption(path: Path) -> str | None:
    """The caption in the picture's sidecar; None when it has no sidecar."""
    for suffix in CAPTION_SUFFIXES:
        try:
            with open(path.with_suffix(suffix), "rb") as stream:
                return decode_caption(stream.read(_MAX_BYTES + 1))
        except OSError:
            continue
    return None


def decode_caption(data: bytes) -> str:
    """One line of text from a caption file in any of the encodings that people's editors write."""
    whole, data = len(data) <= _MAX_BYTES, data[:_MAX_BYTES]
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # Windows' Notepad, "Unicode"
        return one_line(data.decode("utf-16", errors="replace"))
    try:
        # A cut may fall inside a character, which the incremental decoder leaves out.
        return one_line(codecs.getincrementaldecoder("utf-8-sig")().decode(data, final=whole))
    except UnicodeDecodeError:
        return one_line(data.decode("cp1252", errors="replace"))  # Windows' Notepad, "ANSI"


def read_table(data: bytes) -> dict[str, str]:
    """{file name: caption} of a metadata.jsonl; lines that say neither are passed over."""
    table = {}
    for line in data.decode("utf-8-sig", errors="replace").splitlines():
        try:
            row = json.loads(line)
            text = next(row[key] for key in _TEXT_KEYS if isinstance(row.get(key), str))
            table[str(row["file_name"])] = one_line(text)
        except (ValueError, KeyError, AttributeError, StopIteration, RecursionError):
            continue
    return table


def has_trigger(caption: str, trigger: str) -> bool:
    """Whether the trigger stands in the caption as a word of its own, in any case: "ink" is not in "pink bird"."""
    return re.search(rf"(?<!\w){re.escape(trigger.strip())}(?!\w)", caption, re.IGNORECASE) is not None


def one_line(text: str) -> str:
    """Without line breaks, doubled spaces and half characters (lone surrogates), which no file can hold."""
    return " ".join(text.encode("utf-8", errors="ignore").decode("utf-8").replace("\0", " ").split())
