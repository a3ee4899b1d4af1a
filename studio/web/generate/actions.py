"""Generate, strength sweep and stop, and whose turn it is. Above the sub-tabs of the Generate tab.

A click is queued at once, and drawn when those before it are done: no click is lost. While something is drawn, Stop
stands in the place of Generate (by the style sheet, as the line says what goes on), and Ctrl+Enter queues another one.
"""

import random
import threading
from collections import deque
from typing import Any

import gradio as gr

from studio.services.generation import MAX_SEED
from studio.services.jobs import running
from studio.web.components.fields import UNQUEUED
from studio.web.generate.context import GenerateContext
from studio.web.generate.stage import BESIDE, OFF, OVER

_waiting: dict[str, deque[threading.Event]] = {}  # session -> how to stop each click that waits
_current: dict[str, threading.Event] = {}  # session -> how to stop what is drawn


class Actions:
    """The buttons, and how with and without adapters are compared."""

    queued: Any

    def __init__(self, context: GenerateContext):
        self.context = context
        with gr.Row(elem_classes="actions", elem_id="generate-bar"):
            self.generate = gr.Button("Generate", variant="primary", elem_id="go", min_width=140, scale=3)
            self.stop = gr.Button("Stop", variant="stop", elem_id="stop-drawing", min_width=140, scale=3)
            self.sweep = gr.Button("Strength sweep", elem_id="sweep", min_width=150, scale=2)
            self.compare = gr.Radio(
                [BESIDE, OVER, OFF],
                value=BESIDE,
                label="With and without",
                elem_id="with-without",
                min_width=270,
                scale=3,
            )

    def wire(self) -> None:
        self.stop.click(halt, None, None, **UNQUEUED)

    def queue_clicks(self, line: gr.HTML) -> Any:
        """The event to follow with drawing: every click and every Enter counts, also while an image is drawn."""
        form = self.context.form
        clicks = [self.generate.click, form.prompt.submit]
        kept, shown = [form.keep_seed, form.seed], [form.seed, line]
        self.queued = gr.on(clicks, line_up, kept, shown, trigger_mode="multiple", **UNQUEUED)
        return self.queued


def build(context: GenerateContext) -> Actions:
    """The buttons. The form is built before them."""
    part = Actions(context)
    context.actions = part
    part.wire()
    return part


def line_up(request: gr.Request, keep_seed, seed):
    """Generate was clicked: (the seed to use, the line above the image)."""
    _waiting.setdefault(request.session_hash or "", deque()).append(threading.Event())
    line = gr.skip() if running("generate") else busy_line("Starting")
    return seed if keep_seed else random.randint(0, MAX_SEED), line


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


def busy_line(html: str) -> str:
    """The line while something is drawn. html: what it says."""
    return f'<div class="drawing busy"><div class="how-far">{html}</div></div>'
