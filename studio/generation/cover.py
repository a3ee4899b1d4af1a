"""The small image that an adapter file carries of itself, as ModelSpec has it: a JPEG as a data URI."""

import base64
import binascii
import io
from collections.abc import Mapping

from PIL import Image

from studio.datasets.images import format_of, open_image, size_of
from studio.errors import DatasetError

KEY = "modelspec.thumbnail"
MAX_SIZE = 256  # pixels, as ModelSpec asks for
_LONGEST = 4_000_000  # characters of one that is read
_MOST = 4096 * 4096  # pixels of it
_FORMATS = ("JPEG", "PNG", "WEBP")


def cover_text(image: Image.Image) -> str:
    """What to write under KEY."""
    small, stream = image.convert("RGB"), io.BytesIO()
    small.thumbnail((MAX_SIZE, MAX_SIZE))
    small.save(stream, "JPEG", quality=88)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def read_cover(metadata: Mapping[str, str]) -> Image.Image | None:
    """The image under KEY, at most MAX_SIZE pixels wide and high; None where there is none that can be trusted.

    It comes from strangers: its length, format and size are looked at before a pixel of it is decoded.
    """
    text = metadata.get(KEY, "")
    head, comma, body = text[:_LONGEST].partition(",")
    if not comma or len(text) > _LONGEST or not head.startswith("data:image/") or not head.endswith(";base64"):
        return None
    try:
        data = base64.b64decode(body, validate=True)
        width, height = size_of(data)
        if format_of(data) not in _FORMATS or width * height > _MOST:
            return None
        image = open_image(data, at_least=MAX_SIZE)
    except (binascii.Error, ValueError, DatasetError):
        return None
    image.thumbnail((MAX_SIZE, MAX_SIZE))
    return image
