"""Which OpenAI-compatible server may be asked for captions: the owner of this machine chooses, by flag or variable."""

import os
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from studio.errors import ConfigError


def caption_server(environ: Mapping[str, str] = os.environ, given: str | None = None) -> dict[str, str]:
    """caption_server and caption_key of `Capabilities`, from STUDIO_CAPTION_SERVER and STUDIO_CAPTION_KEY.

    {} where none is opened. given: wins over the variable. Raises ConfigError.
    """
    address = given or environ.get("STUDIO_CAPTION_SERVER", "")
    if not address.strip():
        return {}
    key = environ.get("STUDIO_CAPTION_KEY", "").strip()
    if not key.isascii() or not key.isprintable() or len(key) > 1000:
        raise ConfigError("STUDIO_CAPTION_KEY must be a key of plain letters, digits and signs in one line.")
    return {"caption_server": checked_address(address), "caption_key": key}


def checked_address(text: str) -> str:
    """http(s)://HOST[:PORT][/PATH] of a server's API, with /v1 where no path is given. Raises ConfigError."""
    text = text.strip().rstrip("/").removesuffix("/chat/completions")
    with suppress(ValueError):  # of a port or an IPv6 address that is none
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
        plain = not (parts.query or parts.fragment or parts.username or parts.password)
        if good and plain and text.isprintable() and " " not in text and len(text) <= 500:
            return text if parts.path else f"{text}/v1"
    raise ConfigError(
        "The caption server must be an address like http://localhost:11434/v1, with no password and no query in it; "
        "its key goes into STUDIO_CAPTION_KEY."
    )
