"""Small copies of images for the page, kept in the workspace's cache."""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import DatasetError
from studio.workspace import Workspace, atomic_write

if TYPE_CHECKING:
    from PIL import Image


GRID, LARGE = 256, 1024  # longest side in pixels


def folder(workspace: Workspace) -> Path:
    """Where the copies lie. It is served to the browser, so nothing else is ever put there."""
    place = workspace.cache / "thumbnails"
    place.mkdir(parents=True, exist_ok=True)
    return place


def thumbnail(workspace: Workspace, path: Path, side: int = GRID) -> Path:
    """A copy of `path`, at most `side` pixels wide and high; a grey one when the image went bad or away meanwhile."""
    from studio import datasets

    try:
        return datasets.thumbnail(path, folder(workspace), side)
    except DatasetError:
        grey = folder(workspace) / "missing.webp"
        if not grey.exists():
            from PIL import Image

            keep(grey, Image.new("RGB", (64, 64), (128, 128, 128)))
        return grey


def keep(target: Path, image: "Image.Image") -> None:
    """Write a PIL image as WebP, whole or not at all."""
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=88)
    atomic_write(target, stream.getvalue(), lasting=False)


def cropped(workspace: Workspace, path: Path, box: tuple[float, float, float, float], width: int) -> Path:
    """The thumbnail with all that is outside `box` dimmed. box: in pixels of the image, which is `width` wide."""
    from PIL import Image, ImageDraw

    source = thumbnail(workspace, path)
    key = hashlib.sha256(f"{source.name} {box} {width}".encode()).hexdigest()[:32]
    target = folder(workspace) / f"{key}-crop.webp"
    if not target.exists():
        image = Image.open(source).convert("RGB")
        left, top, right, bottom = (round(edge * image.width / width) for edge in box)
        right, bottom = min(right, image.width), min(bottom, image.height)
        seen = Image.blend(image, Image.new("RGB", image.size, "white"), 0.75)
        seen.paste(image.crop((left, top, right, bottom)), (left, top))
        ImageDraw.Draw(seen).rectangle((left, top, right - 1, bottom - 1), outline="#37827c", width=2)
        keep(target, seen)
    return target
