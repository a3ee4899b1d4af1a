"""Texts behind the pixels of a PNG or WebP ("stealth PNG info"), as NovelAI and an extension of A1111 write them.

The lowest bits of the alpha channel, or of red, green and blue in turn, hold column by column: 15 letters that name the
way, 32 bits with the number of bits that follow, and the text, packed by gzip where the letters end in "comp".
"""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from studio.errors import GenerationError
from studio.generation.image_texts import MAX_TEXT

MAX_PIXELS = 40_000_000  # of an image that is decoded for it
_WAYS = {b"stealth_pnginfo": False, b"stealth_pngcomp": True, b"stealth_rgbinfo": False, b"stealth_rgbcomp": True}
_HEAD = 15 * 8 + 32  # bits


def hidden_text(path: Path) -> str:
    """The text; "" where there is none. Raises GenerationError where one begins and can't be read to its end."""
    try:
        with Image.open(path, formats=["PNG", "WEBP"]) as image:
            if image.width * image.height > MAX_PIXELS:
                return ""
            image.load()
            layers = [image.getchannel("A")] if "A" in image.getbands() else []
            layers += [image.convert("RGB")] if image.mode in ("RGB", "RGBA") else []
    except Exception:  # not one of the two formats, or damaged: said where its texts are read
        return ""
    for layer in layers:
        pixels = np.asarray(layer).reshape(layer.height, layer.width, -1)
        found = _read(pixels, Path(path).name, b"stealth_png" if pixels.shape[2] == 1 else b"stealth_rgb")
        if found:
            return found
    return ""


def _read(pixels: np.ndarray, name: str, begins: bytes) -> str:
    """pixels: (height, width, channels), uint8."""
    head = _bits(pixels, _HEAD)
    way = np.packbits(head[:120]).tobytes()
    if way not in _WAYS or not way.startswith(begins) or len(head) < _HEAD:
        return ""
    length = int.from_bytes(np.packbits(head[120:]).tobytes(), "big")
    body = np.packbits(_bits(pixels, _HEAD + min(length, 8 * MAX_TEXT))[_HEAD:]).tobytes()
    damaged = GenerationError(f"The recipe behind the pixels of {name} is damaged: the image was changed since.")
    if length > 8 * MAX_TEXT or len(body) < length // 8:
        raise damaged
    body = body[: length // 8]
    try:
        data = zlib.decompressobj(31).decompress(body, MAX_TEXT) if _WAYS[way] else body
        return data.decode()
    except (zlib.error, UnicodeDecodeError) as error:
        raise damaged from error


def _bits(pixels: np.ndarray, count: int) -> np.ndarray:
    """The first bits, column by column; fewer where the image has no more."""
    height, _, channels = pixels.shape
    columns = -(-count // (height * channels))
    return (pixels[:, :columns].transpose(1, 0, 2).ravel() & 1)[:count]
