"""What the Generate tab draws: the image with and without its adapters, and the strength sweep."""

import base64
import io
import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.server.owners import PerOwner
from studio.services import gallery, generation
from studio.services.generation import recipe_line
from studio.services.jobs import Job
from studio.services.vocabulary import display_scale
from studio.web.components import fields
from studio.web.components.clickable import image_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate import actions
from studio.web.generate.actions import OFF, OVER
from studio.web.generate.context import GenerateContext
from studio.web.generate.vocabulary import Examples
from studio.web.turns import DEVICE
from studio.workspace import Workspace

NOTHING = ("No image yet", "Write a prompt and press Generate. Adapters are optional: add one to compare.")
POLL_EVERY = 0.2  # seconds between two polls of the job
EARLIER = 16  # images shown below
IN_LINE = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
KEYS_JS = """
if (!window.studioGenerateKey) document.addEventListener('keydown', window.studioGenerateKey = event => {
  const go = document.querySelector('#go');
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.repeat || !go?.offsetParent) return;
  event.preventDefault();
  go.click();
}, true);
"""  # Ctrl+Enter generates, wherever the cursor is, while the tab is open
SWEEP_JS = """
element.addEventListener('input', event => {
  const range = event.target.closest('.frame-slider input[type=range]');
  if (!range) return;
  const slider = range.closest('.frame-slider');
  for (const frame of slider.querySelectorAll('img')) frame.hidden = frame.dataset.frame !== range.value;
  slider.querySelector('.slider-value').textContent = range.dataset.strengths.split(',')[Number(range.value)];
});
"""

_without: PerOwner[str] = PerOwner()  # recipe -> image without adapters: a slider costs one image


class Result:
    """The sub-tab.

    made     whether there is an image: moving a slider draws again only when there is one to compare with
    frames   what `images` answers for
    """

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Image", id="drawn", elem_id="tab-drawn"):
            self.made = gr.State(False)
            self.line = gr.HTML(at_rest(""), elem_id="recipe", html_template="${value}", js_on_load=KEYS_JS)
            self.examples = Examples(context, *NOTHING)
            self.blank = self.examples.box
            with gr.Row():
                frame: dict[str, Any] = {"interactive": False, "type": "filepath", "format": "png", "visible": False}
                frame |= {"buttons": ["download", "fullscreen"], "elem_classes": "large-image", "min_width": 200}
                self.without = gr.Image(label="Without adapters", elem_id="without", **frame)
                self.image = gr.Image(label="Image", elem_id="image", **frame)
            self.both = gr.ImageSlider(
                label="Without | with adapters",
                elem_id="both",
                interactive=False,
                type="filepath",
                format="png",
                visible=False,
                buttons=["fullscreen"],
                max_height=620,
                show_label=False,
            )
            self.several = fields.gallery("several")
            self.sweep = gr.HTML("", elem_id="sweep-result", html_template="${value}", js_on_load=SWEEP_JS)
            self.heading = gr.Markdown("### Earlier images", elem_classes="heading", visible=False)
            self.earlier = fields.gallery("earlier")
        self.frames = [self.blank, self.without, self.image, self.both, self.several]
        self.outputs = [*self.frames, self.line, self.sweep, self.heading, self.earlier, self.made]

    def wire(self) -> None:
        context, buttons, below = self.context, self.context.actions, [self.heading, self.earlier]
        inputs = [buttons.compare, *context.inputs]
        buttons.queued.then(self.generate, inputs, self.outputs, trigger_mode="multiple", **NO_PROGRESS, **IN_LINE)
        for row in context.rows.rows:
            gr.on(
                [row.strength.release, row.on.input],
                self.generate_again,
                [self.made, *inputs],
                self.outputs,
                trigger_mode="always_last",
                **NO_PROGRESS,
                **IN_LINE,
            )
        self.examples.wire(context)
        swept = [self.blank, self.sweep]
        buttons.sweep.click(self.draw_sweep, context.inputs, [*swept, *below], show_progress_on=swept, **IN_LINE)
        context.demo.load(self.earlier_images, None, below, **fields.QUIET)

    @show_errors
    def generate(self, request: gr.Request, how, *values):
        session = request.session_hash or ""
        turn = actions.next_turn(session)
        for updates in self.drawn(session, turn, how, *values):
            yield updates | {self.sweep: "", self.made: True}  # the sweep was of another recipe

    @show_errors
    def generate_again(self, request: gr.Request, made, how, *values):
        """A strength was let go: the same image with it, once there is one."""
        if not made:
            yield gr.skip()  # a generator that yields nothing empties the outputs
            return
        session = request.session_hash or ""
        yield from self.drawn(session, actions.next_turn(session, lined_up=False), how, *values)

    def drawn(self, session: str, turn: threading.Event, how: str, *values) -> Iterator[dict[Any, Any]]:
        """Updates while the recipe of the form is drawn, and at its end. Raises StudioError."""
        if turn.is_set():
            yield {self.line: gr.skip()}
            return
        recipe = self.context.recipe(*values)
        bare = recipe.model_copy(update={"adapters": ()}) if recipe.adapters and how != OFF else None
        known = _without.get(repr(bare), "") if bare else ""
        first = [bare.model_copy(update={"count": 1})] if bare and not Path(known or "-").is_file() else []
        job = generation.start_generation(self.workspace, [*first, recipe])
        for line in watch(job, session, turn):
            yield {self.line: line}
        if job.error:
            yield {self.line: at_rest("")}
            raise StudioError(job.error)
        paths = [str(path) for _, path in job.result.images]
        if first and paths:
            known = _without[repr(bare)] = paths.pop(0)
            while len(_without) > 100:
                del _without[next(iter(_without))]
        if not paths:
            yield {self.line: at_rest("Stopped.")}
            return
        line = at_rest(recipe_line(recipe) + (" · stopped" if job.state == "stopped" else ""))
        shown = self.images(paths, known if bare else None, how, max(recipe.width, recipe.height))
        yield shown | self.earlier_images() | {self.line: line}

    def images(self, paths: list[str], without: str | None, how: str, side: int) -> dict[Any, Any]:
        """Updates for `frames`. side: of the images in pixels; small ones are shown larger, unsmoothed."""
        found: dict[Any, Any] = dict.fromkeys(self.frames, gr.update(visible=False))
        if len(paths) > 1:
            first = [(without, "without adapters")] if without else []
            return found | {self.several: gr.update(value=[*first, *paths], visible=True)}
        if without and how == OVER:
            return found | {self.both: gr.update(value=(without, paths[0]), visible=True)}
        label, look = "With adapters" if without else "Image", ["large-image", f"times-{display_scale(side)}"]
        return found | {
            self.without: gr.update(value=without, visible=without is not None, elem_classes=look),
            self.image: gr.update(value=paths[0], visible=True, label=label, elem_classes=look),
        }

    @show_errors
    def draw_sweep(self, request: gr.Request, *values):
        """The first adapter at strengths from 0 to 1.5."""
        from studio.generation import save_image
        from studio.generation.strength_sweep import at_strength

        turn = actions.next_turn(request.session_hash or "", lined_up=False)
        recipe = self.context.recipe(*values)
        if not recipe.adapters:
            raise StudioError("A strength sweep shows one adapter at several strengths: add an adapter first.")
        progress = gr.Progress()
        found = generation.strength_sweep(
            recipe, 0, turn, lambda done, total: progress((done, total), desc="Strength sweep", unit="steps")
        )
        if not found:
            return gr.skip()
        links = [
            (strength, image_link(save_image(image, at_strength(recipe, strength), self.workspace.outputs)))
            for strength, image in found
        ]
        html = sweep_html(links, recipe.adapters[0].title)
        return self.earlier_images() | {self.blank: gr.update(visible=False), self.sweep: html}

    def earlier_images(self) -> dict[Any, Any]:
        files = earlier(self.workspace)
        visible = gr.update(visible=bool(files))
        return {self.heading: visible, self.earlier: gr.update(value=files, visible=bool(files))}


def build(context: GenerateContext) -> Result:
    """The sub-tab. Form, rows and actions are built before it."""
    part = Result(context)
    part.wire()
    return part


def earlier(workspace: Workspace) -> list[str]:
    return [str(workspace.outputs / name) for name, _ in gallery.newest_files(workspace)[:EARLIER]]


def watch(job: Job, session: str, stop: threading.Event) -> Iterator[str]:
    """HTML of the line whenever the job has news, until it ends."""
    last = None
    while job.state == "running":
        if stop.is_set():
            job.stop()
        state = (job.done, job.message, actions.waiting(session))
        if state != last:
            last = state
            yield under_way(job, state[2])
        if job.thread:
            job.thread.join(POLL_EVERY)


def under_way(job: Job, waiting: int) -> str:
    """The latent preview, a bar, and the time that is left. waiting: clicks that come after it."""
    more = f" · {waiting} more queued" if waiting else ""
    preview = job.result.latent_preview if job.result else None
    image = ""
    if preview is not None:
        stream = io.BytesIO()
        preview.save(stream, "PNG")
        image = f'<img src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}" alt="">'
    text = escape((job.message or "Loading the base model") + time_left(job) + more)
    return (
        f'<div class="drawing"><div class="latent-preview">{image}</div>'
        f'<div class="how-far">{progress_bar(job.done, job.total)}<div class="note">{text}</div></div></div>'
    )


def at_rest(text: str) -> str:
    return f'<div class="drawing"><div class="note mono">{escape(text)}</div></div>'


def sweep_html(images: list[tuple[float, str]], title: str) -> str:
    """One image at a time: each is sent once, the slider only shows another one. images: (strength, address)."""
    frames = "".join(
        f'<img src="{escape(link)}" alt="{escape(title)} at {strength:g}" data-frame="{index}"'
        f"{'' if index == 0 else ' hidden'}>"
        for index, (strength, link) in enumerate(images)
    )
    marks = "".join(f"<span>{strength:g}</span>" for strength, _ in images)
    return (
        f'<div class="frame-slider"><div class="note"><b>{escape(title)}</b> at '
        f'<b class="slider-value">{images[0][0]:g}</b></div>'
        f'<div class="slider-frames">{frames}</div>'
        f'<input type="range" min="0" max="{len(images) - 1}" value="0" step="1" aria-label="Strength of '
        f'{escape(title)}" data-strengths="{",".join(f"{strength:g}" for strength, _ in images)}">'
        f'<div class="slider-marks">{marks}</div></div>'
    )
