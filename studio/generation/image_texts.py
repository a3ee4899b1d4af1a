"""The texts that PNG, JPEG and WebP files carry beside their pixels, which are decoded only to look behind them."""

import html
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from studio.errors import GenerationError

MAX_TEXT = 2_000_000  # characters of one text
_USER_COMMENT, _DESCRIPTION, _SOFTWARE = 0x9286, 0x010E, 0x0131
_MAKE, _MODEL, _MAKER_NOTE = 0x010F, 0x0110, 0x927C


def image_texts(path: Path) -> dict[str, str]:
    """{key: text}; keys are those of PNG's text chunks.

    EXIF's come under the key that a PNG of the same program has: UserComment and older SwarmUI's Model as "parameters",
    ComfyUI's "prompt:{…}" and "workflow:{…}" as those, Fooocus' MakerNote as "fooocus_scheme". Raises GenerationError.
    """
    try:
        with Image.open(path, formats=["PNG", "JPEG", "WEBP"]) as image:
            found = {key: text for key, text in image.info.items() if isinstance(key, str) and isinstance(text, str)}
            if image.format == "PNG" and not found:  # they may also follow the pixels
                image.load()
                found = {key: str(text) for key, text in image.text.items()}  # type: ignore[attr-defined]
            if isinstance(image.info.get("comment"), bytes):
                found.setdefault("Comment", image.info["comment"].decode("utf-8", "ignore"))
            for key, text in _exif_texts(image).items():
                found.setdefault(key, text)
            if "parameters" not in found and (comment := _xmp_comment(image.info.get("xmp"))):
                found["parameters"] = comment
    except Exception as error:  # on damaged files Pillow raises nearly anything
        name = Path(path).name
        raise GenerationError(f"{name} can't be read as an image with a recipe: drop a PNG, JPEG or WebP.") from error
    return {key: text[:MAX_TEXT].encode("utf-8", "ignore").decode() for key, text in found.items()}


def _exif_texts(image: Image.Image) -> dict[str, str]:
    exif = image.getexif()
    inner = exif.get_ifd(ExifTags.IFD.Exif)
    found: dict[str, str] = {}
    for value in (exif.get(_MAKE), exif.get(_MODEL), exif.get(_DESCRIPTION)):
        text = _decoded(value)
        for key in ("prompt", "workflow"):
            if text.lower().startswith(f"{key}:"):
                found[key] = text[len(key) + 1 :].strip()
    for value in (inner.get(_USER_COMMENT), exif.get(_USER_COMMENT), exif.get(_MODEL), exif.get(_DESCRIPTION)):
        text = _decoded(value)
        if "Steps:" in text or text.lstrip().startswith("{"):
            found.setdefault("parameters", text)
    for key, value in (("fooocus_scheme", exif.get(_MAKER_NOTE)), ("Software", exif.get(_SOFTWARE))):
        if text := _decoded(value):
            found[key] = text
    return found


def _xmp_comment(xmp: Any) -> str:
    """The JSON in XMP's exif:UserComment, where Draw Things writes it; "" where there is none."""
    text = xmp[:MAX_TEXT].decode("utf-8", "ignore") if isinstance(xmp, bytes) else ""
    _, _, comment = text.partition("<exif:UserComment>")
    comment, closed, _ = comment.partition("</exif:UserComment>")
    first, last = comment.find("{"), comment.rfind("}")
    return html.unescape(comment[first : last + 1]) if closed and first >= 0 else ""


def _decoded(value: Any) -> str:
    """An EXIF text: UserComment begins with eight bytes that name its encoding; of UTF-16 not the order of bytes."""
    if isinstance(value, str):
        return value.strip("\0")
    if not isinstance(value, bytes):
        return ""
    head, body = value[:8], value[8:]
    if head == b"UNICODE\0":
        little = body[1::2].count(0) > body[::2].count(0) or body.startswith(b"\xff\xfe")
        return body.decode("utf-16-le" if little else "utf-16-be", "ignore").strip("\ufeff\0")
    if head in (b"ASCII\0\0\0", b"\0" * 8):
        return body.decode("utf-8", "ignore").strip("\0")
    return value.decode("utf-8", "ignore").strip("\0")
