"""The line of steps under the name, Dataset → Train → Test: what is done, what is next, and a way there.

Which step is open follows the tabs in the browser; the server is asked by the page's one poller alone.
"""

from html import escape
from typing import Any

import gradio as gr

from studio.services import stages
from studio.services.stages import Stages
from studio.text import pluralize
from studio.web.components.clickable import clickable_html, clicked
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET

GO = "go"  # what a click sends, with the step
TABS = {"dataset": "dataset", "train": "train", "test": "generate"}  # the tab of each step
NAMES = {"dataset": "Dataset", "train": "Train", "test": "Test"}

# A click opens the tab at once, in the browser; the step of the open tab is marked, also when the line is drawn anew.
_JS = """
const mark = () => {
  const open = document.querySelector('#tabs button[role=tab][aria-selected=true]');
  for (const step of element.querySelectorAll('[data-tab]')) {
    const here = open?.dataset.tabId === step.dataset.tab;
    if (here === step.hasAttribute('aria-current')) continue;
    if (here) step.setAttribute('aria-current', 'step');
    else step.removeAttribute('aria-current');
  }
};
element.addEventListener('click', event => {
  const step = event.target.closest('[data-tab]');
  if (!step) return;
  document.querySelector(`#tab-${step.dataset.tab}-button`)?.click();
  trigger('click', {act: 'go', arg: step.dataset.step});
});
// Gradio mends what is there to match the new text: the mark goes with the other attributes that it does not know.
new MutationObserver(mark).observe(element, {childList: true, subtree: true, attributes: true});
// The open tab also stands in the address, so that a reload and a bookmark find it.
const opened = () => {
  mark();
  const open = document.querySelector('#tabs button[role=tab][aria-selected=true]');
  if (open) history.replaceState(null, '', '#' + open.dataset.tabId);
};
const follow = () => {
  const bar = document.querySelector('#tabs [role=tablist]');
  if (!bar) return setTimeout(follow, 50);
  mark();
  new MutationObserver(opened).observe(bar, {attributes: true, subtree: true, attributeFilter: ['aria-selected']});
};
follow();
"""


class StepsLine:
    """The line. `watch` once the tabs are built, which know the dataset that is open."""

    def __init__(self, context: PageContext):
        self.context, self.workspace = context, context.workspace
        self.seen = gr.State(None)
        self.line = clickable_html("steps", steps_html(Stages()), script=_JS)

    def watch(self, dataset: gr.Dropdown) -> None:
        """dataset: names the one that is open."""
        inputs, outputs = [dataset, self.seen], [self.seen, self.line]
        self.context.poller.watch(self.look, inputs, outputs)
        # Not the poller's next turn: a person who has just opened a dataset looks here.
        dataset.change(self.look, inputs, outputs, concurrency_limit=None, trigger_mode="always_last", **QUIET)

    def look(self, dataset: str | None, last: Any) -> Any:
        now = repr(stages.stamp(self.workspace, dataset or ""))
        if now == last:
            return gr.skip()
        return {self.seen: now, self.line: steps_html(stages.stages(self.workspace, dataset or ""))}


def build(context: PageContext) -> StepsLine:
    """The line, above the tabs."""
    return StepsLine(context)


def chosen(event: gr.EventData) -> str:
    """The step that was clicked; "" for none."""
    act, step, _ = clicked(event)
    return step if act == GO and step in TABS else ""


def steps_html(now: Stages) -> str:
    """The three steps, with a word on each."""
    done = {"dataset": bool(now.images), "train": now.ready, "test": bool(now.tried)}
    words = {"dataset": dataset_words(now), "train": run_words(now), "test": test_words(now)}
    parts = []
    for number, (step, name) in enumerate(NAMES.items(), 1):
        kind = "done" if done[step] else "next" if step == now.next else ""
        spoken = {"done": ", done", "next": ", next"}.get(kind, "")
        sign = "✓" if done[step] else str(number)
        parts.append(
            f'<li><button type="button" class="step {kind}" data-step="{step}" data-tab="{TABS[step]}">'
            f'<i aria-hidden="true">{sign}</i><b>{name}<span class="hidden-text">{spoken}</span></b>'
            f"<small>{escape(words[step])}</small></button></li>"
        )
    return f'<nav aria-label="Steps"><ol class="steps">{"".join(parts)}</ol></nav>'


def dataset_words(now: Stages) -> str:
    if not now.dataset:
        return "choose images"
    if not now.images:
        return f"{now.dataset}: no images"
    captions = "all with captions" if now.captioned == now.images else f"{now.captioned:,} with a caption"
    return f"{now.dataset}: {pluralize(now.images, 'image')}, {captions}"


def run_words(now: Stages) -> str:
    if not now.run:
        return "an adapter" if not now.images else "next: an adapter from these images"
    if now.state in ("running", "paused"):
        share = f" {100 * now.step // now.steps} %" if now.steps else ""
        return f"{now.run}: {'paused at' if now.state == 'paused' else 'training,'}{share}".rstrip(",")
    return f"{now.run}: {now.state}"


def test_words(now: Stages) -> str:
    if now.tried:
        return f"{pluralize(now.tried, 'image')} with {now.run}"
    return f"next: an image with {now.run}" if now.ready else "with and without it"
