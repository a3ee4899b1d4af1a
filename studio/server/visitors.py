"""Public mode: everyone who comes has a workspace of their own, in a folder that nobody can guess, for some hours.

A visitor is known by a cookie. The folder's name is a hash of it, so that a name in an address gives nothing away.
Programs and browsers that keep no cookies are known by Gradio's session instead, until they reload.
"""

import hashlib
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from gradio.context import LocalContext

from studio.errors import BusyError, WorkspaceError
from studio.server import owners
from studio.server.permissions import GB, VISITED, Capabilities
from studio.workspace import Workspace, make_folders, size_of

log = logging.getLogger(__name__)
SCOPE = "studio.visitor"  # where guard.py leaves the name in a request; "" when it brought no cookie
LIFE = 4 * 3600  # seconds after its last use until a workspace goes
MOST, ROOM = 300, 20 * GB  # workspaces, and bytes of all together
IDLE = 15 * 60  # seconds: after them a workspace may go early, to make room
SWEEP = 300  # seconds between two checks for what has expired
WITHOUT_COOKIE = "s"  # the first letter of such a visitor's folder; others begin with "c"


def name_of(secret: str, cookie: bool = True) -> str:
    """The folder's name of whoever holds `secret`."""
    kind = "c" if cookie else WITHOUT_COOKIE
    return kind + hashlib.sha256(f"studio {kind} {secret}".encode()).hexdigest()[:40]


def _who_asks() -> str:
    """The visitor whose event Gradio handles now; "" outside public mode."""
    asked = LocalContext.request.get(None)
    request = getattr(asked, "request", None)
    if asked is None or request is None or SCOPE not in request.scope:
        return ""
    return request.scope[SCOPE] or (name_of(asked.session_hash, cookie=False) if asked.session_hash else "")


owners.ask(_who_asks)


class Visitors:
    """The folders below `root`, one a visitor."""

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = time.time,
        room: int = ROOM,
        most: int = MOST,
        at_work: Callable[[], set[str]] = set,
    ):
        """at_work: names the visitors whose jobs run now; their folders are never swept."""
        self.root, self.clock, self.room, self.most, self.at_work = root, clock, room, most, at_work
        self._lock = threading.Lock()
        self._used: dict[str, float] = {}  # when each was used last
        self._written: dict[str, float] = {}  # what of that stands on the disk, for the next start
        self._swept = clock()
        root.mkdir(parents=True, exist_ok=True)
        for folder in root.iterdir():
            with suppress(OSError):
                self._used[folder.name] = folder.stat().st_mtime

    def folder(self, name: str) -> Path:
        """The workspace of `name`, made if missing, and used now. Raises BusyError when there is no room for one."""
        folder, now = self.root / name, self.clock()
        with self._lock:
            if name not in self._written or not folder.is_dir():
                if name not in self._used and len(self._used) >= self.most:
                    self._sweep_soon(now)
                    raise BusyError("Many people are here now: try again in a few minutes.")
                make_folders(folder)
                self._written[name] = 0.0
            self._used[name] = now
            if now - self._written[name] > 60:
                self._written[name] = now
                os.utime(folder, (now, now))
            if now - self._swept > SWEEP:
                self._sweep_soon(now)
        return folder

    def _sweep_soon(self, now: float) -> None:
        self._swept = now
        threading.Thread(target=self.sweep, name="sweep", daemon=True).start()

    def sweep(self) -> list[str]:
        """Delete what was not used for LIFE, and more of what is idle while all are too many or too large."""
        at_work = self.at_work()
        with self._lock:
            now, oldest = self.clock(), sorted(self._used, key=self._used.__getitem__)
            gone = [name for name in oldest if name not in at_work and now - self._used[name] > LIFE]
        idle = [name for name in oldest if name not in {*gone, *at_work} and now - self._used[name] > IDLE]
        sizes = {name: size_of(self.root / name) for name in oldest if name not in gone}
        while idle and (sum(sizes.values()) > self.room or len(sizes) >= self.most):
            gone.append(idle[0])
            sizes.pop(idle.pop(0))
        for name in gone:
            self._delete(name, now)
        return gone

    def _delete(self, name: str, now: float) -> None:
        going = self.root / f".{name}"
        with self._lock:
            if self._used.get(name, now) > now:  # used again meanwhile
                return
            self._used.pop(name, None)
            self._written.pop(name, None)
            try:
                (self.root / name).rename(going)
            except OSError:
                going = self.root / name
        owners.forget(name)
        shutil.rmtree(going, ignore_errors=True)


class VisitorsWorkspace(Workspace):
    """A Workspace that is another one for everyone who asks."""

    visitors: Visitors

    def __init__(self, visitors: Visitors, allows: Capabilities = VISITED):
        object.__setattr__(self, "visitors", visitors)
        object.__setattr__(self, "allows", allows)

    @property
    def root(self) -> Path:  # type: ignore[override]
        name = owners.owner()
        if not name:
            raise WorkspaceError("Your browser must keep cookies here: allow them for this page and open it again.")
        return self.visitors.folder(name)
