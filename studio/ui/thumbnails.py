"""Small copies of pictures for the page, kept in the workspace's cache."""

from pathlib import Path

from studio.errors import DatasetError

GRID, LARGE = 256, 1024  # longest side in pixels


def folder(workspace) -> Path:
    """Where the copies lie. It is served to the browser, so nothing else is ever put there."""
    place = workspace.cache / "thumbnails"
    place.mkdir(parents=True, exist_ok=True)
    return place


def thumbnail(workspace, path: Path, side: int = GRID) -> Path:
    """A copy of `path`, at most `side` pixels wide and high; a grey one when the picture went bad or away meanwhile."""
    from studio import datasets

    try:
        return datasets.thumbnail(path, folder(workspace), side)
    except DatasetError:
        grey = folder(workspace) / "missing.webp"
        if not grey.exists():
            from PIL import Image

            Image.new("RGB", (64, 64), (128, 128, 128)).save(grey)
        return grey
