"""Opening a picture from anywhere: checked before it is decoded, upright, RGB."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from studio.errors import DatasetError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"}
MAX_PIXELS = 89_478_485  # Pillow's own line; twice that is its error, this is ours


def open_picture(source: Path | bytes, name: str | None = None) -> Image.Image:
    """The picture as upright RGB; alpha is laid on white, 16 bits become 8. By content, whatever its name.

    Raises DatasetError with `name` (or the file's) and what is wrong, in one line.
    """
    name = name or (source.name if isinstance(source, Path) else "picture")
    try:
        data = source if isinstance(source, bytes) else source.read_bytes()
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DatasetError(_too_big(name, *image.size))
                image.load()
                return _rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{name}: too large to open safely (at most 89 megapixels).") from error
    except UnidentifiedImageError as error:
        raise DatasetError(f"{name}: not a picture.") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: the file is gone.") from error
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError) as error:
        raise DatasetError(f"{name}: broken, it can't be decoded.") from error


def looks_like_picture(path: Path) -> None:
    """Check the header only: cheap enough for each file of a folder. Raises DatasetError like `open_picture`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise DatasetError(_too_big(path.name, *image.size))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DatasetError(f"{path.name}: too large to open safely (at most 89 megapixels).") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"{path.name}: not a picture.") from error


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16B", "I;16L", "I"):
        # Pillow clips 16-bit grey at 255; scaling keeps its tones.
        values = np.asarray(image).astype(np.float32)
        return Image.fromarray((values / (65535 if values.max() > 255 else 255) * 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _too_big(name: str, width: int, height: int) -> str:
    return f"{name}: {width} x {height} is too large to open safely (at most 89 megapixels)."
