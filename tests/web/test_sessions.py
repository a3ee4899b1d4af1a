"""What the server keeps of open pages, and of answers that nobody fetches."""

import asyncio
from types import SimpleNamespace

import gradio as gr
import pytest
from gradio.server_messages import ProcessCompletedMessage
from gradio.state_holder import StateHolder

from studio.web import sessions
from studio.web.sessions import Answers, Sessions


@pytest.fixture(scope="module")
def page():
    with gr.Blocks() as demo:
        demo.held, demo.text = gr.State([1]), gr.Textbox("as built")
    return demo


def test_a_session_to_which_nothing_was_written_is_not_kept(page):
    held = Sessions(page)
    session = held["a"]
    assert session[page.text._id] is page.text and page.text._id in session
    assert held["a"] is session, "two events of a page share its state"
    assert len(held.session_data) == 0 and "a" not in held


@pytest.mark.parametrize("kind", [Sessions, StateHolder])
def test_what_is_written_is_that_sessions_alone(page, kind):
    """As Gradio's own sessions have it."""
    held = kind(page) if kind is Sessions else StateHolder()
    held.set_blocks(page)
    other = gr.Textbox("changed", render=False)
    held["a"][page.text._id] = other
    held["a"][page.held._id] = [2]
    held["b"][page.held._id].append(3)
    assert held["a"][page.text._id] is other and held["b"][page.text._id] is page.text
    assert (held["a"][page.held._id], held["b"][page.held._id], held["c"][page.held._id]) == ([2], [1, 3], [1])
    assert page.default_config.blocks[page.text._id] is page.text and page.held.value == [1]


def test_an_open_page_is_never_dropped_for_others(page):
    held = Sessions(page, most=3)
    with held.opened("mine"):
        held["mine"][page.held._id] = "mine"
        for number in range(50):
            held[f"invented-{number}"][page.held._id] = number
        assert held["mine"][page.held._id] == "mine"
        assert list(held.session_data) == ["invented-48", "invented-49", "mine"]
    for number in range(3):
        held[f"later-{number}"][page.held._id] = number
    assert "mine" not in held


def test_a_closed_pages_state_goes_after_an_hour(page, monkeypatch):
    held, now = Sessions(page), [0.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    with held.opened("open"):
        for name in ("open", "closed"):
            held[name][page.held._id] = name
        now[0] += sessions.IDLE + 1
        held.delete_all_expired_state()
        assert list(held.session_data) == ["open"]
    held.delete_all_expired_state()
    assert list(held.session_data) == ["open"], "its hour begins when the page is closed"


def queue(**pending):
    """As Gradio's: {session: its events that have no answer which was read}, {event: what runs}."""
    return SimpleNamespace(pending_event_ids_session=pending, event_ids_to_events={})


def waiting(*sizes: int) -> asyncio.Queue:
    found: asyncio.Queue = asyncio.Queue()
    for size in sizes:
        found.put_nowait(ProcessCompletedMessage(output={"data": ["x" * size]}, success=True))
    return found


def test_answers_go_when_they_are_read_or_when_too_many_wait(monkeypatch):
    monkeypatch.setattr(sessions, "UNREAD_BYTES", 2500)
    monkeypatch.setattr(sessions, "PLACE", 100)
    of = queue(read=set(), old={"1"}, running={"2"})
    of.event_ids_to_events["2"] = "it runs"
    answers = Answers(of, lambda session: session == "read, its page is open")
    answers |= {"read": waiting(), "read, its page is open": waiting()}
    answers |= {"old": waiting(1000), "running": waiting(9000)}
    answers.sweep(0)
    for second, name in ((0.5, "large"), (1, "new")):
        answers[name], of.pending_event_ids_session[name] = waiting(1000), {name}
        answers.sweep(second)
    assert set(answers) == {"read", "read, its page is open", "large", "running", "new"}
    answers.sweep(1 + sessions.READ)
    assert set(answers) == {"read, its page is open", "large", "running", "new"}
    answers.sweep(0.9 + sessions.UNREAD)
    assert set(answers) == {"read, its page is open", "running", "new"}
    answers.sweep(2 + sessions.UNREAD)
    assert set(answers) == {"read, its page is open", "running"} and set(of.pending_event_ids_session) == {"running"}
    del answers["gone"]  # as Gradio does when a reader hangs up


def test_places_of_answers_that_nobody_reads_are_bounded():
    """Each has a list of messages and names, which Gradio keeps however small they are: 5,500 were, after an attack."""
    many = sessions.UNREAD_BYTES // sessions.PLACE
    of = queue(**{f"{number}": {f"{number}"} for number in range(many + 50)})
    answers = Answers(of, lambda session: session == "0")
    answers |= {name: waiting() for name in of.pending_event_ids_session}
    answers.sweep(0)
    assert len(answers) == len(of.pending_event_ids_session) == many and "0" in answers
