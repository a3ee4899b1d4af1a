"""Start, check, queue, pause and stop, and what a check proposes. Always in sight, below the form of the Train tab."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from studio.services import run_queue, runs
from studio.services.jobs import running, stop_job
from studio.training.setting_groups import LABELS
from studio.web.components.clickable import clickable_html
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.train import views
from studio.web.train.all_runs import queue_list, queue_update
from studio.web.train.context import TrainContext
from studio.web.train.form import shown_in
from studio.web.train.values import typed

# A disabled button says why: the line above the buttons is its title too.
WHY_JS = """
const bar = element.closest('#start-bar');
const sync = () => {
  const why = element.textContent.trim();
  for (const one of bar.querySelectorAll('button')) {
    const title = one.disabled ? why : '';
    if (one.title !== title) one.title = title;
  }
};
new MutationObserver(sync).observe(bar, {subtree: true, childList: true, characterData: true, attributes: true,
  attributeFilter: ['disabled']});
sync();
"""
REPORT_JS = "() => { document.getElementById('report')?.scrollIntoView({behavior: 'smooth', block: 'center'}); }"


def why_line() -> gr.HTML:
    """The line above the buttons, rendered by `Controls`; as high without a word."""
    return clickable_html("why", script=WHY_JS, padding=False, render=False)


class Controls:
    """The buttons, the line above them (`context.message`), the queue and the report of the newest check.

    While a run goes on, Pause and Stop stand in the place of Start. The first of them is one that does no harm to
    a person who clicks twice. begun: the event of Start.
    """

    begun: Any

    def __init__(self, context: TrainContext):
        self.context, self.workspace, self.message = context, context.workspace, context.message
        self.report = gr.HTML(elem_id="report", visible=False, padding=False)
        self.use = gr.Button("Use these settings", size="md", visible=False, elem_id="use-proposal")
        self.queue = queue_list(context)
        with gr.Column(elem_id="start-bar"):
            later: dict[str, Any] = {"visible": False, "min_width": 60}
            with gr.Row(elem_classes="why-row"):
                self.message.render()
                self.enqueue = gr.Button("Add to queue", size="sm", elem_id="enqueue", **later)
            with gr.Row(elem_classes="in-reach"):
                self.start = gr.Button("Start", variant="primary", elem_id="start", min_width=80)
                self.check = gr.Button("Check first", elem_id="check", min_width=80)
                self.sample = gr.Button("Sample now", elem_id="sample-now", **later)
                self.save = gr.Button("Save now", elem_id="save-now", **later)
                self.pause = gr.Button("Pause", elem_id="pause", **later)
                self.stop = gr.Button("Stop", elem_id="stop", **later)
        self.of_run = (self.sample, self.save, self.pause)
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
        bar = [self.start, self.check, self.stop, *self.of_run, self.message]
        self.begun = self.start.click(self.begin, form.inputs, bar, **QUIET)
        self.enqueue.click(self.add_to_queue, form.inputs, [self.message, self.queue], **QUIET)
        checked = self.check.click(self.check_first, form.inputs, [*bar, self.report], **QUIET)
        checked.then(None, None, None, js=REPORT_JS, **QUIET)
        used = self.use.click(self.use_proposal, None, [*form.fields.values(), self.use], **QUIET)
        form.panel.mark_after(used)
        self.pause.click(self.pause_or_resume, None, [self.pause, self.message], **QUIET)
        self.stop.click(self.halt, None, [self.stop, self.pause, self.message], **QUIET)
        self.sample.click(self.sample_now, None, [self.sample, self.message], **QUIET)
        self.save.click(self.save_now, None, [self.save, self.message], **QUIET)

    @show_errors
    def sample_now(self):
        runs.sample_now(self.workspace)
        return {self.sample: OFF, self.message: note("Drawing previews after this step.")}

    @show_errors
    def save_now(self):
        runs.save_now(self.workspace)
        return {self.save: OFF, self.message: note("Writing a checkpoint after this step.")}

    @show_errors
    def begin(self, *values):
        name = runs.start_training(self.workspace, values=typed(*values))
        return self.bar("train", off=self.of_run) | {self.message: note(f"{name}: loading the base model.")}

    @show_errors
    def add_to_queue(self, *values):
        name = run_queue.queue_training(self.workspace, values=typed(*values))
        return {self.message: note(f"{name} is queued."), self.queue: queue_update(self.workspace)}

    @show_errors
    def check_first(self, *values):
        job = runs.check_settings(self.workspace, values=typed(*values))
        report = gr.update(value=views.check_report(job, LABELS), visible=True)
        return self.bar("check") | {self.report: report, self.message: ""}

    @show_errors
    def use_proposal(self):
        job = runs.newest_check()
        proposal = job.result.proposal if job and job.result else {}
        return shown_in(self.context.form, self.workspace, proposal) | {self.use: gr.update(visible=False)}

    def halt(self):
        if not stop_job("train"):
            stop_job("check")
        return {**dict.fromkeys((self.stop, self.pause), OFF), self.message: note("Stopping after this step.")}

    @show_errors
    def pause_or_resume(self):
        job = running("train")
        if job and job.pause_event.is_set():
            runs.resume_training(self.workspace)
        else:
            runs.pause_training(self.workspace)
        return {self.pause: OFF, self.message: views.why_not(job, None)}

    def bar(self, kind: str = "", off: Sequence[Any] = ()) -> dict[Any, Any]:
        """Which buttons are there. kind: of the job that holds the device, "" for none; off: disabled ones."""
        ours, training = kind in ("train", "check"), kind == "train"
        shown = {
            **dict.fromkeys((self.start, self.check), not ours),
            **dict.fromkeys(self.of_run, training),
            self.stop: ours,
        }
        return {one: gr.update(visible=there, interactive=one not in off) for one, there in shown.items()}

    def updates(self, job, newest, waiting: bool) -> dict[Any, Any]:
        """Of the buttons and the line above them: the server's state alone decides. job: what holds the device."""
        kind = job.kind if job else ""
        stopping, pausing = bool(job and job.stop_event.is_set()), bool(job and job.pause_event.is_set())
        off = [self.start, self.check] if job else []
        off += [self.stop, *self.of_run] if stopping else [self.sample, self.save] if pausing else []
        updates = self.bar(kind, off)
        updates[self.pause] |= {"value": "Resume" if pausing else "Pause"}
        updates[self.pause] |= {"variant": "primary" if pausing else "secondary"}
        return updates | {
            self.enqueue: gr.update(visible=job is not None or waiting),
            self.message: views.why_not(job, newest),
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
