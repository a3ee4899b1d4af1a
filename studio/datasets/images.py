"""Opening an image from anywhere: checked before it is decoded, upright, RGB."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from studio.errors import DatasetError, lacking, out_of_memory

with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()

_PILLOWS_OWN = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
_HAVE_AVIF, _HAVE_HEIF = features.check("avif"), "HEIF" in Image.OPEN
FORMATS = _PILLOWS_OWN + ("AVIF",) * bool(_HAVE_AVIF) + ("HEIF",) * _HAVE_HEIF
_REGISTERED = Image.registered_extensions()
# HEIC and AVIF also where they can't be opened here: what is missing is then reported of each file.
SUFFIXES = frozenset({suffix for suffix, form in _REGISTERED.items() if form in (*FORMATS, "MPO")}) | {
    ".avif",
    ".avifs",
    ".heic",
    ".heif",
    ".hif",
}
# Images and videos that are not opened: Pillow's other formats, cameras' raw files, drawings.
OTHER_SUFFIXES = (
    (
        frozenset(_REGISTERED)
        | {
            ".svg",
            ".jxl",
            ".psd",
            ".xcf",
            ".kra",
            ".exr",
            ".hdr",
            ".ai",
            ".cdr",
            ".raw",
            ".dng",
            ".cr2",
            ".cr3",
            ".nef",
            ".arw",
            ".raf",
            ".orf",
            ".rw2",
            ".pef",
            ".srw",
            ".mp4",
            ".m4v",
            ".mov",
            ".avi",
            ".mkv",
            ".webm",
        }
    )
    - SUFFIXES
    - {".pdf", ".ps", ".eps", ".h5", ".hdf", ".bin"}
)
ORIENTATION = 0x0112  # EXIF
MAX_PIXELS = 89_478_485  # Pillow warns here and refuses at twice that; we refuse here

# Once and for the whole process: catch_warnings around each image would race with other threads.
warnings.simplefilter("error", Image.DecompressionBombWarning)


def open_image(
    source: Path | bytes, name: str | None = None, at_least: int = 0, background: str = "white"
) -> Image.Image:
    """The image as upright RGB; alpha is laid on `background`, 16 bits become 8. By content, whatever its name.

    at_least: a side in pixels; a JPEG whose sides are both twice as long may come smaller, which is several times
    faster (its decoder leaves out the finest frequencies). 0: always whole.

    Raises DatasetError with `name` (or the file's) and what is wrong, in one line.
    """
    with _opened(source, name) as image:
        if at_least and image.format == "JPEG":
            image.draft("RGB", (at_least, at_least))
        image.load()
        return _rgb(_upright(image), background)


def open_alpha(path: Path) -> Image.Image | None:
    """The image's alpha channel, upright; None when it has none. Raises DatasetError."""
    with _opened(path, None) as image:
        image.load()
        return _upright(image).convert("RGBA").getchannel("A") if _has_alpha(image) else None


def has_alpha(path: Path) -> bool:
    """Whether the image has an alpha channel or a transparent colour. Raises DatasetError."""
    with _opened(path, None) as image:
        return _has_alpha(image)


class Header(NamedTuple):
    """Of an image, without its pixels: its size as it will be seen, and whether it is one of several (an animation, or
    the pages of a TIFF), of which the first is used.
    """

    width: int
    height: int
    several: bool


def size_of(source: Path | bytes, name: str | None = None) -> tuple[int, int]:
    """(width, height) as it will be seen, turned by its EXIF; from the header alone. Raises DatasetError."""
    return read_header(source, name)[:2]


def read_header(source: Path | bytes, name: str | None = None) -> Header:
    """What is known without decoding the image. Raises DatasetError."""
    with _opened(source, name) as image:
        width, height = image.size
        try:  # of a TIFF, Pillow has turned its size already, and will turn its pixels
            turned = image.format != "TIFF" and _header_exif(image).get(ORIENTATION, 1) in (5, 6, 7, 8)
        except Exception:  # damaged EXIF
            turned = False
        try:  # in an MPO, a phone's second image is the first one's depth or its small copy
            several = image.format != "MPO" and bool(getattr(image, "is_animated", False))
        except Exception:  # damaged behind the first frame
            several = True
        return Header(height, width, several) if turned else Header(width, height, several)


def _header_exif(image: Image.Image) -> Image.Exif:
    """Pillow decodes a whole PNG to see whether EXIF follows the pixels; looking through its chunks is 100 x faster."""
    if image.format != "PNG" or "exif" in image.info:
        return image.getexif()
    stream = image.fp  # type: ignore[attr-defined]
    here, at, pixels, late = stream.tell(), 8, False, False
    while not late:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            break
        kind = head[4:]
        pixels |= kind == b"IDAT"
        late = pixels and kind in (b"eXIf", b"iTXt", b"tEXt", b"zTXt")
        at += 12 + int.from_bytes(head[:4], "big")
    stream.seek(here)
    return image.getexif() if late else Image.Image.getexif(image)


def format_of(source: Path | bytes, name: str | None = None) -> str:
    """One of FORMATS, from the header alone: cheap enough for each file of a folder. Raises like `open_image`."""
    with _opened(source, name) as image:
        return image.format or ""


@contextmanager
def _opened(source: Path | bytes, name: str | None) -> Iterator[Image.Image]:
    """The image before it is decoded, its size checked; whatever goes wrong meanwhile is a DatasetError."""
    name = name or (source.name if isinstance(source, Path) else "image")
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
        raise DatasetError(f"{name}: {_why_unknown(source)}.") from error
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: the file is gone.") from error
    except PermissionError as error:
        raise DatasetError(f"{name}: it may not be read, check its permissions.") from error
    except Exception as error:  # on damaged files Pillow's decoders raise nearly anything, TypeError included
        if out_of_memory(error):
            raise DatasetError(f"{name}: there is not enough memory to open it.") from error
        if lacking(error):
            raise
        raise DatasetError(f"{name}: broken, it can't be decoded.") from error


def _why_unknown(source: Path | bytes) -> str:
    """What keeps Pillow from knowing the format: mostly that it is none, else what to install for it."""
    head = b""
    with suppress(OSError):
        if isinstance(source, bytes):
            head = source[:12]
        else:
            with open(source, "rb") as stream:
                head = stream.read(12)
    if head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis") and not _HAVE_AVIF:
        return "AVIF, which this Pillow can't read, install a newer one"
    if head[4:8] == b"ftyp" and head[8:11] in (b"hei", b"hev", b"mif", b"msf") and not _HAVE_HEIF:
        return "HEIC, which needs one more package (pip install pillow-heif)"
    return "not an image"


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF: the pixels are good, only the turn is unknown
        return image


def _rgb(image: Image.Image, background: str) -> Image.Image:
    if image.mode.startswith("I;16"):
        return _grey(image, 65535)
    if image.mode in ("I", "F"):  # they carry no range: take the smallest usual one that holds the values
        peak = float(np.nan_to_num(np.asarray(image)).max())
        return _grey(image, next((white for white in (1, 255, 65535) if peak <= white), peak))
    if _has_alpha(image):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    return image.convert("RGB")


def _grey(image: Image.Image, white: float) -> Image.Image:
    """Deep grey scaled to 8 bits; Pillow's own conversion clips at 255 and loses the tones."""
    values = np.nan_to_num(np.asarray(image, np.float32)) / white * 255
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")
