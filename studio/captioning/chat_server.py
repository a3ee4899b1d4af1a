"""A vision-language model behind an OpenAI-compatible server: Ollama, LM Studio, vLLM, llama.cpp and their like.

POST {server}/chat/completions with one image as a data URI, as OpenAI's reference describes it. Which server is asked
is set by the owner of the studio (`--caption-server`, STUDIO_CAPTION_SERVER), never by a captioner's settings: a
stranger who could type an address would have this machine fetch it.
"""

import base64
import io
import json
import re
import threading
import time
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator

from studio.captioning.chat import ChatSettings, shrunk, tidy
from studio.captioning.generators import NoCaption, Stopped
from studio.errors import BaseModelError, ConfigError
from studio.workspace import is_valid_unicode

MOST_BYTES = 1_000_000  # of an answer
MOST_CHARACTERS = 4000  # of a caption
FAILURES = 3  # one after another end it: the server has a problem, not the images
NO_SERVER = (
    "No caption server is set: the owner starts the studio with --caption-server URL, as in "
    "http://localhost:11434/v1 for Ollama, or sets STUDIO_CAPTION_SERVER."
)
_HOME = ("127.0.0.1", "localhost", "::1")
_PROMPT = ChatSettings.model_fields["prompt"].default


class ServerSettings(BaseModel):
    """The address and its key are no settings: `at` sets them, from what the owner of the studio chose."""

    model_config = ConfigDict(extra="forbid")

    model: str = Field("", max_length=200, description="The server's name of the model; empty: its only one")
    prompt: str = Field(_PROMPT, min_length=1, max_length=4000, description="What it is asked about each image")
    system: str = Field("", max_length=4000, description="The system prompt; empty: none")
    temperature: float = Field(0.6, ge=0, le=2, description="How freely it chooses words; 0: always the likeliest")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="Sent along; most servers then repeat themselves")
    max_tokens: int = Field(256, ge=4, le=4096, description="Longest answer, in tokens; a word is about 1.3 of them")
    max_side: int = Field(1024, ge=64, le=4096, description="Larger images are shrunk to this before they are sent")
    batch_size: int = Field(1, ge=1, le=16, description="Images asked about at once; for servers such as vLLM")
    timeout: int = Field(120, ge=1, le=3600, description="Seconds until an image without an answer is given up")

    @field_validator("model", "prompt", "system")
    @classmethod
    def _whole_characters(cls, text: str) -> str:
        if not is_valid_unicode(text):
            raise ValueError("holds half a character")
        return text

    _address: str = PrivateAttr("")
    _key: str = PrivateAttr("")

    def at(self, address: str = "", key: str = "") -> Self:
        """The same, for this server. address: as `server.caption_server` answers it; key: of its API, or empty."""
        made = self.model_copy()
        made._address, made._key = address, key
        return made

    @property
    def address(self) -> str:
        return self._address

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key}"} if self._key else {}


class ServerCaptioner:
    """Asks the server about each image. A single image's failure is its own; three in a row end it."""

    def __init__(self, folder: Path, settings: ServerSettings):
        import httpx

        if not settings.address:
            raise ConfigError(NO_SERVER)
        self.settings, self.side, self.batch_size = settings, settings.max_side, settings.batch_size
        self.host = urlsplit(settings.address).netloc
        self.stop: threading.Event | None = None
        self._failed = 0
        at_home = urlsplit(settings.address).hostname in _HOME  # a proxy of the environment can't reach it
        self.client = httpx.Client(headers=settings.headers, follow_redirects=False, trust_env=not at_home)
        try:
            self.model = self._model()
        except BaseException:
            self.close()
            raise

    def caption(self, images: Sequence[Image.Image]) -> list[Any]:
        """A line for each image; in its place the exception of an image that failed. Raises Stopped, BaseModelError."""
        asked = [_in_background(self._ask, image) for image in images]
        return [self._answer(future) for future in asked]

    def close(self) -> None:
        self.client.close()

    def _model(self) -> str:
        """The model to ask: the one of the settings, or the only one that the server lists. Raises BaseModelError."""
        wanted = self.settings.model.strip()
        try:
            status, body = self._send("GET", "models", None, seconds=min(10, self.settings.timeout))
        except NoCaption as error:
            raise BaseModelError(f"The caption server {self.host} can't be used: {error}.") from error
        listed = body.get("data") if status == 200 else None
        listed = listed if isinstance(listed, list) else []
        names = [str(one["id"]) for one in listed if isinstance(one, dict) and one.get("id")]
        if status in (401, 403):
            raise BaseModelError(_refused(self.host, status, body))
        if wanted:
            if names and wanted not in names and f"{wanted}:latest" not in names:  # Ollama's tag
                raise BaseModelError(f"The caption server {self.host} has no model {wanted!r}: it has {_few(names)}.")
            return wanted
        if len(names) == 1:
            return names[0]
        has = f"it has {_few(names)}" if names else "it lists none"
        raise BaseModelError(f"Name the model that the caption server {self.host} shall use: {has}.")

    def _ask(self, image: Image.Image) -> str:
        settings = self.settings
        parts = [
            {"type": "text", "text": settings.prompt},
            {"type": "image_url", "image_url": {"url": data_uri(image, settings.max_side)}},
        ]
        system = [{"role": "system", "content": settings.system}] if settings.system else []
        status, body = self._send(
            "POST",
            "chat/completions",
            {
                "model": self.model,
                "messages": [*system, {"role": "user", "content": parts}],
                "temperature": settings.temperature,
                "max_tokens": settings.max_tokens,
                "seed": settings.seed,
                "stream": False,
            },
            settings.timeout,
        )
        if status in (401, 403, 404):
            raise BaseModelError(_refused(self.host, status, body))
        if status != 200:
            raise NoCaption(f"the server answered {status}{_why(body)}")
        return caption_of(body)

    def _send(self, method: str, path: str, content: Any, seconds: int) -> tuple[int, dict[str, Any]]:
        """(status, answer). Raises BaseModelError where there is no server, NoCaption for one that does not answer."""
        import httpx

        timeout, url = httpx.Timeout(seconds, connect=min(10, seconds)), f"{self.settings.address}/{path}"
        end = time.monotonic() + seconds
        try:
            with self.client.stream(method, url, json=content, timeout=timeout) as answer:
                data = bytearray()
                for piece in answer.iter_bytes():
                    data += piece
                    if time.monotonic() > end:
                        raise httpx.ReadTimeout("it trickles")
                    if len(data) > MOST_BYTES:
                        raise NoCaption(f"the server's answer is longer than {MOST_BYTES // 10**6} MB")
                return answer.status_code, _table(bytes(data))
        except httpx.ConnectError as error:
            raise BaseModelError(
                f"No caption server answers at {self.host}: start it, or correct its address."
            ) from error
        except httpx.TimeoutException as error:
            raise NoCaption(f"no answer within {seconds} s") from error
        except (httpx.HTTPError, httpx.StreamError, RuntimeError) as error:  # RuntimeError: the client was closed
            raise NoCaption(f"the connection broke ({type(error).__name__})") from error

    def _answer(self, future: "Future[str]") -> Any:
        """Its text, or the exception of one image. Raises Stopped, and BaseModelError for what all would meet."""
        while True:
            if self.stop is not None and self.stop.is_set():
                raise Stopped
            try:
                text = future.result(0.1)
            except TimeoutError:
                continue
            except NoCaption as error:
                self._failed += 1
                if self._failed >= FAILURES:
                    line = f"The caption server {self.host} failed {FAILURES} times in a row, at last: {error}."
                    raise BaseModelError(line) from error
                return error
            self._failed = 0
            return text


def _in_background(ask: Callable[[Image.Image], str], image: Image.Image) -> "Future[str]":
    """Its answer later, from a thread that does not keep the program from ending."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(ask(image))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="caption-server", daemon=True).start()
    return future


def caption_of(answer: Any) -> str:
    """The caption in an answer of chat/completions: one line without control characters, of a length that a caption may
    have. Raises NoCaption for an answer that is none.
    """
    choices = answer.get("choices") if isinstance(answer, dict) else None
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    message = first.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):  # in parts, as some servers send it
        content = "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    if not isinstance(content, str):
        raise NoCaption("the server's answer holds no text")
    text = tidy(_printable(content[:100_000]), cut=first.get("finish_reason") == "length")
    if len(text) <= MOST_CHARACTERS:
        return text
    return tidy(text[:MOST_CHARACTERS] + " ", cut=True)[:MOST_CHARACTERS]


def data_uri(image: Image.Image, side: int) -> str:
    """The image as data:image/jpeg;base64,… with no side above `side` pixels."""
    stream = io.BytesIO()
    shrunk(image.convert("RGB"), side).save(stream, "JPEG", quality=92)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


def _printable(text: str) -> str:
    """A space for each control character and each mark that turns the writing round."""
    return "".join(" " if unicodedata.category(one) in ("Cc", "Co") or one in _TURNS else one for one in text)


_TURNS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"


def _table(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _why(body: dict[str, Any]) -> str:
    """What the server says of an error, short, as ": …"; "" when it says nothing."""
    error = body.get("error")
    said = error.get("message") if isinstance(error, dict) else error
    if not isinstance(said, str) or not said.strip():
        return ""
    return ": " + " ".join(_printable(said[:1000]).split())[:160].rstrip(".")


def _refused(host: str, status: int, body: dict[str, Any]) -> str:
    if status == 404:
        return f"The caption server {host} knows no such model or address (404{_why(body)}): correct one of them."
    return f"The caption server {host} refused the request ({status}{_why(body)}): set its key in STUDIO_CAPTION_KEY."


def _few(names: Sequence[str]) -> str:
    shown = [re.sub(r"[^\w./:@+-]", "", name)[:60] for name in names[:6]]
    return ", ".join(shown) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
