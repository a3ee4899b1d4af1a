"""The guided example on the page: how far it is, a way to stop it, and its result. Below the line of steps."""

import json
from html import escape
from typing import Any

import gradio as gr

from studio.services import datasets, example
from studio.services.example import Example
from studio.services.jobs import Job
from studio.web.components.clickable import button, clickable_html, clicked
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.components.html import progress_bar
from studio.web.dataset import start
from studio.web.errors import show_errors

STOP, CLOSE, SHOW, MINE = "stop", "close", "show", "mine"  # what a click sends
DOING = {"dataset": "Opening the sample", "train": "Training on it", "test": "Generating with the new adapter"}
# The form takes the recipe of the image; as soon as it shows it, the ordinary button draws it without and with.
DRAW_JS = f"""image => {{
  if (!image) return;
  let tries = 0;
  const draw = () => {{
    const ready = document.querySelector('#prompt textarea')?.value === {json.dumps(example.PROMPT)}
      && document.querySelector('#strength-0');
    if (ready) setTimeout(() => document.querySelector('#go')?.click(), 300);
    else if (++tries < 600) setTimeout(draw, 100);
  }};
  draw();
}}"""


class Guide:
    """The box. `wire` once the tabs are built.

    begun   this page follows the example from tab to tab: it was begun here, and not before a reload
    """

    def __init__(self, context: PageContext):
        self.context, self.workspace = context, context.workspace
        self.seen, self.begun = gr.State(None), gr.State(False)
        self.image = gr.Textbox(visible=False)
        self.box = clickable_html("guide")

    def wire(self, tabs: gr.Tabs, data: Any, train: Any, generate: Any) -> None:
        """data, train, generate: the tabs' parts."""
        self.tabs, self.data, self.train, self.generate = tabs, data, train, generate
        shown = [self.seen, self.box, tabs, train.dataset, self.image, generate.context.taken]
        self.context.poller.watch(self.watch, [self.seen, self.begun], shown)
        self.context.demo.load(self.watch, [self.seen, self.begun], shown, concurrency_limit=None, **QUIET)
        opened = [data.choice, data.revision, data.tabs]
        data.start.samples.click(self.begin, None, [*opened, self.begun, self.box], **QUIET)
        self.box.click(self.act, None, [self.box, tabs, self.image, generate.context.taken, *opened], **QUIET)
        self.image.change(None, self.image, None, js=DRAW_JS, **QUIET)

    @show_errors
    def begin(self, event: gr.EventData):
        """The button of the first card."""
        if clicked(event)[0] != start.EXAMPLE:
            return gr.skip()
        opened = self.data.open(example.SAMPLE)
        job = example.start_example(self.workspace)
        return opened | {self.begun: True, self.box: going(job)}

    def watch(self, last: Any, begun: bool) -> Any:
        job = example.newest_example()
        if job is None:
            return gr.skip()
        found = job.result or Example()
        now = repr((id(job), job.state, found.stage, job.message, job.error))
        if now == last:
            return gr.skip()
        if last is None and job.state != "running":  # an old one, in a page that was just opened
            return {self.seen: now}
        updates: dict[Any, Any] = {self.seen: now, self.box: going(job) if job.state == "running" else ended(job)}
        if begun and _stage(last) != _stage(now):
            updates |= self.follow(job, found)
        return updates

    def follow(self, job: Job, found: Example) -> dict[Any, Any]:
        """To the tab of the stage that has begun."""
        if job.state != "running":
            return self.result(found) if found.image else {}
        if found.stage == "train":
            chosen = gr.update(choices=datasets.dataset_choices(self.workspace), value=found.dataset)
            return {self.tabs: gr.Tabs(selected="train"), self.train.dataset: chosen}
        return {self.tabs: gr.Tabs(selected="generate")} if found.stage == "test" else {}

    def result(self, found: Example) -> dict[Any, Any]:
        """The image's recipe in the form, and both images drawn."""
        opened = {self.tabs: gr.Tabs(selected="generate")}
        return opened | {self.image: found.image, self.generate.context.taken: found.image}

    @show_errors
    def act(self, event: gr.EventData):
        kind, job = clicked(event)[0], example.newest_example()
        if kind == STOP:
            example.stop_example()
        elif kind == CLOSE:
            return {self.box: ""}
        elif kind == SHOW and job and job.result and job.result.image:
            return self.result(job.result)
        elif kind == MINE:
            return self.data.closed() | {self.tabs: gr.Tabs(selected="dataset"), self.box: ""}
        return gr.skip()


def build(context: PageContext) -> Guide:
    """The box, above the tabs."""
    return Guide(context)


def _stage(seen: Any) -> Any:
    """What of `seen` decides on the tab: job, state and stage."""
    return seen.split(", ")[:3] if isinstance(seen, str) else seen


def going(job: Job) -> str:
    """How far it is: which of three parts, what that does now, and Stop."""
    found = job.result or Example()
    number = example.STAGES.index(found.stage)
    title = f"Guided example, {number + 1} of {len(example.STAGES)}: {DOING[found.stage]}"
    stop = button(STOP, "", "Stop", label="Stop the guided example")
    return (
        f'<div class="guide" role="status"><b>{escape(title)}</b><span>{escape(job.message or "Starting")}</span>'
        f"{stop}{progress_bar(job.done, job.total)}</div>"
    )


def ended(job: Job) -> str:
    """What happened, and what to try next."""
    found = job.result or Example()
    if job.state == "done":
        text, ways = found.ended, button(MINE, "", "Add my own images", "primary") + button(SHOW, "", "Show it again")
    elif job.state == "failed":
        text, ways = job.error or "The guided example failed.", ""
    else:
        kept = f" What there is of “{found.run}” stays on the Train tab." if found.run else ""
        text, ways = f"The guided example was stopped.{kept}", ""
    close = button(CLOSE, "", "×", "cross", "Close this message")
    return f'<div class="guide" role="status"><p>{escape(text)}</p><span class="ways">{ways}{close}</span></div>'
