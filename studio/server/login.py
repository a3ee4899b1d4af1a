"""Signing in: what is served before it, how often a password may be guessed, and how programs do it.

Gradio asks for a login on its own routes alone. What is mounted beside them (MCP) answers anyone, its page holds the
description of every endpoint before a login, and a password may be guessed without end.
"""

import base64
import binascii
import ipaddress
import math
import re
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse

GUESSES, ALL_GUESSES = 10, 200  # wrong passwords of one address, and of all together, in WHILE
WHILE = 15 * 60  # seconds
MOST_ADDRESSES = 10_000
RULE = f"After {GUESSES} wrong passwords, signing in is closed for {WHILE // 60} minutes."
LOGIN = ("/login", "/login/")
# The login page and its own files; everything else is for who signed in.
_OPEN = {
    "/",
    "/config",
    "/config/",
    "/logout",
    "/favicon.ico",
    "/robots.txt",
    "/manifest.json",
    "/theme.css",
    "/gradio_api/theme.css",
    "/gradio_api/startup-events",
    "/gradio_api/user",
    "/gradio_api/user/",
    "/gradio_api/login_check",
    "/gradio_api/login_check/",
    *LOGIN,
}
_OPEN_FOLDERS = ("/static/", "/assets/", "/svelte/", "/pwa_icon")
_DESCRIPTION = re.compile(rb"window\.gradio_api_info = .*?;</script>", re.DOTALL)
_NO_DESCRIPTION = b'window.gradio_api_info = {"named_endpoints": {}, "unnamed_endpoints": {}};</script>'


class Guesses:
    """Wrong passwords, by address and all together."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self._all: deque[float] = deque()
        self._by: OrderedDict[str, deque[float]] = OrderedDict()

    def closed_for(self, address: str) -> int:
        """Seconds until this address may guess again; 0 when it may now."""
        now, left = self.clock(), 0.0
        for times, most in ((self._by.get(_network(address), deque()), GUESSES), (self._all, ALL_GUESSES)):
            while times and times[0] <= now - WHILE:
                times.popleft()
            if len(times) >= most:
                left = max(left, times[-most] + WHILE - now)
        return math.ceil(left)

    def count(self, address: str) -> None:
        """A guess, also while it is not known yet whether it is right: many are sent at once."""
        key, now = _network(address), self.clock()
        self._by.setdefault(key, deque(maxlen=GUESSES)).append(now)
        self._by.move_to_end(key)
        while len(self._by) > MOST_ADDRESSES:
            self._by.popitem(last=False)
        self._all.append(now)
        while len(self._all) > ALL_GUESSES:
            self._all.popleft()

    def right(self, address: str) -> None:
        """The newest guess was right."""
        self._by.pop(_network(address), None)
        if self._all:
            self._all.pop()


class Login:
    """ASGI middleware, of use where a password is set. Programs may send it as HTTP Basic, instead of a cookie."""

    def __init__(self, app: Any, guesses: Guesses | None = None):
        self.app, self.guesses = app, guesses or Guesses()
        self._token = secrets.token_urlsafe(32)  # the session of programs that send the password each time

    async def __call__(self, scope, receive, send) -> None:
        studio = scope.get("app")
        if scope["type"] != "http" or not getattr(studio, "auth", None):
            return await self.app(scope, receive, send)
        headers, path = Headers(scope=scope), scope["path"]
        address = (scope.get("client") or ("",))[0]
        basic = headers.get("authorization", "").lower().startswith("basic ")
        guesses = basic or (path in LOGIN and scope["method"] == "POST")
        if guesses and (seconds := self.guesses.closed_for(address)):
            text = f"Too many wrong passwords: try again in {_minutes(seconds)}."
            return await PlainTextResponse(text, 429, {"Retry-After": str(seconds)})(scope, receive, send)
        user = _signed_in(studio, headers)
        if basic and not user:
            user = self._by_password(studio, headers["authorization"])
            if not user:
                self.guesses.count(address)
                return await PlainTextResponse("The name or the password is wrong.", 401)(scope, receive, send)
            scope = self._as_signed_in(scope, studio, user)
        if not user and path not in _OPEN and not path.startswith(_OPEN_FOLDERS):
            return await PlainTextResponse("Sign in first.", 401)(scope, receive, send)
        if not user and path == "/":
            send = _without_description(send)
        if guesses and not basic:
            self.guesses.count(address)
            send = self._judged(send, address)
        await self.app(scope, receive, send)

    def _judged(self, send, address: str):
        """The guess is taken back when the answer is that it was right."""

        async def passed(message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 200:
                self.guesses.right(address)
            await send(message)

        return passed

    def _by_password(self, studio: Any, sent: str) -> str:
        """The user of an `Authorization: Basic` header; "" when name or password is wrong."""
        try:
            user, _, password = base64.b64decode(sent[6:], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            return ""
        known = studio.auth if isinstance(studio.auth, dict) else {}
        right = secrets.compare_digest(known.get(user, "").encode(), password.encode())
        return user if right and user in known else ""

    def _as_signed_in(self, scope, studio: Any, user: str):
        """The request with the cookie that Gradio looks for."""
        studio.tokens[self._token] = user
        cookies = [value for name, value in scope["headers"] if name == b"cookie"]
        cookies.append(f"access-token-unsecure-{studio.cookie_id}={self._token}".encode())
        others = [pair for pair in scope["headers"] if pair[0] not in (b"cookie", b"authorization")]
        return scope | {"headers": [*others, (b"cookie", b"; ".join(cookies))]}


def _signed_in(studio: Any, headers: Headers) -> str:
    """Who has signed in, by the cookies that Gradio gives; "" when nobody has."""
    try:
        cookies = SimpleCookie(headers.get("cookie", ""))
    except CookieError:
        return ""
    for name in (f"access-token-{studio.cookie_id}", f"access-token-unsecure-{studio.cookie_id}"):
        if name in cookies and (user := studio.tokens.get(cookies[name].value)):
            return user
    return ""


def _without_description(send):
    """The login page, without what it says of the endpoints."""
    begin: list[Any] = []
    body = bytearray()

    async def passed(message) -> None:
        if message["type"] == "http.response.start":
            begin.append(message)
            return
        body.extend(message.get("body", b""))
        if message.get("more_body"):
            return
        page = _DESCRIPTION.sub(lambda _: _NO_DESCRIPTION, bytes(body))
        others = [pair for pair in begin[0]["headers"] if pair[0].lower() != b"content-length"]
        await send(begin[0] | {"headers": [*others, (b"content-length", str(len(page)).encode())]})
        await send({"type": "http.response.body", "body": page})

    return passed


def _network(address: str) -> str:
    """What stands for the address: of IPv6 the /64 that one household has."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    return str(ipaddress.ip_network((found, 64), strict=False)) if found.version == 6 else address


def _minutes(seconds: int) -> str:
    minutes = -(-seconds // 60)
    return "a minute" if minutes == 1 else f"{minutes} minutes"
