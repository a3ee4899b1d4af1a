"""What the Generate tab draws: the picture with and without its adapters, and the strip of strengths."""

import base64
import io
import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.server.owners import PerOwner
from studio.services import gallery as actions_history
from studio.services import generation
from studio.services.generation import recipe_line
from studio.services.jobs import Job
from studio.web.components.clickable import picture_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE, gallery
from studio.web.components.html import empty, progress_bar, time_left
from studio.web.generate import adapter_rows
from studio.workspace import Workspace

NOTHING = empty("No picture yet", "Write a prompt and press Generate. Adapters are optional: add one to compare.")
BESIDE, OVER, OFF = "Side by side", "Slider", "Off"
LOOK_EVERY = 0.2  # seconds between two looks at what is being drawn
EARLIER = 16  # pictures shown below


@dataclass(frozen=True)
class Results:
    """What shows a result; `shown` answers for all of `parts`, in this order."""

    blank: gr.HTML
    without: gr.Image
    picture: gr.Image
    both: gr.ImageSlider
    several: gr.Gallery
    line: gr.HTML
    film: gr.HTML
    before: gr.Markdown
    earlier: gr.Gallery

    @property
    def parts(self) -> list[Any]:
        return [self.blank, self.without, self.picture, self.both, self.several, self.line, self.before, self.earlier]


def make_results() -> Results:
    """Build it where the caller stands."""
    line = gr.HTML(_at_rest(""), elem_id="recipe")
    blank = gr.HTML(NOTHING)
    with gr.Row():
        frame = {"interactive": False, "type": "filepath", "format": "png", "visible": False}
        frame |= {"buttons": ["download", "fullscreen"], "elem_classes": "picture", "min_width": 200}
        without = gr.Image(label="Without adapters", elem_id="without", **frame)
        picture = gr.Image(label="Picture", elem_id="picture", **frame)
    both = gr.ImageSlider(
        label="Without | with adapters", elem_id="both", interactive=False, type="filepath", format="png",
        visible=False, buttons=["fullscreen"], max_height=620, show_label=False,
    )  # fmt: skip
    several = gallery("several")
    film = gr.HTML("", elem_id="film", html_template="${value}", js_on_load=adapter_rows.STRIP_JS)
    before = gr.Markdown("### Earlier pictures", elem_classes="heading", visible=False)
    earlier = gallery("earlier")
    return Results(blank, without, picture, both, several, line, film, before, earlier)


def draw(workspace: Workspace, session: str, recipe: Any, bare: Any, how: str, stop: threading.Event) -> Iterator[list]:
    """Updates for `Results.parts` while the recipe is drawn, and at its end. `bare`: the recipe without adapters."""
    compared = how != OFF and bare is not None
    known = _without.get(repr(bare), "") if compared else ""
    first = [bare.model_copy(update={"count": 1})] if compared and not Path(known or "-").is_file() else []
    job = generation.start_pictures(workspace, [*first, recipe])
    for said in _watch(job, session, stop):
        yield _only_line(said)
    if job.error:
        raise StudioError(job.error)
    paths = [path for _, path in job.result.pictures]
    if first and paths:
        known = _without[repr(bare)] = str(paths.pop(0))
        while len(_without) > 100:
            del _without[next(iter(_without))]
    if not paths:
        yield _only_line(_at_rest("Stopped."))
        return
    _seeds[session] = recipe.seed
    line = _at_rest(recipe_line(recipe) + (" · stopped" if job.state == "stopped" else ""))
    yield shown([str(path) for path in paths], known if compared else None, how) + [line, *earlier_pictures(workspace)]


def shown(paths: list[str], without: str | None, how: str) -> list[Any]:
    """Updates for blank, without, picture, both and several."""
    hidden = gr.update(visible=False)
    if len(paths) > 1:
        first = [(without, "without adapters")] if without else []
        return [hidden, hidden, hidden, hidden, gr.update(value=[*first, *paths], visible=True)]
    if without and how == OVER:
        return [hidden, hidden, hidden, gr.update(value=(without, paths[0]), visible=True), hidden]
    label = "With adapters" if without else "Picture"
    return [
        hidden, gr.update(value=without, visible=without is not None),
        gr.update(value=paths[0], visible=True, label=label), hidden, hidden,
    ]  # fmt: skip


def draw_strip(workspace: Workspace, recipe: Any, stop: threading.Event) -> list[Any]:
    """Updates for blank, film, before and earlier: the first adapter from 0 to 1.5."""
    from studio.generation import save_image
    from studio.generation.strength_sweep import at_strength

    if not recipe.adapters:
        raise StudioError("A strip shows one adapter at several strengths: add an adapter first.")
    progress = gr.Progress()
    found = generation.strip(recipe, 0, stop, lambda done, total: progress((done, total), desc="Strip", unit="steps"))
    if not found:
        return [gr.skip()] * 4
    links = [
        (strength, picture_link(save_image(image, at_strength(recipe, strength), workspace.outputs)))
        for strength, image in found
    ]
    film = adapter_rows.strip_html(links, recipe.adapters[0].title)
    return [gr.update(visible=False), film, *earlier_pictures(workspace)]


def earlier_pictures(workspace: Workspace) -> list[Any]:
    """Updates for before and earlier."""
    pictures = [str(workspace.outputs / name) for name, _ in actions_history.newest_files(workspace)[:EARLIER]]
    return [gr.update(visible=bool(pictures)), gr.update(value=pictures, visible=bool(pictures))]


# Turns --------------------------------------------------------------------------------------------------------------
# A click is put in the line at once, and drawn when those before it are done: what was pressed is never lost.

_waiting: dict[str, deque[threading.Event]] = {}  # session -> how to stop each click that waits
_current: dict[str, threading.Event] = {}  # session -> how to stop what is drawn
_seeds: dict[str, int] = {}  # session -> the seed of its last picture
_without: PerOwner[str] = PerOwner()  # recipe -> picture without adapters: a slider costs one picture


def line_up(request: gr.Request) -> None:
    """A click came."""
    _waiting.setdefault(request.session_hash or "", deque()).append(threading.Event())


def next_turn(session: str, lined_up: bool = True) -> threading.Event:
    """The turn of the click that came first, or one of its own."""
    line = _waiting.get(session)
    event = line.popleft() if lined_up and line else threading.Event()
    _current[session] = event
    return event


def halt(request: gr.Request) -> None:
    """Stop what is drawn for this session, and all that waits."""
    session = request.session_hash or ""
    for event in (*_waiting.get(session, ()), *filter(None, [_current.get(session)])):
        event.set()


def last_seed(request: gr.Request):
    return _seeds.get(request.session_hash or "", gr.skip())


def _watch(job: Job, session: str, stop: threading.Event) -> Iterator[str]:
    last = None
    while job.state == "running":
        if stop.is_set():
            job.stop()
        state = (job.done, job.message, len(_waiting.get(session, ())))
        if state != last:
            last = state
            yield _under_way(job, state[2])
        if job.thread:
            job.thread.join(LOOK_EVERY)


def _under_way(job: Job, waiting: int) -> str:
    """The small look, a bar, and how long it will take. waiting: clicks that come after it."""
    more = f" · {waiting} more waiting" if waiting else ""
    look = job.result.latent_preview if job.result else None
    picture = ""
    if look is not None:
        stream = io.BytesIO()
        look.save(stream, "PNG")
        picture = f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}" alt="">'
    words = escape((job.message or "Loading the base model") + time_left(job) + more)
    return (
        f'<div class="drawing"><div class="look">{picture}</div>'
        f'<div class="how-far">{progress_bar(job.done, job.total)}<div class="note">{words}</div></div></div>'
    )


def _at_rest(text: str) -> str:
    return f'<div class="drawing"><div class="note mono">{escape(text)}</div></div>'


def _only_line(line: str) -> list[Any]:
    return [*[gr.skip()] * 5, line, gr.skip(), gr.skip()]


def wire_line(go: gr.Button, prompt: gr.Textbox, stop: gr.Button) -> Any:
    """(event to follow with drawing): every click and every Enter lines up, also while something is drawn."""
    quiet = {**NO_PROGRESS, **PRIVATE}
    stop.click(halt, None, None, queue=False, **quiet)
    return gr.on([go.click, prompt.submit], line_up, None, None, queue=False, trigger_mode="multiple", **quiet)
