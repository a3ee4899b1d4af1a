"""Opening an image from anywhere: checked before it is decoded, upright, RGB."""

import io
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, TiffImagePlugin, UnidentifiedImageError, features

from studio.errors import DatasetError, lacking, out_of_memory

with suppress(ImportError):
    from pillow_heif import register_heif_opener

    register_heif_opener()

MOST_CHUNKS = 100_000  # of a PNG; a photo of 89 megapixels has a third of that
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
MAX_WEBP = 62_000_000  # of a WebP: Pillow holds four copies of its pixels while it decodes one
MAX_TAGS = 65_535  # in one directory of a TIFF
MAX_SCANNED = 2_000_000_000  # pixels of all scans of a JPEG together; programs make ten scans or so
BAND = 1 << 20  # pixels that are converted at once
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]", re.DOTALL)  # what begins a part of a JPEG that has a length

# Both once and for the whole process: catch_warnings around each image would race with other threads.
warnings.simplefilter("error", Image.DecompressionBombWarning)
_load_tags = TiffImagePlugin.ImageFileDirectory_v2.load


def _load_tags_that_fit(self: Any, fp: Any) -> None:
    """Tags of a TIFF, or of the EXIF of any image. Values that overlap make gigabytes of a few bytes: Pillow keeps a
    copy for each tag.
    """
    here, big = fp.tell(), self._bigtiff
    entry = struct.Struct(f"{self._endian}{'HHQQ' if big else 'HHLL'}")
    count = int.from_bytes(fp.read(8 if big else 2), "little" if self._endian == "<" else "big")
    entries = fp.read(min(count, MAX_TAGS + 1) * entry.size)
    length = fp.seek(0, io.SEEK_END)
    fp.seek(here)
    complete = entry.iter_unpack(entries[: len(entries) // entry.size * entry.size])
    sizes = [number * self._load_dispatch.get(kind, (0, None))[0] for _, kind, number, _ in complete]
    if count > MAX_TAGS or sum(sizes) > 2 * length + 65536:
        raise ValueError("its tags claim more than the file holds")
    _load_tags(self, fp)


TiffImagePlugin.ImageFileDirectory_v2.load = _load_tags_that_fit  # type: ignore[method-assign]


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
        with _room(image.width * image.height):
            _load(image)
            return _rgb(_upright(image), background)


def open_alpha(path: Path) -> Image.Image | None:
    """The image's alpha channel, upright; None when it has none. Raises DatasetError."""
    with _opened(path, None) as image, _room(image.width * image.height):
        _load(image)
        if not _has_alpha(image):
            return None
        return _upright(image if image.mode in ("RGBA", "LA") else image.convert("RGBA")).getchannel("A")


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
    """Pillow decodes a whole PNG to see whether EXIF follows the pixels; looking through its chunks is 100 x faster.

    Nothing is looked for behind the end that the PNG names, nor behind MOST_CHUNKS.
    """
    if image.format != "PNG" or "exif" in image.info:
        return image.getexif()
    stream = image.fp  # type: ignore[attr-defined]
    here, at, pixels, late = stream.tell(), 8, False, False
    for _ in range(MOST_CHUNKS):
        stream.seek(at)
        head = stream.read(8)
        if late or len(head) < 8 or head[4:] == b"IEND":
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
            most = MAX_WEBP if image.format == "WEBP" else MAX_PIXELS
            if image.width * image.height > most:
                size, limit = f"{image.width} x {image.height}", f"{most // 10**6} megapixels"
                raise DatasetError(f"{name}: {size} is too large to open safely (at most {limit}).")
            yield image
    except DatasetError:
        raise
    except _TooManyScans as error:
        raise DatasetError(f"{name}: its pixels are stored in too many scans to decode it safely.") from error
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
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # damaged EXIF: the pixels are good, only the turn is unknown
        return image
    return image


def _rgb(image: Image.Image, background: str) -> Image.Image:
    """The image as RGB, made a band of rows after the other: what is between takes no memory worth the name."""
    if image.mode in ("I", "F"):  # they carry no range: take the smallest usual one that holds the values
        peak = max(float(np.nan_to_num(np.asarray(band)).max()) for _, band in _bands(image))
        white = next((white for white in (1, 255, 65535) if peak <= white), peak)
    elif image.mode.startswith("I;16"):
        white = 65535
    elif _has_alpha(image):
        white = 0
    else:
        return image.convert("RGB")
    made = Image.new("RGB", image.size)
    for top, band in _bands(image):
        made.paste(_grey(band, white) if white else _on(band, background), (0, top))
    return made


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(its first row, a band of the image) from top to bottom."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _on(band: Image.Image, background: str) -> Image.Image:
    band = band.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", band.size, background), band).convert("RGB")


def _grey(band: Image.Image, white: float) -> Image.Image:
    """Deep grey scaled to 8 bits; Pillow's own conversion clips at 255 and loses the tones."""
    values = np.nan_to_num(np.asarray(band, np.float32)) / white * 255
    return Image.fromarray(values.clip(0, 255).round().astype(np.uint8)).convert("RGB")


# How much at once ---------------------------------------------------------------------------------------------------


class Room:
    """Keeps images that are decoded at the same time within so many pixels together. One always fits."""

    def __init__(self, most: int):
        self.most, self._held, self._freed = most, 0, threading.Condition()

    @contextmanager
    def __call__(self, pixels: int) -> Iterator[None]:
        with self._freed:
            self._freed.wait_for(lambda: not self._held or self._held + pixels <= self.most)
            self._held += pixels
        try:
            yield
        finally:
            with self._freed:
                self._held -= pixels
                self._freed.notify_all()


_room = Room(MAX_PIXELS)


class _TooManyScans(Exception):
    """A JPEG of countless scans: each goes over all pixels, and takes a few bytes."""


def _load(image: Image.Image) -> None:
    """Decode it."""
    if image.format in ("JPEG", "MPO"):
        most = MAX_SCANNED // (image.width * image.height)
        if _scans(image.fp, most) > most:  # type: ignore[attr-defined]
            raise _TooManyScans
    image.load()


def _scans(stream: Any, most: int) -> int:
    """Scans of a JPEG, not counted further than one above `most`; the stream is left where it was."""
    here = stream.tell()
    stream.seek(0)
    data = stream.read()
    stream.seek(here)
    at, count = 2, 0
    while count <= most and (found := _MARKER.search(data, at)):
        kind, at = found.group()[1], found.end()
        if kind == 0xD9:  # what follows is no part of the image
            break
        count += kind == 0xDA
        at += int.from_bytes(data[at : at + 2], "big")
    return count
