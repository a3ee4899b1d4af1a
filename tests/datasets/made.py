"""Images and zips as bytes, good ones and one made to do harm."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

from PIL import Image


def encoded(form: str = "PNG", colour: str = "red") -> bytes:
    """An image of 12 x 8 pixels."""
    stream = io.BytesIO()
    Image.new("RGB", (12, 8), colour).save(stream, form)
    return stream.getvalue()


def zipped(files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


def zip_at(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    path.write_bytes(zipped(files, method))
    return path


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG, its sum being right."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int = 60_000) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
