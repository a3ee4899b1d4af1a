"""Generate, strength sweep and stop, and whose turn it is. Above the sub-tabs of the Generate tab.

A click is queued at once, and drawn when those before it are done: no click is lost.
"""

import random
import threading
from collections import deque
from typing import Any

import gradio as gr

from studio.services.generation import MAX_SEED
from studio.web.components.fields import UNQUEUED
from studio.web.generate.context import GenerateContext

BESIDE, OVER, OFF = "Side by side", "Slider", "Off"

_waiting: dict[str, deque[threading.Event]] = {}  # session -> how to stop each click that waits
_current: dict[str, threading.Event] = {}  # session -> how to stop what is drawn


class Actions:
    """queued: the event to follow with drawing. Every click and every Enter counts, also while an image is drawn."""

    queued: Any

    def __init__(self, context: GenerateContext):
        self.context = context
        with gr.Row(elem_classes="actions", elem_id="generate-bar"):
            self.generate = gr.Button("Generate", variant="primary", elem_id="go", min_width=140, scale=3)
            self.sweep = gr.Button("Strength sweep", elem_id="sweep", min_width=160)
            self.stop = gr.Button("Stop", elem_id="stop-drawing", min_width=70, scale=0)
            self.compare = gr.Dropdown(
                [BESIDE, OVER, OFF], value=BESIDE, label="With and without", elem_id="with-without", min_width=190
            )

    def wire(self) -> None:
        self.stop.click(halt, None, None, **UNQUEUED)
        form = self.context.form
        clicks = [self.generate.click, form.prompt.submit]
        kept = [form.keep_seed, form.seed]
        self.queued = gr.on(clicks, line_up, kept, form.seed, trigger_mode="multiple", **UNQUEUED)


def build(context: GenerateContext) -> Actions:
    """The buttons. The form is built before them."""
    part = Actions(context)
    context.actions = part
    part.wire()
    return part


def line_up(request: gr.Request, keep_seed, seed):
    """Generate was clicked; the seed to use."""
    _waiting.setdefault(request.session_hash or "", deque()).append(threading.Event())
    return seed if keep_seed else random.randint(0, MAX_SEED)


def next_turn(session: str, lined_up: bool = True) -> threading.Event:
    """The turn of the click that came first, or a turn of its own."""
    line = _waiting.get(session)
    event = line.popleft() if lined_up and line else threading.Event()
    _current[session] = event
    return event


def waiting(session: str) -> int:
    """How many clicks wait."""
    return len(_waiting.get(session, ()))


def halt(request: gr.Request) -> None:
    """Stop what is drawn for this session, and all that waits."""
    session = request.session_hash or ""
    for event in (*_waiting.get(session, ()), *filter(None, [_current.get(session)])):
        event.set()
