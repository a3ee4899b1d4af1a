"""One line on top of every tab: what runs in the background, its progress, the time that is left, and Stop."""

import time
from html import escape

import gradio as gr

from studio.services.jobs import Job, jobs, stop_job
from studio.text import duration
from studio.web.components import clickable
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.components.html import progress_bar

SILENT = ("thumbnails", "about", "history", "example")  # short, and not waited for; or of jobs that are shown
RATES = {"train": "steps", "caption": "images", "health": "images", "score": "captions", "import": "images"}
SETTLED = 3  # seconds until a rate is shown
COUNTED = 100_000  # totals above this are parts or bytes, and shown as a share


class JobsBar:
    """The line. It is as high without a job as with one."""

    def __init__(self, context: PageContext):
        self.context = context
        self.seen = gr.State({})  # {"html": what is shown, id of a job: when and where it was seen first}
        self.line = clickable.clickable_html("jobs-bar")

    def wire(self) -> None:
        outputs = [self.seen, self.line]
        self.context.poller.watch(self.watch, self.seen, outputs)
        self.context.demo.load(self.watch, self.seen, outputs, concurrency_limit=None, **QUIET)
        self.line.click(act, None, None, **QUIET)

    def watch(self, last):
        running = [job for job in jobs.running() if job.kind not in SILENT]
        now, fresh = time.monotonic(), {}
        for job in running:
            fresh[str(id(job))] = (last or {}).get(str(id(job))) or (now, job.done)
        html = shown(running, fresh, now)
        if last and html == last.get("html"):
            return gr.skip()
        return {self.seen: {**fresh, "html": html}, self.line: html}


def build(context: PageContext) -> JobsBar:
    """The line above the tabs."""
    part = JobsBar(context)
    part.wire()
    return part


def act(event: gr.EventData):
    kind, arg, _ = clickable.clicked(event)
    if kind == "stop":
        stop_job(arg)


def shown(running: list[Job], since: dict[str, tuple[float, int]], now: float) -> str:
    """The line of the jobs that run. since: {id: (time, done)} when each was seen first; now: seconds."""
    if not running:
        return ""
    job, more = running[0], len(running) - 1
    others = f' <span class="more" title="{escape(", ".join(one.title for one in running[1:]))}">+{more}</span>'
    stopping = job.stop_event.is_set()
    progress = "stopping after this step" if stopping else _progress(job, *since[str(id(job))], now)
    stop = clickable.button("stop", job.kind, "Stop", label=f"Stop: {job.title}") if not stopping else ""
    return (
        f'<div class="going" role="status"><b>{escape(job.title)}</b>{others if more else ""}'
        f'{progress_bar(job.done, job.total)}<span class="progress-text">{escape(progress)}</span>{stop}</div>'
    )


def _progress(job: Job, began: float, first: int, now: float) -> str:
    """`120 of 200 · 6.8 steps a second · 12 s left`, as much of it as is known."""
    if job.ahead:
        return job.message
    if job.paused:
        return "paused"
    if not job.total or not job.done:
        return job.message or "starting"
    whole = job.total <= COUNTED and job.kind in RATES
    parts = [f"{job.done:,} of {job.total:,}" if whole else f"{100 * job.done / job.total:.0f} %"]
    rate = (job.done - first) / (now - began) if now - began >= SETTLED else 0
    if rate > 0:
        if whole:
            unit = RATES[job.kind]
            parts.append(f"{rate:.1f} {unit} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
        parts.append(f"{duration((job.total - job.done) / rate)} left")
    return " · ".join(parts)
