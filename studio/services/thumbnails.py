"""Small copies of images for the page, kept in the workspace's cache."""

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import DatasetError
from studio.workspace import Workspace, atomic_write

if TYPE_CHECKING:
    from PIL import Image

    from studio.datasets import Item
    from studio.training.augmenting import Augmented


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


def keep_mask(workspace: Workspace, mask: "Image.Image") -> Path:
    """Write a grey PIL image for the browser, without loss, named by its content."""
    stream = io.BytesIO()
    mask.save(stream, "PNG")
    target = folder(workspace) / f"{hashlib.sha256(stream.getvalue()).hexdigest()[:32]}-mask.png"
    if not target.exists():
        atomic_write(target, stream.getvalue(), lasting=False)
    return target


def masked(workspace: Workspace, item: "Item", outside: float = 0.0, side: int = GRID) -> Path:
    """The thumbnail as masked training weighs it: what counts less is darker. outside: `data.outside`."""
    from PIL import Image

    from studio.datasets.masks import as_trained, mask_now, mask_stamp

    source = thumbnail(workspace, item.path, side)
    key = hashlib.sha256(f"{source.name} {mask_stamp(item)} {outside:g}".encode()).hexdigest()[:32]
    target = folder(workspace) / f"{key}-masked.webp"
    if not target.exists():
        with Image.open(source) as image:
            keep(target, as_trained(image.convert("RGB"), mask_now(item), outside))
    return target


def cropped(
    workspace: Workspace,
    path: Path,
    box: tuple[float, float, float, float],
    width: int,
    small: Path | None = None,
) -> Path:
    """The thumbnail with all that is outside `box` pale. box: in pixels of the image, which is `width` wide.

    small: what to take for the thumbnail, such as `masked`.
    """
    from PIL import Image, ImageDraw

    source = small or thumbnail(workspace, path)
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


def augmented(workspace: Workspace, path: Path, variant: "Augmented") -> Path:
    """A small copy of the pixels that a run trains on; the thumbnail when the image went bad meanwhile."""
    from studio.datasets import open_image

    source = thumbnail(workspace, path)
    key = hashlib.sha256(f"{source.name} {variant}".encode()).hexdigest()[:32]
    target = folder(workspace) / f"{key}-variant.webp"
    if not target.exists():
        try:
            image = variant.image(open_image(path, at_least=2 * max(variant.frame.scaled)))
        except DatasetError:
            return source
        image.thumbnail((GRID, GRID))
        keep(target, image)
    return target
