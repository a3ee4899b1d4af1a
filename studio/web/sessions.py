"""What the server keeps of each open page: only what differs from the page as it is built.

Gradio copies the settings of all components (1.4 MB, 80 ms) for every page and for every call of a program, keeps
10,000 of them, and drops the oldest, whether its page is open or not. It keeps every answer that nobody fetches.
"""

import asyncio
import json
import logging
import threading
import time
from collections import ChainMap, Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from copy import copy, deepcopy
from datetime import datetime
from typing import Any
from weakref import WeakValueDictionary

from gradio import route_utils, utils
from gradio.blocks import Blocks, BlocksConfig
from gradio.components import State
from gradio.server_messages import ProcessCompletedMessage
from gradio.state_holder import SessionState, StateHolder

from studio.server.memory import keep_small
from studio.server.permissions import Capabilities
from studio.server.sessions import named_in_address
from studio.server.uploads import leave_nothing
from studio.web.turns import Turns

log = logging.getLogger(__name__)
MOST = 2000  # pages whose state is kept; open ones always are
IDLE = 3600  # seconds that the state of a closed page is kept, should it come back
UNREAD, UNREAD_BYTES = 600, 32 * 10**6  # seconds that an answer waits for its reader, and bytes of all that wait
PLACE = 10_000  # bytes that the place of an answer takes itself, about
READ = 15  # seconds that the place of answers is kept after all were read
LOOK = 1  # seconds between two looks for what may go
# A page keeps the first connection for as long as it is open, and the second while it waits for answers; a program has
# the third for each call.
_LISTENS = "/gradio_api/heartbeat/", "/gradio_api/queue/data", "/gradio_api/call/"


class Session(SessionState):
    """A page's state. One to which nothing was written is like any new one, and is not kept."""

    def __init__(self, blocks: Blocks, keep: Callable[["Session"], None]):
        self._keep, self.used = keep, time.monotonic()
        self.blocks_config = _config(blocks)
        self.config_values: dict[int, Any] = {}  # for deep links, which are closed
        self.state_data: dict[int, Any] = {}
        self._state_ttl: dict[int, tuple[float, datetime]] = {}
        self.is_closed, self.STATE_TTL_WHEN_CLOSED = False, IDLE

    def __getitem__(self, key: int) -> Any:
        block = self.blocks_config.blocks[key]
        if not block.stateful:
            return block
        if key not in self.state_data:
            self._keep(self)
            value = getattr(block, "value", None)
            self.state_data[key] = deepcopy(value() if callable(value) else value)
        return self.state_data[key]

    def __setitem__(self, key: int, value: Any) -> None:
        self._keep(self)
        block = self.blocks_config.blocks.get(key)
        if isinstance(block, State):
            self._state_ttl[key] = (block.time_to_live, datetime.now())
            self.state_data[key] = value
        else:
            self.blocks_config.blocks[key] = value

    def _update_config(self, key: int) -> None:
        pass

    def _update_value_in_config(self, key: int, value: Any) -> None:
        pass


def _config(blocks: Blocks) -> BlocksConfig:
    """The page's components and events, of which a session may have others; the shared ones are not copied."""
    shared = blocks.default_config
    if shared.renderables:  # these exchange events while they run
        return copy(shared)
    config = BlocksConfig(blocks)
    config.blocks, config.fns, config.fn_id = ChainMap({}, shared.blocks), shared.fns, shared.fn_id
    return config


class Sessions(StateHolder):
    """By session hash. `session_data` holds those that were written to, the one used last at the end."""

    def __init__(self, blocks: Blocks, most: int = MOST):
        super().__init__()
        self.blocks, self.capacity = blocks, most
        blocks.state_holder = self
        self._in_use: WeakValueDictionary[str, Session] = WeakValueDictionary()
        self._open: Counter[str] = Counter()
        self.lock = threading.RLock()

    def __getitem__(self, session_id: str) -> Session:
        with self.lock:
            session = self.session_data.get(session_id) or self._in_use.get(session_id)
            if session is None:
                session = Session(self.blocks, lambda one: self._keep(session_id, one))
                self._in_use[session_id] = session
            elif session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            session.used = time.monotonic()
            return session

    def update(self, session_id: str) -> None:
        pass

    def is_open(self, session_id: str) -> bool:
        return session_id in self._open

    @contextmanager
    def opened(self, session_id: str) -> Iterator[None]:
        """Its page is open meanwhile, so that its state is not dropped."""
        with self.lock:
            self._open[session_id] += 1
        try:
            yield
        finally:
            with self.lock:
                self._open[session_id] -= 1
                if self._open[session_id] <= 0:
                    del self._open[session_id]
                if session := self.session_data.get(session_id):
                    session.used = time.monotonic()
                    self.session_data.move_to_end(session_id)

    def delete_all_expired_state(self) -> None:
        """Called by Gradio each second."""
        with self.lock:
            now, gone = time.monotonic(), []
            for session_id, session in self.session_data.items():
                if now - session.used < IDLE:
                    break
                if session_id not in self._open:
                    gone.append(session_id)
            for session_id in gone:
                del self.session_data[session_id]

    def _keep(self, session_id: str, session: Session) -> None:
        with self.lock:
            if session_id in self.session_data:
                return
            if len(self.session_data) >= self.capacity:
                oldest = next((one for one in self.session_data if one not in self._open), None)
                if oldest is not None:
                    del self.session_data[oldest]
            self.session_data[session_id] = session


class Answers(dict):
    """Messages that wait for a page or program to fetch them, by session; in place of Gradio's last 2,000 of these.

    What was read to its end goes soon, unless its page is open. What nobody reads goes after UNREAD seconds, and
    sooner, the oldest first and those of open pages last, while all of it together is larger than UNREAD_BYTES.
    """

    def __init__(self, queue: Any, is_open: Callable[[str], bool]):
        super().__init__()
        self._queue, self._is_open = queue, is_open
        self._read: dict[str, float] = {}  # since when nothing waits
        self._unread: dict[str, tuple[float, int]] = {}  # since when, and how many bytes

    def __delitem__(self, session: str) -> None:
        self.pop(session, None)  # Gradio deletes what a reader leaves behind, which may be gone by then

    def sweep(self, now: float) -> None:
        """To be called in the event loop."""
        pending, running = self._queue.pending_event_ids_session, self._queue.event_ids_to_events
        done = [
            one for one in self.keys() | pending.keys() if not any(event in running for event in pending.get(one, ()))
        ]
        read = [one for one in done if not pending.get(one)]
        self._read = {one: self._read.get(one, now) for one in read}
        self._unread = {one: self._unread.get(one) or (now, _size(self.get(one))) for one in done if pending.get(one)}
        for session in read:
            if now - self._read[session] > READ and not self._is_open(session):
                self._drop(session)
        total = sum(size for _, size in self._unread.values())
        for session, (since, size) in sorted(self._unread.items(), key=lambda one: (self._is_open(one[0]), one[1][0])):
            if total > UNREAD_BYTES or (now - since > UNREAD and not self._is_open(session)):
                total -= size
                self._drop(session)

    def _drop(self, session: str) -> None:
        self.pop(session, None)
        self._queue.pending_event_ids_session.pop(session, None)


def _size(messages: asyncio.Queue | None) -> int:
    """Bytes of the answers in it, as they would be sent, and of its place."""
    found = [] if messages is None else list(messages._queue)  # type: ignore[attr-defined]
    answers = [one.output for one in found if isinstance(one, ProcessCompletedMessage)]
    return PLACE + sum(len(json.dumps(one, default=str, skipkeys=True)) for one in answers)


class OpenPages:
    """ASGI middleware: the sessions know which pages are open, and who listens for an answer."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        path, named = scope.get("path", ""), []
        if path.startswith(_LISTENS) and scope["method"] == "GET":
            named = named_in_address(path, scope["query_string"])
        if not named:
            return await self.app(scope, receive, send)
        with scope["app"].state_holder.opened(named[-1]):
            return await self.app(scope, receive, send)


@asynccontextmanager
async def kept_small(app: Any, allows: Capabilities) -> AsyncIterator[None]:
    """For as long as the server runs: these sessions, turns and answers in place of Gradio's own."""
    blocks = app.get_blocks()
    held = app.state_holder = Sessions(blocks)
    turns = Turns(blocks._queue, allows, listens=held.is_open)
    answers = blocks._queue.pending_messages_per_session = Answers(blocks._queue, held.is_open)

    async def look() -> None:
        while True:
            await asyncio.sleep(LOOK)
            try:
                turns.look()
                answers.sweep(time.monotonic())
            except Exception:  # the next look comes all the same
                log.exception("looking for what waits too long failed")

    tasks, reader = [asyncio.create_task(one) for one in (look(), keep_small())], route_utils.GradioMultiPartParser
    route_utils.GradioMultiPartParser = leave_nothing(reader)
    # Around each event Gradio looks for matplotlib on the disk, in the event loop; nothing here returns its figures.
    backend, utils.MatplotlibBackendMananger = utils.MatplotlibBackendMananger, nullcontext
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        route_utils.GradioMultiPartParser, utils.MatplotlibBackendMananger = reader, backend
