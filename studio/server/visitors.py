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
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradio.context import LocalContext

from studio.errors import BusyError, WorkspaceError
from studio.server import owners, zero_gpu
from studio.server.permissions import GB, VISITED, Capabilities
from studio.workspace import Workspace, holds_files, make_folders, size_of

log = logging.getLogger(__name__)
SCOPE = "studio.visitor"  # where middleware.py leaves the name in a request; "" when it brought no cookie
ADDRESS = "studio.address"  # and where the request came from
LIFE = 4 * 3600  # seconds after its last use until a workspace goes
MOST, ROOM = 300, 20 * GB  # workspaces that hold something, and bytes of all together
OF_ONE = 8  # one address may take this part of each
MOST_EMPTY = 1000  # of those that hold nothing; the one used longest ago goes first
IDLE = 15 * 60  # seconds: after them a workspace may go early, to make room
EMPTY = 5 * 60  # seconds: after them one that holds nothing goes
SWEEP = 300  # seconds between two checks for what has expired
WITHOUT_COOKIE = "s"  # the first letter of such a visitor's folder; others begin with "c"


_OFFSET = time.time() - time.monotonic()


def steady() -> float:
    """Seconds since 1970 as the system's clock said at the studio's start: setting it sweeps no visitor's work."""
    return _OFFSET + time.monotonic()


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


def _where_from() -> str:
    """The address that this event came from; "" without a request."""
    request = getattr(LocalContext.request.get(None), "request", None)
    return request.scope.get(ADDRESS, "") if request is not None else ""


def _carry_request() -> Callable[[], Any]:
    """The request, and the page: `spaces` closes the page's connections in the process that it forks, since one that
    stays open there never ends for the browser.
    """
    request, blocks = LocalContext.request.get(None), LocalContext.blocks.get(None)

    def arrive() -> None:
        LocalContext.request.set(request)
        LocalContext.blocks.set(blocks)

    return arrive


owners.ask(_who_asks, _where_from)
zero_gpu.carry(_carry_request)


class Visitors:
    """The folders below `root`, one a visitor."""

    def __init__(
        self,
        root: Path,
        clock: Callable[[], float] = steady,
        room: int = ROOM,
        most: int = MOST,
        at_work: Callable[[], set[str]] = set,
    ):
        """at_work: names the visitors whose jobs run now; their folders are never swept."""
        self.root, self.clock, self.room, self.most, self.at_work = root, clock, room, most, at_work
        self._lock, self._sweeping = threading.Lock(), threading.Lock()
        self._used: dict[str, float] = {}  # when each was used last, the one used last at the end
        self._written: dict[str, float] = {}  # what of that stands on the disk, for the next start
        self._holding: dict[str, int] = {}  # those that hold something: bytes, as they were counted last
        self._from: dict[str, str] = {}  # the address that each was made from
        self._swept = clock()
        root.mkdir(parents=True, exist_ok=True)
        known: dict[str, float] = {}
        for folder in root.iterdir():
            with suppress(OSError):
                known[folder.name] = min(folder.stat().st_mtime, self._swept)  # none was used in the future
        self._used = dict(sorted(known.items(), key=lambda one: one[1]))
        self._holding = {name: 0 for name in self._used if _holds_anything(root / name)}

    def folder(self, name: str) -> Path:
        """The workspace of `name`, used now; its folders are made if missing. Until `admit` it may hold nothing."""
        folder, now = self.root / name, self.clock()
        with self._lock:
            if name not in self._written or not folder.is_dir():
                make_folders(folder)
                self._written[name] = 0.0
            self._used.pop(name, None)
            self._used[name] = now
            if now - self._written[name] > 60:
                self._written[name] = now
                os.utime(folder, (now, now))
            empty = len(self._used) - len(self._holding) > MOST_EMPTY
        if now - self._swept > SWEEP or (empty and now - self._swept > 1):
            self._sweep_soon(now)
        return folder

    def admit(self, name: str, address: str = "") -> None:
        """Before the first write, and before each large one. Raises BusyError when there is no room for one more.

        Whoever has a workspace keeps it: others can neither take its place nor have it swept while it is in use.
        """
        size, now = size_of(self.root / name), self.clock()
        with self._lock:
            new = name not in self._holding
            here = [one for one in self._holding if address and self._from.get(one) == address and one != name]
            if new and len(self._holding) >= self.most:
                refused = "Many people are here now: try again in a few minutes."
            elif new and len(here) >= max(1, self.most // OF_ONE):
                refused = "Many people are here from your network now: try again in some hours."
            elif here and size + sum(self._holding[one] for one in here) > self.room // OF_ONE:
                refused = "Your network's visitors have filled their share here: delete what you no longer need."
            else:
                refused = ""
                self._holding[name], self._from[name] = size, address or self._from.get(name, "")
        if new and refused:
            self._sweep_soon(now)
        if refused:
            raise BusyError(refused)

    def _sweep_soon(self, now: float) -> None:
        if not self._sweeping.locked():
            self._swept = now
            threading.Thread(target=self.sweep, name="sweep", daemon=True).start()

    def sweep(self) -> list[str]:
        """Delete what was not used for LIFE, what holds nothing, and more of what is idle while all are too large.

        Of these, first the workspaces of the address that holds most: whoever sends many visitors sweeps its own.
        """
        with self._sweeping:
            at_work = self.at_work()
            with self._lock:
                now, oldest = self.clock(), sorted(self._used, key=self._used.__getitem__)
                empty = len(self._used) - len(self._holding)
            holds = {name: _holds_anything(self.root / name) for name in oldest}
            gone = []
            for name in oldest:
                idle = now - self._used.get(name, now)
                many = empty > MOST_EMPTY and idle > 1
                if name not in at_work and (idle > LIFE or (not holds[name] and (idle > EMPTY or many))):
                    empty -= not holds[name]
                    gone.append(name)
            sizes = {name: size_of(self.root / name) for name in oldest if holds[name] and name not in gone}
            with self._lock:
                self._holding = {**dict.fromkeys(self._holding.keys() & sizes.keys(), 0), **sizes}
            gone += self._idle_ones(sizes, at_work, now)
            for name in gone:
                self._delete(name, now)
            return gone

    def _idle_ones(self, sizes: dict[str, int], at_work: set[str], now: float) -> list[str]:
        """Those that go early, to make room."""
        left, gone = dict(sizes), []
        idle = [name for name in left if name not in at_work and now - self._used.get(name, now) > IDLE]
        while idle and (sum(left.values()) > self.room or len(left) >= self.most):
            held: Counter[str] = Counter()
            for name, size in left.items():
                held[self._from.get(name) or name] += size
            name = max(idle, key=lambda one: held[self._from.get(one) or one])  # the first of them is the oldest
            idle.remove(name)
            left.pop(name)
            gone.append(name)
        return gone

    def _delete(self, name: str, now: float) -> None:
        going = self.root / f".{name}"
        with self._lock:
            if self._used.get(name, now) > now:  # used again meanwhile
                return
            self._used.pop(name, None)
            self._written.pop(name, None)
            self._holding.pop(name, None)
            self._from.pop(name, None)
            try:
                (self.root / name).rename(going)
            except OSError:
                going = self.root / name
        owners.forget(name)
        shutil.rmtree(going, ignore_errors=True)


def _holds_anything(folder: Path) -> bool:
    """Whether somebody's work is in a workspace; what stands in its cache is made again when it is needed."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name != "cache" and holds_files(Path(entry.path)) for entry in entries)
    except OSError:
        return False


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

    def refuse_if_full(self, coming: int = 0) -> None:
        super().refuse_if_full(coming)
        self.visitors.admit(owners.owner(), _where_from())
