"""made_of.json in a run's folder: what the run was made of. No torch here.

{"versions": {program: version}, "base": {file: SHA-256}, "weights": one hash of what the base draws with,
 "data", "held_out", "regularization", "masks": one hash each, "image_count": how many are trained on,
 "images": {"trained": [SHA-256, cut], "held_out": [the same]}, "adapter": SHA-256 of it, once it is written,
 "device": in words, "files": {kind: {image: [SHA-256, hash of its captions, hash of its mask, all cut, repeats]}},
 "copies": {setting: SHA-256 of the adapter that it names}}

Runs of before 0.2 have none of what stands behind "weights" but "data" and "adapter".
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.workspace import atomic_write

FILE = "made_of.json"
DIGITS = 16  # of an image's SHA-256: enough to tell millions of images apart


@dataclass(frozen=True)
class ImageRecord:
    """The images that a run has ever trained on, and those held out when it last began; by `short` hash."""

    trained: frozenset[str] = frozenset()
    held_out: frozenset[str] = frozenset()


def short(digest: str) -> str:
    return digest[:DIGITS]


def read(folder: Path) -> dict[str, Any]:
    """What is written there; {} when there is nothing, or it is damaged."""
    try:
        found = json.loads((folder / FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def update(folder: Path, facts: dict[str, Any]) -> None:
    """Write these facts over those of the same names. Raises OSError."""
    atomic_write(folder / FILE, json.dumps(read(folder) | facts, indent=1, ensure_ascii=False))


def image_record(folder: Path) -> ImageRecord | None:
    """None for a new run, and for one of before 0.2, which did not write its images down."""
    found = read(folder).get("images")
    if not isinstance(found, dict):
        return None
    trained, held_out = (found.get(key) for key in ("trained", "held_out"))
    if not (_are_texts(trained) and _are_texts(held_out)):
        return None
    return ImageRecord(frozenset(trained), frozenset(held_out))  # type: ignore[arg-type]


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
