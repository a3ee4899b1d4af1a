"""Opening a picture from anywhere: checked before it is decoded, upright, RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from studio.errors import DatasetError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
ORIENTATION = 0x0112  # EXIF
MAX_PIXELS = 89_478_485  # Pillow warns here and refuses at twice that; we refuse here

# Once and for the whole process: catch_warnings around each picture would race with other threads.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_picture(source: Path | bytes, name: str | None = None, at_least: int = 0) -> Image.Image:
    """The picture as upright RGB; alpha is laid on white, 16 bits become 8. By content, whatever its name.

    at_least: a side in pixels; a JPEG whose sides are both twice as long may come smaller, which is several times
    faster (its decoder leaves out the finest frequencies). 0: always whole.

    Raises DatasetError with `name` (or the file's) and what is wrong, in one line.
    """
    with _opened(source, name) as image:
        if at_least and image.format == "JPEG":
            image.draft("RGB", (at_least, at_least))
        image.load()
        return _rgb(_upright(image))


def open_alpha(path: Path) -> Image.Image | None:
    """The picture's alpha channel, upright; None when it has none. Raises DatasetError."""
    with _opened(path, None) as image:
        image.load()
        if image.mode not in ("RGBA", "LA", "PA") and "transparency" not in image.info:
            return None
        return _upright(image).convert("RGBA").getchannel("A")


def size_of(path: Path) -> tuple[int, int]:
    """(width, height) as it will be seen, turned by its EXIF; from the header alone. Raises DatasetError."""
    with _opened(path, None) as image:
        try:
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # damaged EXIF
            turned = False
        return (image.height, image.width) if turned else image.size


def format_of(source: Path | bytes, name: str | None = None) -> str:
    """One of FORMATS, from the header alone: cheap enough for each file of a folder. Raises like `open_picture`."""
    with _opened(source, name) as image:
        return image.format or ""


@contextmanager
def _opened(source: Path | bytes, name: str | None) -> Iterator[Image.Image]:
    """The picture before it is decoded, its size checked; whatever goes wrong meanwhile is a DatasetError."""
    name = name or (source.name if isinstance(source, Path) else "picture")
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                size = f"{image.width} x {image.height}"
                raise DatasetError(f"{name}: {size} is too large to open safely (at most 89 megapixels).")
            yield image
    except DatasetError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{name}: too large to open safely (at most 89 megapixels).") from error
    except UnidentifiedImageError as error:
        raise DatasetError(f"{name}: not a picture.") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: the file is gone.") from error
    except PermissionError as error:
        raise DatasetError(f"{name}: it may not be read, check its permissions.") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything, TypeError included
        raise DatasetError(f"{name}: broken, it can't be decoded.") from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF: the pixels are good, only the turn is unknown
        return image


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(image, 65535)
    if image.mode in ("I", "F"):  # they carry no range: take the smallest usual one that holds the values
        peak = float(np.nan_to_num(np.asarray(image)).max())
        return _grey(image, next((white for white in (1, 255, 65535) if peak <= white), peak))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, white: float) -> Image.Image:
    """Deep grey scaled to 8 bits; Pillow's own conversion clips at 255 and loses the tones."""
    values = np.nan_to_num(np.asarray(image, np.float32)) / white * 255
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
