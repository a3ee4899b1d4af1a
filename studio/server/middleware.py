"""What stands before the page: which names it answers to, who may write to it, and whose files are whose.

Gradio itself answers any name (which DNS rebinding needs), takes uploads from any other site's pages, fetches addresses
that are asked for as files, and gives any file that it serves to everyone.
"""

import asyncio
import ipaddress
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse

from studio.server.permissions import MB, Capabilities
from studio.server.sessions import Sessions, named_in_address, named_in_body
from studio.server.uploads import Uploads
from studio.server.visitors import ADDRESS, LIFE, SCOPE, WITHOUT_COOKIE, name_of
from studio.workspace import SERVED, SHOWN_ASSETS, is_valid_unicode

COOKIE = "studio_visitor"
MOST_BODY = 2 * MB  # of an event; files come by UPLOAD
MOST_FORM = 10_000  # bytes of a login
MOST_NODES = 100_000  # values in one event; parsing more would keep everyone waiting
STALL, SLOWEST = 30, 120  # seconds without a byte of an event, and until all of it must be here
MOST_BODIES = 60  # events of one address that are being sent, where visitors are strangers
MOST_NAME = 100  # characters of a name that a page gives itself or an upload
NODE = 50  # bytes that each takes in memory, about
WEIGHT = "studio.weight"  # what a request's scope says of its size, for turns.py
# Whole paths: the last word of others is anyone's to choose.
UPLOAD, PROGRESS, LOGIN = "/gradio_api/upload", "/gradio_api/upload_progress", ("/login", "/login/")
LOGOUT = ("/logout", "/logout/")
_SECRET = re.compile(r"[A-Za-z0-9_-]{32,64}")
_FILE = re.compile(r"/file[=/](.*)", re.DOTALL)
_OUTSIDE = re.compile(r"\s*[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_CLOSED = ("/gradio_api/deep_link", "/gradio_api/proxy=", "/monitoring", "/gradio_api/vibe")  # nothing here needs them
# The page's own files, and nothing from elsewhere. Gradio makes functions of text for the scripts in its HTML parts.
_POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; object-src 'none'"


class Guard:
    """ASGI middleware.

    local: names of this machine, and the address that is listened on. addresses: whether any IP address is one too.
    names: what the page is called elsewhere, by a proxy or a share link; may grow.
    uploads: where Gradio keeps what was sent. visitors: the folder of all visitors, in public mode. served: the folders
    of the workspace that a browser may read, where it is one person's.
    embedded: on a Space, in a frame of another site, behind a proxy that speaks https.
    """

    def __init__(
        self,
        app: Any,
        local: Collection[str],
        names: Collection[str],
        addresses: bool,
        uploads: Path,
        allows: Capabilities,
        visitors: Path | None = None,
        embedded: bool = False,
        served: Collection[Path] = (),
    ):
        self.app, self.local, self.names, self.addresses, self.allows = app, local, names, addresses, allows
        self.uploads, self.visitors = Path(os.path.realpath(uploads)), visitors
        self.sent = Uploads(self.uploads, allows)
        self.embedded, self.served = embedded, [Path(os.path.realpath(folder)) for folder in served]
        self._sessions = Sessions()
        self._sending = Counter[str]()  # events that are being sent, by address

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, path = Headers(scope=scope), scope["path"]
        scope[ADDRESS] = address_of(scope, headers, self.embedded)
        writes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        refused = self._refuse_stranger(headers, writes) or self._refuse_place(path)
        refused = refused or (_refuse_sign_out(headers) if path in LOGOUT else None)
        refused = refused or self._refuse_length(headers, path, writes)
        visitor = fresh = ""
        if self.visitors and not refused:
            secret = _secret(headers)
            fresh = secret or secrets.token_urlsafe(32)
            visitor = scope[SCOPE] = name_of(secret) if secret else ""
            refused = self._refuse_session(named_in_address(path, scope.get("query_string", b"")), visitor)
        refused = refused or self._refuse_file(path, visitor)
        if not refused and path in (UPLOAD, PROGRESS):
            return await self._upload(scope, receive, send, visitor)
        if writes and not refused and path not in LOGIN:
            body = await self._body(receive, scope[ADDRESS])
            if isinstance(body, tuple):
                return await PlainTextResponse(body[1], body[0])(scope, receive, send)
            nodes = body.count(b",") + body.count(b"[") + body.count(b"{")
            scope[WEIGHT] = len(body) + NODE * nodes
            if nodes > MOST_NODES:
                refused = 413, "That is too much at once."
            else:
                refused = await run_sync(self._refuse_named, body, visitor)
            receive = _again(body, receive)
        if refused:
            status, text = refused
            return await PlainTextResponse(text, status)(scope, receive, send)
        page, answer = path in ("/", "/config", "/config/"), bytearray()

        async def passed(message) -> None:
            if message["type"] == "http.response.start":
                given = self._labelled(message)
                if self.visitors and page:
                    given.append("Set-Cookie", self._cookie(fresh))
            elif self.visitors and writes and len(answer) < MB:
                answer.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._remember(bytes(answer), visitor)
            await send(message)

        await self.app(scope, receive, passed)

    def _labelled(self, message) -> MutableHeaders:
        """The headers of an answer that begins, with those that every answer has."""
        given = MutableHeaders(scope=message)
        given["X-Content-Type-Options"] = "nosniff"
        given["Referrer-Policy"] = "same-origin"
        given["Cross-Origin-Resource-Policy"] = "cross-origin" if self.embedded else "same-origin"
        if not self.embedded and given.get("content-type", "").startswith("text/html"):
            given["Content-Security-Policy"] = _POLICY
        return given

    async def _body(self, receive, address: str) -> bytes | tuple[int, str]:
        """What is sent; or the status and the sentence that refuse it."""
        if self.visitors and self._sending[address] >= MOST_BODIES:
            return 429, "Too much is being sent at once: wait for its answers first."
        self._sending[address] += 1
        try:
            return await asyncio.wait_for(_whole(receive), SLOWEST)
        except TimeoutError:
            return 408, "That came too slowly: send it again."
        finally:
            self._sending[address] -= 1
            if not self._sending[address]:
                del self._sending[address]

    async def _upload(self, scope, receive, send, visitor: str) -> None:
        """Let files in, or tell how far they are, under a name of the sender's choice."""
        headers, names = Headers(scope=scope), QueryParams(scope["query_string"]).getlist("upload_id")
        if any(len(name) > MOST_NAME for name in names):
            return await PlainTextResponse("That name is too long.", 400)(scope, receive, send)
        if scope["path"] == PROGRESS or scope["method"] != "POST":
            return await self.app(scope, receive, send)
        sending = await self.sent.begin(visitor, scope[ADDRESS], int(headers.get("content-length") or 0))
        if isinstance(sending, tuple):
            return await PlainTextResponse(sending[1], sending[0])(scope, receive, send)
        answer, began = bytearray(), False

        async def passed(message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                self._labelled(message)
            else:
                answer.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self.sent.remember(sending, _stored(bytes(answer)))
            await send(message)

        try:
            await self.app(scope, self.sent.counted(sending, receive), passed)
        except ClientDisconnect:
            if not began:
                await PlainTextResponse("The file came too slowly: send it again.", 408)(scope, receive, send)
        finally:
            self.sent.end(sending)

    # Strangers --------------------------------------------------------------------------------------------------

    def _refuse_stranger(self, headers: Headers, writes: bool) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._knows(_name(host)):
            return 421, "The studio is not called by this name: open it by its own address, or add it to STUDIO_HOSTS."
        origin = headers.get("origin")
        own = origin is None or urlsplit(origin).netloc.lower() == host.lower() or _name_of(origin) in self.names
        if not own or (writes and origin is None and headers.get("sec-fetch-site") == "cross-site"):
            return 403, "Pages of other sites can't use the studio: open it by its own address."
        return None

    def _knows(self, name: str) -> bool:
        if name in self.local or name in self.names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return self.embedded and name.endswith(".hf.space")
        return self.addresses  # a name can be made to point here, an address can't

    # Places and sizes -------------------------------------------------------------------------------------------

    def _refuse_place(self, path: str) -> tuple[int, str] | None:
        asked = _FILE.search(path)
        if path.startswith(_CLOSED) or (asked and _OUTSIDE.match(asked.group(1))):
            return 403, "That is not served here."
        return None

    def _refuse_length(self, headers: Headers, path: str, writes: bool) -> tuple[int, str] | None:
        length = headers.get("content-length", "")
        if not writes:
            return None
        if not length.isdigit():
            return (411, "The length of what is sent must be said first.") if "transfer-encoding" in headers else None
        most = MOST_FORM if path in LOGIN else MOST_BODY
        return (413, "That is too much at once.") if path != UPLOAD and int(length) > most else None

    # Visitors ---------------------------------------------------------------------------------------------------

    def _refuse_file(self, path: str, visitor: str) -> tuple[int, str] | None:
        asked = _FILE.search(path)
        if asked and not self._owns(asked.group(1), visitor):
            return 403, "That file is not yours, or is no longer there."
        return None

    def _refuse_named(self, body: bytes, visitor: str) -> tuple[int, str] | None:
        """An event may name no address to be fetched from, and in public mode only files of whoever sends it."""
        try:
            data = json.loads(body) if body else None
            whole = b"\\ud" not in body.lower() or is_valid_unicode(json.dumps(data, ensure_ascii=False))
        except (ValueError, RecursionError):
            return (400, "That is not JSON.") if self.visitors else None
        if isinstance(data, dict) and len(str(data.get("session_hash") or "")) > MOST_NAME:
            return 400, "That name is too long."
        if not whole:
            return 400, "That text holds half a character, which nothing can write: type it once more."
        if self.visitors and (refused := self._refuse_session(named_in_body(data), visitor)):
            return refused
        for path in _paths(data):
            if _OUTSIDE.match(path) or (self.visitors and not self._owns(path, visitor)):
                return 403, "That file is not yours, or is no longer there."
        return None

    def _refuse_session(self, named: list[str], visitor: str) -> tuple[int, str] | None:
        if any(len(session) > MOST_NAME for session in named):
            return 400, "That name is too long."
        if all([self._sessions.belongs(session, visitor) for session in named]):
            return None
        return 403, "This page belongs to another visit: open it anew."

    def _owns(self, asked: str, visitor: str) -> bool:
        """Whether the file may be read by `visitor`. Folders of those without cookies open to who knows their name."""
        try:
            path = Path(os.path.realpath(asked))  # a link counts as what it leads to
        except (OSError, ValueError):
            return False
        if not self.visitors:
            return any(path.is_relative_to(one) for one in (*self.served, self.uploads, *SHOWN_ASSETS))
        if self.visitors in path.parents:
            name, *inside = path.relative_to(self.visitors).parts
            served = "/".join(inside[:-1])
            shown = any(served == one or served.startswith(f"{one}/") for one in SERVED)
            return shown and (name == visitor or name.startswith(WITHOUT_COOKIE))
        if path.is_relative_to(self.uploads):
            return self.sent.is_from(str(path), visitor)
        return any(path.is_relative_to(one) for one in SHOWN_ASSETS)

    def _remember(self, answer: bytes, visitor: str) -> None:
        """Whose the event is that Gradio has just taken."""
        with suppress(ValueError):
            self._refuse_session(named_in_body(json.loads(answer)), visitor)

    def _cookie(self, secret: str) -> str:
        kept = "SameSite=None; Secure; Partitioned" if self.embedded else "SameSite=Lax"
        return f"{COOKIE}={secret}; Path=/; Max-Age={6 * LIFE}; HttpOnly; {kept}"


def _refuse_sign_out(headers: Headers) -> tuple[int, str] | None:
    """Signing out is a GET, which any page can send by an image or a link; browsers say where it comes from.

    Over plain HTTP they say so in the referrer alone, and that may be missing.
    """
    site, came_from = headers.get("sec-fetch-site"), headers.get("referer", "")
    own = urlsplit(came_from).netloc.lower() == headers.get("host", "").lower()
    if site in ("same-origin", "none") if site else own:
        return None
    return 403, "Sign out from the studio's own page."


def _name(host: str) -> str:
    """`Studio.local:7860` → `studio.local`; `[::1]:7860` → `::1`."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if re.search(r":\d*$", host) else host


def address_of(scope: dict[str, Any], headers: Headers, embedded: bool) -> str:
    """Where a request comes from, as uvicorn tells it (FORWARDED_ALLOW_IPS names proxies that are believed).

    Of IPv6 only what a household is given as a whole.
    """
    text = (scope.get("client") or ("",))[0]
    if embedded:  # a Space's own proxy
        text = headers.get("x-forwarded-for", text).partition(",")[0].strip()
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    return str(ipaddress.ip_network((address, 64), strict=False)) if address.version == 6 else str(address)


def _name_of(origin: str) -> str:
    return _name(urlsplit(origin).netloc)


def _secret(headers: Headers) -> str:
    """The visitor's secret; "" when there is none or it is none of ours."""
    try:
        held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return held.value if held and _SECRET.fullmatch(held.value) else ""


def _stored(answer: bytes) -> list[str]:
    """The paths that Gradio answers to an upload."""
    try:
        paths = json.loads(answer)
    except ValueError:
        return []
    return paths if isinstance(paths, list) else []


async def _whole(receive) -> bytes:
    body = bytearray()
    while True:
        message = await asyncio.wait_for(receive(), STALL)
        if message["type"] != "http.request":
            return bytes(body)
        body += message.get("body", b"")
        if not message.get("more_body"):
            return bytes(body)


def _again(body: bytes, receive):
    """What was read, once more; then whatever comes."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay():
        return left.pop() if left else await receive()

    return replay


def _paths(data: Any) -> Iterator[str]:
    """Every text that stands as the "path" of a file in an event."""
    left = [data]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            if isinstance(one.get("path"), str):
                yield one["path"]
            left.extend(one.values())
        elif isinstance(one, list):
            left.extend(one)
