"""Start, check, queue, pause and stop, and what a check proposes. Below the form of the Train tab."""

from typing import Any

import gradio as gr

from studio.services import run_queue, runs
from studio.services.jobs import running, stop_job
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.train import views
from studio.web.train.all_runs import queue_list, queue_update
from studio.web.train.context import TrainContext
from studio.web.train.form import shown_in, typed
from studio.web.train.labels import LABELS


class Controls:
    """The buttons, the line below them (`context.message`), the queue and the report of the newest check."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace, self.message = context, context.workspace, context.message
        with gr.Row(elem_classes="in-reach", elem_id="start-bar"):
            self.start = gr.Button("Start", variant="primary", elem_id="start", min_width=120)
            self.check = gr.Button("Check first", elem_id="check", min_width=120)
            self.enqueue = gr.Button("Add to queue", visible=False, elem_id="enqueue", min_width=120)
        with gr.Row():
            self.pause = gr.Button("Pause", size="md", interactive=False, elem_id="pause", min_width=90)
            self.stop = gr.Button("Stop", size="md", interactive=False, elem_id="stop", min_width=90)
        with gr.Row():
            self.sample = gr.Button("Sample now", size="md", interactive=False, elem_id="sample-now", min_width=90)
            self.save = gr.Button("Save now", size="md", interactive=False, elem_id="save-now", min_width=90)
        self.message.render()
        self.queue = queue_list(context)
        self.report = gr.HTML(elem_id="report", visible=False, padding=False)
        self.use = gr.Button("Use these settings", size="md", visible=False, elem_id="use-proposal")
        self.outputs = [
            self.start,
            self.check,
            self.enqueue,
            self.queue,
            self.pause,
            self.stop,
            self.sample,
            self.save,
            self.message,
            self.report,
            self.use,
        ]

    def wire(self) -> None:
        form = self.context.form
        self.start.click(self.begin, form.inputs, [self.start, self.check, self.stop, self.message], **QUIET)
        self.enqueue.click(self.add_to_queue, form.inputs, [self.message, self.queue], **QUIET)
        self.check.click(self.check_first, form.inputs, [self.start, self.check, self.report], **QUIET)
        self.use.click(self.use_proposal, None, [*form.fields.values(), self.use], **QUIET)
        self.pause.click(self.pause_or_resume, None, [self.pause, self.message], **QUIET)
        self.stop.click(self.halt, None, [self.stop, self.pause, self.message], **QUIET)
        self.sample.click(self.sample_now, None, [self.sample, self.message], **QUIET)
        self.save.click(self.save_now, None, [self.save, self.message], **QUIET)

    @show_errors
    def sample_now(self):
        runs.sample_now(self.workspace)
        return {self.sample: OFF, self.message: line(note("Drawing previews after this step."))}

    @show_errors
    def save_now(self):
        runs.save_now(self.workspace)
        return {self.save: OFF, self.message: line(note("Writing a checkpoint after this step."))}

    @show_errors
    def begin(self, *values):
        name = runs.start_training(self.workspace, values=typed(*values))
        return {
            **dict.fromkeys((self.start, self.check), OFF),
            self.stop: gr.update(interactive=True),
            self.message: line(note(f"{name}: loading the base model.")),
        }

    @show_errors
    def add_to_queue(self, *values):
        name = run_queue.queue_training(self.workspace, values=typed(*values))
        return {self.message: line(note(f"{name} is queued.")), self.queue: queue_update(self.workspace)}

    @show_errors
    def check_first(self, *values):
        job = runs.check_settings(self.workspace, values=typed(*values))
        report = gr.update(value=views.check_report(job, LABELS), visible=True)
        return {**dict.fromkeys((self.start, self.check), OFF), self.report: report}

    @show_errors
    def use_proposal(self):
        job = runs.newest_check()
        proposal = job.result.proposal if job and job.result else {}
        return shown_in(self.context.form, self.workspace, proposal) | {self.use: gr.update(visible=False)}

    def halt(self):
        if not stop_job("train"):
            stop_job("check")
        return {**dict.fromkeys((self.stop, self.pause), OFF), self.message: line(note("Stopping after this step."))}

    @show_errors
    def pause_or_resume(self):
        job = running("train")
        if job and job.pause_event.is_set():
            runs.resume_training(self.workspace)
        else:
            runs.pause_training(self.workspace)
        return {self.pause: OFF, self.message: line(views.why_not(job, None))}

    def updates(self, job, newest, waiting: bool) -> dict[Any, Any]:
        """Of the buttons and the line below them: the server's state alone decides. job: what holds the device."""
        training = job is not None and job.kind == "train" and not job.stop_event.is_set()
        checking = job is not None and job.kind == "check" and not job.stop_event.is_set()
        pausing = training and job.pause_event.is_set()
        return {
            **dict.fromkeys((self.start, self.check), gr.update(interactive=job is None)),
            self.enqueue: gr.update(visible=job is not None or waiting),
            self.pause: gr.update(value="Resume" if pausing else "Pause", interactive=training),
            self.stop: gr.update(interactive=training or checking),
            **dict.fromkeys((self.sample, self.save), gr.update(interactive=training and not pausing)),
            self.message: line(views.why_not(job, newest)),
        }

    def check_updates(self) -> dict[Any, Any]:
        """Of the report of the newest check."""
        checked = runs.newest_check()
        proposal = bool(checked and checked.result and checked.result.proposal)
        report = gr.update(value=views.check_report(checked, LABELS), visible=checked is not None)
        return {self.report: report, self.use: gr.update(visible=proposal)}


def build(context: TrainContext) -> Controls:
    """The buttons, inside the form's column. The form is built before them."""
    part = Controls(context)
    part.wire()
    return part


OFF = gr.update(interactive=False)


def line(html: str):
    """An update of the line below the buttons; it takes no room when it is empty."""
    return gr.update(value=html, visible=bool(html))
