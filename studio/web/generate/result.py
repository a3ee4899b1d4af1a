"""What the Generate tab draws: the image with and without its adapters, and the strength sweep."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.server.owners import PerOwner
from studio.services import generation_jobs, image_groups
from studio.services.generation import recipe_line
from studio.services.jobs import Job
from studio.web.components import fields
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import note, progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate import actions
from studio.web.generate.actions import busy_line
from studio.web.generate.context import GenerateContext
from studio.web.generate.stage import OFF, STAGE_JS, Shown, older_of, shown_from, stage_html
from studio.web.generate.sweep import SWEEP_JS, strengths_of, sweep_html, waiting_html
from studio.web.generate.vocabulary import Examples
from studio.web.turns import DEVICE
from studio.workspace import Workspace

NOTHING = ("No image yet", "Write a prompt and press Generate. Adapters are optional: add one to compare.")
POLL_EVERY = 0.2  # seconds between two polls of the job
EARLIER = 16  # images shown below
IN_LINE = {"concurrency_id": DEVICE, "concurrency_limit": 1, **PRIVATE}
# Ctrl+Enter generates, wherever the cursor is, while the tab is open. Generate and Stop stand in one place: the focus
# goes from the one to the other.
KEYS_JS = """
if (!window.studioGenerateKey) document.addEventListener('keydown', window.studioGenerateKey = event => {
  const go = document.querySelector('#go');
  if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey) || event.repeat) return;
  if (!go || !document.querySelector('#prompt')?.offsetParent) return;
  event.preventDefault();
  go.click();
}, true);
let busy = false;
new MutationObserver(() => {
  const now = element.querySelector('.busy') !== null;
  if (now === busy) return;
  busy = now;
  const [go, stop] = [document.querySelector('#go'), document.querySelector('#stop-drawing')];
  if (document.activeElement !== (now ? go : stop)) return;
  (now ? stop : go).focus({preventScroll: true});
  if (now && innerWidth < 900) element.scrollIntoView({block: 'start', behavior: 'smooth'});  // below a long form
}).observe(element, {childList: true, subtree: true});
"""

HIDDEN = gr.update(visible=False)
_without: PerOwner[str] = PerOwner()  # recipe -> image without adapters: a slider costs one image


class Result:
    """The sub-tab.

    made     whether there is an image: moving a slider draws again only when there is one to compare with
    last     what stands on the stage, as `Shown.as_state`
    """

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Image", id="drawn", elem_id="tab-drawn"):
            self.made, self.last = gr.State(False), gr.State(None)
            self.line = gr.HTML(at_rest(""), elem_id="recipe", html_template="${value}", js_on_load=KEYS_JS)
            self.examples = Examples(context, *NOTHING)
            self.blank = self.examples.box
            self.stage = gr.HTML("", elem_id="stage", html_template="${value}", js_on_load=STAGE_JS)
            self.sweep = gr.HTML("", elem_id="sweep-result", html_template="${value}", js_on_load=SWEEP_JS)
            self.heading = gr.Markdown("### Earlier images", elem_classes="heading", visible=False)
            self.earlier = fields.gallery("earlier")
        self.outputs = [
            self.blank,
            self.stage,
            self.line,
            self.sweep,
            self.heading,
            self.earlier,
            self.made,
            self.last,
        ]

    def wire(self) -> None:
        context, buttons = self.context, self.context.actions
        inputs = [self.last, buttons.compare, *context.inputs]
        options: dict[str, Any] = {**NO_PROGRESS, **IN_LINE}
        queued = buttons.queue_clicks(self.line)
        queued.then(self.generate, inputs, self.outputs, trigger_mode="multiple", **options)
        for row in context.rows.rows:
            gr.on(
                [row.strength.release, row.on.input],
                self.generate_again,
                [self.made, *inputs],
                self.outputs,
                trigger_mode="always_last",
                **options,
            )
        self.examples.wire(context)
        buttons.compare.input(self.show_again, [self.last, buttons.compare], self.stage, **fields.QUIET)
        swept = [*self.outputs, context.tabs]
        buttons.sweep.click(self.draw_sweep, [self.last, *context.inputs], swept, **options)
        wanted = [context.to_sweep, self.last, *context.inputs]
        context.to_sweep.change(self.sweep_row, wanted, [*swept, context.to_sweep], **options)
        context.demo.load(self.earlier_images, None, [self.heading, self.earlier], **fields.QUIET)

    @show_errors
    def generate(self, request: gr.Request, last, how, *values):
        session = request.session_hash or ""
        turn = actions.next_turn(session)
        for updates in self.drawn(session, turn, last, how, *values):
            yield updates | {self.made: True}

    @show_errors
    def generate_again(self, request: gr.Request, made, last, how, *values):
        """A strength was let go: the same image with it, once there is one."""
        if not made:
            yield gr.skip()  # a generator that yields nothing empties the outputs
            return
        session = request.session_hash or ""
        yield from self.drawn(session, actions.next_turn(session, lined_up=False), last, how, *values)

    def drawn(self, session: str, turn: threading.Event, last: Any, how: str, *values) -> Iterator[dict[Any, Any]]:
        """Updates while the recipe of the form is drawn, and at its end. Raises StudioError."""
        if turn.is_set():
            yield {self.line: at_rest("Stopped.", actions.waiting(session) > 0)}
            return
        try:
            recipe = self.context.recipe(*values)
            bare = recipe.model_copy(update={"adapters": (), "count": 1}) if recipe.adapters and how != OFF else None
            known = _without.get(repr(bare), "") if bare else ""
            known = known if Path(known or "-").is_file() else ""
            first = [bare] if bare and not known else []
            job = generation_jobs.start_generation(self.workspace, [*first, recipe])
        except StudioError as error:
            yield {self.line: failed(error)}
            raise
        older = older_of(last)
        shown = Shown(recipe.width, recipe.height, without=known, compares=bare is not None, count=recipe.count)
        seen = None
        for line in watch(job, session, turn):
            made = job.result
            coming = (len(made.images), id(made.latent_preview)) if made else (0, 0)
            updates = {self.line: line}
            if coming != seen:
                seen, preview = coming, made.latent_preview if made else None
                now = _so_far(shown, paths_of(job), bool(first))
                html = stage_html(now, how, preview, older, True)
                updates |= {self.stage: html, self.blank: HIDDEN, self.sweep: ""}  # the sweep was of another recipe
            yield updates
        paths = paths_of(job)
        if first and paths:
            _without[repr(bare)] = paths[0]
            while len(_without) > 100:
                del _without[next(iter(_without))]
        final = _so_far(shown, paths, bool(first))
        yield self.ended(job, session, recipe_line(recipe), final, older, how)
        if job.error:
            raise StudioError(job.error)

    def ended(self, job: Job, session: str, text: str, final: Shown, older: Shown | None, how: str) -> dict[Any, Any]:
        """What stands there when a job is over: its images, or what was there before where it made none."""
        more, made = actions.waiting(session) > 0, bool(final.paths)
        shown = final if made else older
        if job.error:
            line = failed(StudioError(job.error))
        else:
            line = at_rest((text if made else "") + (" · stopped" if made and job.state == "stopped" else ""), more)
            line = line if made else at_rest("Stopped.", more)
        return self.earlier_images() | {
            self.line: line,
            self.stage: stage_html(shown, how) if shown else "",
            self.last: shown.as_state() if shown else None,
            self.blank: gr.update(visible=shown is None),
        }

    def show_again(self, last, how):
        """Another way to compare was chosen: the same images, otherwise."""
        shown = shown_from(last)
        return stage_html(shown, how) if shown else gr.skip()

    @show_errors
    def draw_sweep(self, request: gr.Request, last, *values):
        """The first adapter in use at seven strengths."""
        yield from self.swept(request, 0, *values)

    @show_errors
    def sweep_row(self, request: gr.Request, wanted, last, *values):
        """The adapter of one row. wanted: its place and a time, so that each click is another one."""
        if not wanted:
            yield gr.skip()
            return
        row = int(wanted.split()[0])
        on = [used and key != "" for key, used in zip([*(values[0] or [])], self.context.rows_on(values))]
        if not on[row]:
            raise StudioError("This adapter is off: switch it on to see it at several strengths.")
        for updates in self.swept(request, sum(on[:row]), *values):
            yield updates | {self.context.to_sweep: ""}

    def swept(self, request: gr.Request, index: int, *values) -> Iterator[dict[Any, Any]]:
        session = request.session_hash or ""
        turn = actions.next_turn(session, lined_up=False)
        recipe = self.context.recipe(*values)
        if not recipe.adapters:
            raise StudioError("A strength sweep shows one adapter at several strengths: add an adapter first.")
        title, size, strengths = (
            recipe.adapters[index].title,
            (recipe.width, recipe.height),
            strengths_of(recipe, index),
        )
        job = generation_jobs.start_sweep(self.workspace, recipe, index)
        blank = {self.sweep: waiting_html(strengths, title, size), self.blank: HIDDEN, self.stage: ""}
        yield blank | {self.context.tabs: gr.Tabs(selected="drawn")}
        for line in watch(job, session, turn):
            yield {self.line: line}
        found = [(one.adapters[index].strength, path) for one, path in job.result.images] if job.result else []
        rest = at_rest("" if found else "Stopped.", actions.waiting(session) > 0)
        html = sweep_html(self.workspace, found, title, size) if found else ""
        line = failed(StudioError(job.error)) if job.error else rest
        yield self.earlier_images() | {self.line: line, self.sweep: html}
        if job.error:
            raise StudioError(job.error)

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
    """The newest images that are no part of a sweep, a grid or a measure."""
    return [str(workspace.outputs / name) for name in image_groups.singles(workspace, EARLIER)]


def paths_of(job: Job) -> list[str]:
    """The images that a job has saved until now."""
    return [str(path) for _, path in job.result.images] if job.result else []


def _so_far(shown: Shown, paths: Sequence[str], first: bool) -> Shown:
    """With the images that there are. first: whether the first of them is the one without adapters."""
    without, rest = (paths[0], paths[1:]) if first and paths else (shown.without, paths)
    return replace(shown, without=without, paths=tuple(rest))


def watch(job: Job, session: str, stop: threading.Event) -> Iterator[str]:
    """HTML of the line whenever the job has news, until it ends."""
    last = None
    while job.state == "running":
        if stop.is_set():
            job.stop()
        preview = id(job.result.latent_preview) if job.result else 0
        state = (job.done, job.message, actions.waiting(session), preview, stop.is_set())
        if state != last:
            last = state
            yield under_way(job, state[2])
        if job.thread:
            job.thread.join(POLL_EVERY)


def under_way(job: Job, waiting: int) -> str:
    """A bar, and the time that is left. waiting: clicks that come after it."""
    more = f" · {waiting} more queued" if waiting else ""
    text = "Stopping after this step" if job.stop_event.is_set() else job.message or "Loading the base model"
    return busy_line(f"{progress_bar(job.done, job.total)}{note(text + time_left(job) + more)}")


def at_rest(text: str, more: bool = False) -> str:
    """The line when nothing is drawn. more: a click waits, so that the next image begins at once."""
    if more:
        return busy_line(note(text))
    return f'<div class="drawing"><div class="note mono">{escape(text)}</div></div>'


def failed(error: StudioError) -> str:
    """The line when nothing came of it: it says so until something else is drawn."""
    text = " ".join(str(error).split())
    return f'<div class="drawing"><div class="note bad" role="alert">Not drawn: {escape(text)}</div></div>'
