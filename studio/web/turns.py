"""Who may put how much into the queue of events, whose turn it is, and whether a caller still waits for the answer.

Gradio counts the events of everyone together and takes them as they came, so that one visitor can take all places and
all of the time.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

from gradio.context import LocalContext
from gradio.queueing import Event
from gradio.route_utils import get_fn
from gradio.server_messages import EstimationMessage, ProcessCompletedMessage

from studio.server import callers
from studio.server.lately import Lately
from studio.server.middleware import WEIGHT
from studio.server.permissions import MB, Capabilities
from studio.server.visitors import ADDRESS, SCOPE, name_of

DEVICE = "device"  # the concurrency_id of events that draw
MOST_DRAWING = 100  # of all that wait, so that what needs no device always finds a place
AT_ONE_ADDRESS, MOST_AT_ONE = 20, 80  # a class behind one router has as much as so many visitors, and so many calls
MOST_WEIGHT, MOST_WEIGHT_EACH = 64 * MB, 8 * MB  # of all events that wait, and of one visitor's
SHARES = 2  # of the time, and no more of them, where several visitors come from one address
AT_ONCE, AT_ONE_AT_ONCE = 4, 2  # events of a line that run at once, and of them those from one address
MOST_ADDRESSES = 2000
A_MOMENT = 0.01  # seconds that count for an event that has just begun
HALF = 180  # seconds until half of what a visitor has had is forgotten
PATIENCE = 90  # seconds that a stranger's event waits for the device; so long a line is no line
_FULL = "Too much waits here: try again in a minute."
_YOURS = "You have as much waiting as you may here: wait for its answers first."
_LATE = f"Many people draw here now: yours waited for {PATIENCE} seconds and is given up. Try again in some minutes."


class Turns:
    """Stands before a queue's `push`. Where visitors are strangers, it also says whose event comes next."""

    def __init__(
        self,
        queue: Any,
        allows: Capabilities,
        clock: Callable[[], float] = time.monotonic,
        listens: Callable[[str], bool] = lambda session: True,
    ):
        """listens: whether anybody is there to hear what a session is answered."""
        self._queue, self._allows, self._push, self._clock, self._listens = queue, allows, queue.push, clock, listens
        self._process, self._had, self._changed = queue.process_events, Lately(HALF, clock), True
        self._began: dict[Event, float] = {}
        self._people: dict[str, dict[str, float]] = {}  # who asked last from each address, and when
        self._told: WeakKeyDictionary[Event, int] = WeakKeyDictionary()  # the place that each knows
        queue.push = self.push
        if allows.calls is not None:
            queue.get_events, queue.process_events = self.next, self.process
            queue.broadcast_estimations = lambda *_: None  # by the order in which they came; `look` tells the true one
            callers.ask_who_waits(self.others_wait)

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, str]:
        """As Gradio's: (whether it was taken, the event's id or what is wrong, the kind of what is wrong)."""
        refused = self._refuse(body, request.scope)
        if refused:
            return False, refused, "queue_full"
        taken = await self._push(body, request, username)
        self._changed = True
        return taken

    def waiting(self) -> Iterator[Event]:
        """All that wait or run."""
        for line in self._queue.event_queue_per_concurrency_id.values():
            yield from line.queue
        for running in self._queue.active_jobs:
            yield from running or ()

    def next(self) -> tuple[list[Event], bool, str] | None:
        """As Gradio's `get_events`: what is to run now, of the visitor who has had the least; None while nothing may.

        A line's limit is one visitor's where it was everyone's, so that no visitor waits for another's import. What
        draws still goes one by one. Gradio asks every millisecond while anything waits.
        """
        if not self._changed:
            return None
        lines = self._queue.event_queue_per_concurrency_id.values()
        running = [event for events in self._queue.active_jobs for event in events or ()]
        found: list[Event] = []
        for line in lines:
            if line.queue:
                found += _may_start(line, [one for one in running if one.concurrency_id == line.concurrency_id])
        if not found:
            self._changed = False
            return None
        event = min(found, key=self._rank(running))
        self._queue.event_queue_per_concurrency_id[event.concurrency_id].queue.remove(event)
        return [event], event.fn.batch, event.concurrency_id

    def look(self) -> None:
        """To be called each second: who waits for the device is told their place and about how long it will take, and
        one who has waited for too long is told that.
        """
        line = self._queue.event_queue_per_concurrency_id.get(DEVICE)
        if line is None or self._allows.calls is None:
            return
        for event in [one for one in line.queue if self._clock() - one.enqueue_time > PATIENCE]:
            line.queue.remove(event)
            self._queue.event_ids_to_events.pop(event._id, None)
            said = {"error": _LATE, "visible": True, "duration": 10, "title": "Error"}
            self._queue.send_message(event, ProcessCompletedMessage(output=said, title="Error", success=False))
        running = [event for events in self._queue.active_jobs for event in events or ()]
        for place, event in enumerate(sorted(line.queue, key=self._rank(running))):
            if self._told.get(event) != place and self._listens(event.session_hash):
                self._told[event] = place
                took = self._queue.process_time_per_fn.get(event.fn)
                eta = took.avg_time * (place + 1) if took else None
                told = EstimationMessage(rank=place, rank_eta=eta, queue_size=len(line.queue))
                self._queue.send_message(event, told)

    def _rank(self, running: list[Event]) -> Callable[[Event], tuple[float, ...]]:
        """The smallest comes first: an event with a listener, then by the time that its address has had, then its
        visitor, then by when it came.

        An address from which several visitors ask lately has a share for each of them, up to SHARES. Time on the device
        counts against what draws, all other time against all else.
        """
        people: dict[str, set[str]] = {}
        lines = self._queue.event_queue_per_concurrency_id.values()
        for one in [*running, *(one for line in lines for one in line.queue)]:
            people.setdefault(_address(one), self._lately_at(_address(one))).add(_who_of(one))
        now, runs = self._clock(), defaultdict[str, float](float)
        for one in running:
            for name in _accounts(one):
                runs[name] += now - self._began.get(one, now) + A_MOMENT

        def rank(event: Event) -> tuple[float, ...]:
            shares = min(len(people[_address(event)]), SHARES)
            here, mine = (self._had.of(name) + runs[name] for name in _accounts(event))
            return not self._listens(event.session_hash), here / shares, mine, event.enqueue_time

        return rank

    def _lately_at(self, address: str) -> set[str]:
        """The visitors who had something there lately; no more of them than count."""
        return {who for who, when in self._people.get(address, {}).items() if self._clock() - when < HALF}

    async def process(self, events: list[Event], *given: Any) -> None:
        """As Gradio's `process_events`; the time that it takes counts as had."""
        began = self._clock()
        self._began |= dict.fromkeys(events, began)
        try:
            await self._process(events, *given)
        finally:
            self._changed = True
            for event in events:
                self._began.pop(event, None)
                for name in _accounts(event):
                    self._had.add(name, self._clock() - began)
                if len(self._people) > MOST_ADDRESSES:
                    self._people.clear()
                people = self._people.setdefault(_address(event), {})
                people.pop(_who_of(event), None)
                people[_who_of(event)] = self._clock()
                if len(people) > SHARES:
                    del people[next(iter(people))]

    def others_wait(self, who: str) -> int:
        """How many others than `who` wait to draw."""
        line = self._queue.event_queue_per_concurrency_id.get(DEVICE)
        waiting = [one for one in list(line.queue) if self._listens(one.session_hash)] if line else []
        return len({_who_of(one) for one in waiting} - {who})

    def _refuse(self, body: Any, scope: dict[str, Any]) -> str:
        if body.fn_index is None:
            return ""
        draws = get_fn(self._queue.blocks, None, body).concurrency_id == DEVICE
        every = list(self.waiting())
        weight = scope.get(WEIGHT, 0)
        if sum(_weight(one) for one in every) + weight > MOST_WEIGHT:
            return _FULL
        if draws and sum(one.concurrency_id == DEVICE for one in every) >= MOST_DRAWING:
            return _FULL
        if self._allows.calls is None:
            return ""
        who, address = _who(scope, body.session_hash), scope.get(ADDRESS, "")
        mine = [one for one in every if who and _who_of(one) == who]
        here = [one for one in every if address and _address(one) == address]
        return (
            _YOURS
            if self._too_many(mine, draws, weight, 1) or self._too_many(here, draws, weight, AT_ONE_ADDRESS)
            else ""
        )

    def _too_many(self, events: list[Event], draws: bool, weight: int, times: int) -> bool:
        allows = self._allows
        drawing = sum(one.concurrency_id == DEVICE for one in events)
        return (
            len(events) >= min(times * (allows.calls or 0), MOST_AT_ONE)
            or (draws and drawing >= times * (allows.line or 0))
            or sum(map(_weight, events)) + weight > min(times * MOST_WEIGHT_EACH, MOST_WEIGHT // 2)
        )


def _may_start(line: Any, running: list[Event]) -> list[Event]:
    """The first of each visitor in the line that may run beside those of it that do."""
    firsts: dict[str, Event] = {}
    for event in line.queue:
        firsts.setdefault(_who_of(event), event)
    limit = line.concurrency_limit
    if limit is None:
        return list(firsts.values())
    if line.concurrency_id == DEVICE:
        return list(firsts.values()) if len(running) < limit else []
    if len(running) >= max(limit, AT_ONCE):
        return []
    theirs, here = Counter(map(_who_of, running)), Counter(map(_address, running))
    return [
        event
        for who, event in firsts.items()
        if theirs[who] < limit and here[_address(event)] < max(limit, AT_ONE_AT_ONCE)
    ]


def _who(scope: dict[str, Any], session: str | None) -> str:
    return scope.get(SCOPE) or (_without_cookie(session) if session else "")


@lru_cache(10_000)
def _without_cookie(session: str) -> str:
    return name_of(session, cookie=False)


def _who_of(event: Event) -> str:
    return _who(event.request.scope, event.session_hash)


def _accounts(event: Event) -> tuple[str, str]:
    """Where time is counted against its address and its visitor."""
    kind = DEVICE if event.concurrency_id == DEVICE else ""
    return f"{kind} at {_address(event)}", f"{kind} of {_who_of(event)}"


def _address(event: Event) -> str:
    return event.request.scope.get(ADDRESS, "")


def _weight(event: Event) -> int:
    return event.request.scope.get(WEIGHT, 0)


def caller_is_gone() -> Callable[[], bool]:
    """To be asked while the event runs that Gradio handles now."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return lambda: event is not None and not event.alive
