"""Whose session of Gradio is whose, in public mode.

Gradio gives the answers of a session, and the state that its page holds, to whoever names its hash: the first visitor
who names one keeps it.
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs

MOST = 50_000
_IN_PATH = re.compile(r"/gradio_api/(?:heartbeat|stream)/([^/]+)|/gradio_api/call/(?:v2/|(?!v2/))[^/]+/([^/]+)/?")


class Sessions:
    """The visitor of each session; the least recently named ones are forgotten."""

    def __init__(self, most: int = MOST):
        self._of: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()
        self.most = most

    def belongs(self, session: str, visitor: str) -> bool:
        """Whether `visitor` may go on with the session; it is theirs from now on where it was nobody's."""
        with self._lock:
            known = self._of.setdefault(session, visitor)
            self._of.move_to_end(session)
            while len(self._of) > self.most:
                self._of.popitem(last=False)
        return known == visitor


def named_in_address(path: str, query: bytes) -> list[str]:
    """The sessions that an address names; an event of a plain call is a session of its own."""
    found = _IN_PATH.match(path)
    named = [one for one in found.groups() if one] if found else []
    return named + parse_qs(query.decode("latin-1")).get("session_hash", [])


def named_in_body(data: Any) -> list[str]:
    """The sessions that an event names."""
    if not isinstance(data, Mapping):
        return []
    return [data[key] for key in ("session_hash", "event_id") if isinstance(data.get(key), str) and data[key]]
