"""Small copies of pictures for the page, made once and kept in the workspace's cache."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

GRID, LARGE = 256, 1024  # longest side in pixels


def folder(workspace) -> Path:
    """Where the copies lie. It is served to the browser, so nothing else is ever put there."""
    place = workspace.cache / "thumbnails"
    place.mkdir(parents=True, exist_ok=True)
    return place


def thumbnail(workspace, path: Path, load: Callable | None = None, side: int = GRID) -> Path:
    """A WebP copy of `path`, at most `side` pixels wide and high; grey when the picture can't be read.

    `load` returns the picture as the datasets service would (upright, size checked); the copy is made again when the
    file changes.
    """
    from PIL import Image

    stat = path.stat()
    key = hashlib.sha256(f"{path}|{stat.st_mtime_ns}|{stat.st_size}|{side}".encode()).hexdigest()[:32]
    target = folder(workspace) / f"{key}.webp"
    if target.exists():
        return target
    try:
        picture = load() if load else Image.open(path).convert("RGB")
        picture.thumbnail((side, side))
    except Exception:  # a picture that went bad after the folder was read: the grid goes on
        picture = Image.new("RGB", (64, 64), (128, 128, 128))
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=".webp")
    with os.fdopen(handle, "wb") as stream:
        picture.save(stream, "WEBP", quality=88)
    os.replace(temporary, target)
    return target
