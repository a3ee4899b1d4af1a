"""Whose event comes next, where visitors are strangers."""

import pytest

from studio.server.lately import Lately
from studio.server.permissions import OWN, VISITED
from studio.server.visitors import ADDRESS, SCOPE
from studio.web.turns import AT_ONCE, DEVICE, HALF, PATIENCE, Turns
from tests.serving import run_apart


class Event:
    def __init__(self, **facts):
        self.__dict__ |= facts


class Queue:
    """As much of Gradio's as Turns looks at."""

    def __init__(self):
        self.event_queue_per_concurrency_id, self.active_jobs = {}, []
        self.blocks, self.now = None, 0.0
        self.event_ids_to_events, self.process_time_per_fn, self.said = {}, {}, []

    async def push(self, body, request, username):
        return True, "", "success"

    async def process_events(self, events, seconds):
        self.now += seconds
        self.active_jobs.remove(events)

    def get_events(self):
        raise AssertionError("Gradio's own order")

    def send_message(self, event, message):
        self.said.append((event.session_hash, message))

    def line(self, name, limit=1):
        line = Event(queue=[], concurrency_id=name, concurrency_limit=limit)
        return self.event_queue_per_concurrency_id.setdefault(name, line).queue

    def wait(self, name, *callers, limit=1):
        for who, address in callers:
            request = Event(scope={SCOPE: who, ADDRESS: address})
            self.line(name, limit).append(
                Event(request=request, session_hash=who, concurrency_id=name, enqueue_time=self.now,
                                fn=Event(batch=False), _id=f"{len(self.event_ids_to_events)}")
            )  # fmt: skip
            self.now += 1e-6


@pytest.fixture
def queue():
    return Queue()


@pytest.fixture
def turns(queue):
    return Turns(queue, VISITED, clock=lambda: queue.now)


def begin(queue, turns) -> str:
    """Who is next, and runs from now on; "" when no visitor may."""
    turns._changed = True
    found = turns.next()
    if found:
        queue.active_jobs.append(found[0])
    return found[0][0].request.scope[SCOPE] if found else ""


def end(queue, turns, seconds):
    run_apart(turns.process(queue.active_jobs[0], seconds))


def test_who_has_had_least_draws_next(queue, turns):
    queue.wait(DEVICE, *[(f"greedy {number}", "6.6.6.6") for number in range(4)], ("a", "1.1.1.1"), ("b", "2.2.2.2"))
    assert begin(queue, turns) == "greedy 0" and begin(queue, turns) == ""
    end(queue, turns, 50)
    for who in ("a", "b", "greedy 1"):
        assert begin(queue, turns) == who
        end(queue, turns, 1)


def test_a_class_at_one_address_has_two_shares(queue, turns):
    queue.wait(DEVICE, *[("greedy", "6.6.6.6")] * 2, *[(f"{number}", "1.1.1.1") for number in range(4)])
    for who in ("greedy", "0", "1", "greedy", "2"):
        assert begin(queue, turns) == who
        end(queue, turns, 10)


def test_light_calls_under_way_do_not_cost_a_turn(queue, turns):
    queue.wait("list", ("a", "1.1.1.1"))
    assert begin(queue, turns) == "a"
    queue.wait(DEVICE, ("greedy", "6.6.6.6"), ("a", "1.1.1.1"))
    turns._had.add(f"{DEVICE} at 6.6.6.6", 1)
    assert begin(queue, turns) == "a"


def test_nobody_waits_for_another_visitors_import(queue, turns):
    queue.wait("import", *[("a", "6.6.6.6")] * 3, ("b", "6.6.6.6"), ("c", "6.6.6.6"), ("d", "1.1.1.1"))
    assert [begin(queue, turns) for _ in range(4)] == ["a", "d", "b", ""]


def test_a_line_is_bounded_in_all(queue, turns):
    queue.wait("import", *[(f"{number}", f"1.1.1.{number}") for number in range(2 * AT_ONCE)])
    assert all(begin(queue, turns) for _ in range(AT_ONCE)) and begin(queue, turns) == ""


def test_what_was_had_is_forgotten(queue):
    had = Lately(HALF, lambda: queue.now)
    had.add("a", 8)
    queue.now += 3 * HALF
    assert had.of("a") == 1 and had.of("b") == 0


def test_others_wait_to_draw(queue, turns):
    assert not turns.others_wait("a")
    queue.wait(DEVICE, ("a", "1.1.1.1"), ("c", "2.2.2.2"), ("c", "2.2.2.2"))
    assert turns.others_wait("b") == 2 and turns.others_wait("a") == 1


def test_what_nobody_listens_for_comes_last(queue):
    turns = Turns(queue, VISITED, lambda: queue.now, listens=lambda session: session == "a")
    queue.wait(DEVICE, ("gone", "6.6.6.6"), ("a", "1.1.1.1"))
    turns._had.add(f"{DEVICE} at 1.1.1.1", 99)
    assert begin(queue, turns) == "a" and not turns.others_wait("a")
    end(queue, turns, 1)
    assert begin(queue, turns) == "gone"


def test_who_waits_is_told_the_place_in_the_true_order_and_when_it_changes(queue, turns):
    queue.wait(DEVICE, ("greedy", "6.6.6.6"), ("a", "1.1.1.1"), ("b", "2.2.2.2"))
    turns._had.add(f"{DEVICE} at 6.6.6.6", 99)
    for one in queue.line(DEVICE):
        queue.process_time_per_fn[one.fn] = Event(avg_time=2.0)
    turns.look()
    told = [(who, one.rank, one.rank_eta, one.queue_size) for who, one in queue.said]
    assert told == [("a", 0, 2.0, 3), ("b", 1, 4.0, 3), ("greedy", 2, 6.0, 3)]
    turns.look()
    assert len(queue.said) == 3
    assert begin(queue, turns) == "a"
    turns.look()
    assert [(who, one.rank) for who, one in queue.said[3:]] == [("b", 0), ("greedy", 1)]


def test_who_waits_too_long_is_told_so_in_a_sentence(queue, turns):
    """44 of 336 drawings were once neither given nor refused within two minutes, where the device was short."""
    queue.wait(DEVICE, ("a", "1.1.1.1"))
    queue.now += PATIENCE + 1
    queue.wait(DEVICE, ("b", "2.2.2.2"))
    turns.look()
    assert [one.session_hash for one in queue.line(DEVICE)] == ["b"]
    who, message = queue.said[0]
    assert who == "a" and not message.success and "waited for" in message.output["error"]


def test_a_persons_own_events_stay_in_gradios_order(queue):
    turns = Turns(queue, OWN)
    assert queue.push == turns.push and queue.get_events != turns.next
