"""Who may put how much into the queue of events, and whether the caller of an event still waits for its answer.

Gradio counts the events of everyone together, so that one visitor can take all places.
"""

from collections.abc import Callable, Iterator
from typing import Any

from gradio.context import LocalContext
from gradio.queueing import Event
from gradio.route_utils import get_fn

from studio.server.middleware import WEIGHT
from studio.server.permissions import MB, Capabilities
from studio.server.visitors import ADDRESS, SCOPE

DEVICE = "device"  # the concurrency_id of events that draw
MOST_DRAWING = 100  # of all that wait, so that what needs no device always finds a place
AT_ONE_ADDRESS, MOST_AT_ONE = 20, 200  # a class behind one router has as much as so many visitors, and so many calls
MOST_WEIGHT, MOST_WEIGHT_EACH = 64 * MB, 8 * MB  # of all events that wait, and of one visitor's
_FULL = "Too much waits here: try again in a minute."
_YOURS = "You have as much waiting as you may here: wait for its answers first."


class Turns:
    """Stands before a queue's `push`."""

    def __init__(self, queue: Any, allows: Capabilities):
        self._queue, self._allows, self._push = queue, allows, queue.push

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, str]:
        """As Gradio's: (whether it was taken, the event's id or what is wrong, the kind of what is wrong)."""
        refused = self._refuse(body, request.scope)
        return (False, refused, "queue_full") if refused else await self._push(body, request, username)

    def waiting(self) -> Iterator[Event]:
        """All that wait or run."""
        for line in self._queue.event_queue_per_concurrency_id.values():
            yield from line.queue
        for running in self._queue.active_jobs:
            yield from running or ()

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
        mine = [one for one in every if who and _who(one.request.scope, one.session_hash) == who]
        here = [one for one in every if address and one.request.scope.get(ADDRESS) == address]
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


def _who(scope: dict[str, Any], session: str | None) -> str:
    return scope.get(SCOPE) or session or ""


def _weight(event: Event) -> int:
    return event.request.scope.get(WEIGHT, 0)


def caller_is_gone() -> Callable[[], bool]:
    """To be asked while the event runs that Gradio handles now."""
    blocks, event_id = LocalContext.blocks.get(None), LocalContext.event_id.get(None)
    event = blocks._queue.event_ids_to_events.get(event_id) if blocks and event_id else None
    return lambda: event is not None and not event.alive
