"""What stands before the page: which names it answers to, who may write to it, and whose files are whose.

Gradio itself answers any name (which DNS rebinding needs), takes uploads from any other site's pages, fetches addresses
that are asked for as files, and gives any file that it serves to everyone.
"""

import ipaddress
import json
import os
import re
import secrets
from collections.abc import Collection, Iterator
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from anyio.to_thread import run_sync
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from studio.server.permissions import MB, Capabilities
from studio.server.sessions import Sessions, named_in_address, named_in_body
from studio.server.visitors import LIFE, SCOPE, WITHOUT_COOKIE, name_of
from studio.workspace import ASSETS, SERVED, is_valid_unicode, size_of

COOKIE = "studio_visitor"
MOST_BODY = 32 * MB  # of an event; files come by UPLOAD
MOST_FORM = 10_000  # bytes of a login
MOST_NODES = 400_000  # values in one event; parsing more would keep everyone waiting
UPLOAD, LOGIN = "/gradio_api/upload", ("/login", "/login/")  # whole: the last word of others is anyone's to choose
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
        self.embedded, self.served = embedded, [Path(os.path.realpath(folder)) for folder in served]
        self._sent: dict[str, set[str]] = {}  # uploaded file -> visitors who sent it
        self._sessions = Sessions()

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers, path = Headers(scope=scope), scope["path"]
        writes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        refused = self._refuse_stranger(headers, writes) or self._refuse_place(path)
        refused = refused or (_refuse_sign_out(headers) if path in LOGOUT else None)
        if writes and not refused:
            refused = await self._refuse_size(headers, path)
        visitor = fresh = ""
        if self.visitors and not refused:
            secret = _secret(headers)
            fresh = secret or secrets.token_urlsafe(32)
            visitor = scope[SCOPE] = name_of(secret) if secret else ""
            refused = self._refuse_session(named_in_address(path, scope.get("query_string", b"")), visitor)
        refused = refused or self._refuse_file(path, visitor)
        if writes and not refused and path != UPLOAD and path not in LOGIN:
            body = await _whole(receive)
            refused = await run_sync(self._refuse_named, body, visitor)
            receive = _again(body, receive)
        if refused:
            status, text = refused
            return await PlainTextResponse(text, status)(scope, receive, send)
        page = path in ("/", "/config", "/config/")
        answer = bytearray()

        async def passed(message) -> None:
            if message["type"] == "http.response.start":
                given = MutableHeaders(scope=message)
                given["X-Content-Type-Options"] = "nosniff"
                given["Referrer-Policy"] = "same-origin"
                given["Cross-Origin-Resource-Policy"] = "cross-origin" if self.embedded else "same-origin"
                if not self.embedded and given.get("content-type", "").startswith("text/html"):
                    given["Content-Security-Policy"] = _POLICY
                if self.visitors and page:
                    given.append("Set-Cookie", self._cookie(fresh))
            elif self.visitors and writes and len(answer) < MB:
                answer.extend(message.get("body", b""))
                if not message.get("more_body"):
                    self._remember(bytes(answer), visitor, path == UPLOAD)
            await send(message)

        await self.app(scope, receive, passed)

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

    async def _refuse_size(self, headers: Headers, path: str) -> tuple[int, str] | None:
        length = headers.get("content-length", "")
        if not length.isdigit():
            return (411, "The length of what is sent must be said first.") if "transfer-encoding" in headers else None
        if path != UPLOAD:
            most = MOST_FORM if path in LOGIN else MOST_BODY
            return (413, "That is too much at once.") if int(length) > most else None
        held = await run_sync(size_of, self.uploads)
        if int(length) + held > self.allows.uploads:
            return 413, "The studio's upload folder is full: what was sent before goes in some hours, so try then."
        return None

    # Visitors ---------------------------------------------------------------------------------------------------

    def _refuse_file(self, path: str, visitor: str) -> tuple[int, str] | None:
        asked = _FILE.search(path)
        if asked and not self._owns(asked.group(1), visitor):
            return 403, "That file is not yours, or is no longer there."
        return None

    def _refuse_named(self, body: bytes, visitor: str) -> tuple[int, str] | None:
        """An event may name no address to be fetched from, and in public mode only files of whoever sends it."""
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MOST_NODES:
            return 413, "That is too much at once."
        try:
            data = json.loads(body) if body else None
            whole = b"\\ud" not in body.lower() or is_valid_unicode(json.dumps(data, ensure_ascii=False))
        except (ValueError, RecursionError):
            return (400, "That is not JSON.") if self.visitors else None
        if not whole:
            return 400, "That text holds half a character, which nothing can write: type it once more."
        if self.visitors and (refused := self._refuse_session(named_in_body(data), visitor)):
            return refused
        for path in _paths(data):
            if _OUTSIDE.match(path) or (self.visitors and not self._owns(path, visitor)):
                return 403, "That file is not yours, or is no longer there."
        return None

    def _refuse_session(self, named: list[str], visitor: str) -> tuple[int, str] | None:
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
            return any(path.is_relative_to(one) for one in (*self.served, self.uploads, ASSETS / "datasets"))
        if self.visitors in path.parents:
            name, *inside = path.relative_to(self.visitors).parts
            served = "/".join(inside[:-1])
            shown = any(served == one or served.startswith(f"{one}/") for one in SERVED)
            return shown and (name == visitor or name.startswith(WITHOUT_COOKIE))
        if path.is_relative_to(self.uploads):
            return visitor in self._sent.get(str(path), ())
        return path.is_relative_to(ASSETS / "datasets")

    def _remember(self, answer: bytes, visitor: str, upload: bool) -> None:
        """Who sent the files that Gradio has just stored, or the event that it has just taken."""
        try:
            paths = json.loads(answer)
        except ValueError:
            return
        if not upload:
            self._refuse_session(named_in_body(paths), visitor)
            return
        if len(self._sent) > 10_000:
            self._sent = {path: who for path, who in self._sent.items() if os.path.exists(path)}
        for path in paths if isinstance(paths, list) else ():
            self._sent.setdefault(os.path.realpath(path), set()).add(visitor)

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


def _name_of(origin: str) -> str:
    return _name(urlsplit(origin).netloc)


def _secret(headers: Headers) -> str:
    """The visitor's secret; "" when there is none or it is none of ours."""
    try:
        held = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return held.value if held and _SECRET.fullmatch(held.value) else ""


async def _whole(receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
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
