"""What is measured of the run that is shown, in the background: the button, Stop, progress, and what came of it."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from studio.services.jobs import newest_about, stop_job
from studio.web.components.clickable import clickable_html
from studio.web.components.fields import QUIET
from studio.web.components.html import job_report, note
from studio.web.errors import show_errors


class RunJob:
    """Components where it is made. kind: of the job; measured: (a run's name) → what is known of it, as HTML.

    seen: what this page has shown of the job, so that a tick without news sends nothing
    """

    def __init__(self, kind: str, title: str, measured: Callable[[str], str], report: str, script: str = ""):
        self.kind, self.measured = kind, measured
        self.seen, self.timer = gr.State(None), gr.Timer(1, active=False)
        with gr.Row(elem_classes="tools"):
            self.begin = gr.Button(title, size="md", elem_id=f"measure-{kind}", scale=0, min_width=150)
            self.stop = gr.Button("Stop", size="md", visible=False, elem_id=f"stop-{kind}", scale=0, min_width=80)
        self.report = clickable_html(report, script=script)
        self.outputs = [self.stop, self.report, self.seen, self.timer]

    def follow(self, run: gr.Dropdown, start: Callable[..., Any], inputs: Sequence[Any]) -> None:
        """start: the operation, called with the values of `inputs`."""

        @show_errors
        def begin(*values):
            start(*values)
            began = {self.report: note("Starting."), self.seen: None, self.timer: gr.Timer(active=True)}
            return began | {self.stop: gr.update(visible=True)}

        self.begin.click(begin, list(inputs), self.outputs, **QUIET)
        self.stop.click(self.halt, None, None, **QUIET)
        self.timer.tick(self.watch, [run, self.seen], self.outputs, concurrency_limit=None, **QUIET)

    def halt(self) -> None:
        stop_job(self.kind)

    @show_errors
    def show(self, name: str | None) -> Any:
        """The part was opened: what was measured, or how far it is."""
        return self.watch(name, object())

    def watch(self, name: str | None, last: Any) -> Any:
        job = newest_about(self.kind, name or "")
        now = job and (job.title, job.state, job.done, job.message)
        if now == last:
            return gr.skip()
        going = job is not None and job.state == "running"
        html = job_report(job) if job and job.state in ("running", "failed") else ""
        return {
            self.seen: now,
            self.stop: gr.update(visible=going),
            self.timer: gr.Timer(active=going),
            self.report: html if going else html + self.measured(name or ""),
        }
