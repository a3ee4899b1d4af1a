"""Captioning: which captioner, the trigger word, start and stop. A part of the Dataset tab's left column."""

from contextlib import suppress

import gradio as gr

from studio.errors import StudioError
from studio.services import captioning, datasets
from studio.services.jobs import latest, running, stop_job
from studio.web.components.fields import QUIET
from studio.web.components.html import job_report, note
from studio.web.dataset.captioners import captioner_form
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors

# What a watcher last showed, set back when something starts: a job that is done before "Starting." arrives would
# otherwise count as shown.
NOTHING_SHOWN = ()


class Captions:
    """form: the captioner; trigger: the word that is put in front of every caption."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        self.seen = gr.State(None)
        gr.Markdown("### Captions", elem_classes="heading")
        self.form = captioner_form(self.workspace)
        self.trigger = gr.Textbox(
            label="Trigger word",
            info="Optional. Put in front of every caption; write it in a prompt to get what was trained.",
            max_lines=1,
            elem_id="trigger",
        )
        self.word = gr.HTML(elem_id="trigger-report")
        with gr.Row():
            self.caption = gr.Button("Caption", variant="primary", elem_id="caption-all", min_width=120)
            self.stop = gr.Button("Stop", visible=False, elem_id="stop-captions", min_width=80)
        self.why = gr.HTML(elem_id="why-no-captions", padding=False)
        self.progress = gr.HTML(elem_id="caption-progress")

    def wire(self) -> None:
        context = self.context
        watched = [self.seen, self.caption, self.stop, self.why, self.progress, context.revision]
        context.poller.watch(self.watch, [self.seen, context.choice], watched)
        context.demo.load(self.watch, [self.seen, context.choice], watched, concurrency_limit=None, **QUIET)
        context.revision.change(self.show_next, context.choice, [self.caption, context.onward, self.progress], **QUIET)
        inputs = [context.choice, self.trigger, *self.form.inputs]
        self.caption.click(self.start, inputs, [self.caption, self.stop, self.progress, self.seen], **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        self.trigger.change(self.check_trigger, self.trigger, self.word, trigger_mode="always_last", **QUIET)

    @show_errors
    def start(self, dataset, word, *chosen):
        captioning.caption_dataset(self.workspace, dataset, word or "", **self.form.chosen(*chosen))
        return {
            self.caption: gr.update(interactive=False),
            self.stop: gr.update(visible=True),
            self.progress: note("Starting."),
            self.seen: NOTHING_SHOWN,
        }

    def watch(self, last, dataset):
        """Captioning, and whether the dataset changed, here or on another page."""
        newest, busy = latest.get("caption"), running()
        active = running("caption")
        now = datasets.stamp(self.workspace, dataset or "")
        if active and newest and newest.name == dataset and datasets.is_large(self.workspace, dataset):
            now = last[0] if last else now  # its grid follows at the end
        job = newest.job if newest else None
        of_this = newest is not None and newest.name == dataset
        state = now, busy and id(busy), of_this, job and (id(job), job.state, job.done, job.message)
        if state == last:
            return gr.skip()
        why = f"Captioning waits: {busy.title} is still going on." if busy and busy is not active else ""
        return {
            self.seen: state,
            self.caption: gr.update(interactive=busy is None),
            self.stop: gr.update(visible=active is not None),
            self.why: note(why),
            self.context.revision: now,
            self.progress: report(dataset),
        }

    def show_next(self, dataset):
        """The one button that leads on: captions while any is missing, then training. The report is of this dataset."""
        missing = False
        with suppress(StudioError):
            missing = bool(dataset) and not all(item.caption for item in datasets.view(self.workspace, dataset).items)
        first, second = gr.update(variant="primary"), gr.update(variant="secondary")
        return {
            self.caption: first if missing else second,
            self.context.onward: second if missing else first,
            self.progress: report(dataset),
        }

    def check_trigger(self, candidate):
        if not (candidate or "").strip():
            return ""
        with suppress(StudioError):
            return note(captioning.trigger_report(self.workspace, candidate).message)
        return ""


def build(context: DatasetContext) -> Captions:
    part = Captions(context)
    part.wire()
    return part


def report(dataset: str | None) -> str:
    """Of the newest captioning, where it was of the dataset that is open; of another one, only that it goes on."""
    newest, active = latest.get("caption"), running("caption")
    if newest and newest.name == dataset:
        return job_report(newest.job)
    return note(f"{active.title}.") if active else ""


def halt():
    stop_job("caption")
