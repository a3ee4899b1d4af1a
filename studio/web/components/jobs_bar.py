"""One line on top of every tab: what runs in the background, how far it is, the time left, what it waits for, Stop."""

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
COUNTS = ("train", "caption", "health", "score", "import")  # kinds whose total counts steps or images
SETTLED = 3  # seconds until the time left is shown
NOTIFY = '<button type="button" class="link" data-notify hidden>Notify me</button>'  # page.js shows and minds it
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
    first, rest = ("", "stopping after this step") if stopping else _progress(job, *since[str(id(job))], now)
    stop = clickable.button("stop", job.kind, "Stop", label=f"Stop: {job.title}") if not stopping else ""
    count = f'<span class="count">{escape(first)}</span>' if first else ""
    return (
        f'<div class="going {job.kind}" data-step="{job.done}" data-name="{escape(named(job))}" '
        f'data-percent="{percent(job)}"><b>{escape(job.title)}</b>{others if more else ""}'
        f"{progress_bar(job.done, job.total, job.title)}"
        f'<span class="progress-text">{count}{escape(rest)}</span>{NOTIFY}{stop}</div>'
    )


def named(job: Job) -> str:
    """What the browser's title calls it: a run by its name."""
    return job.title.removeprefix("Training ") if job.kind == "train" else job.title


def percent(job: Job) -> int:
    """How much of it is done, of 100."""
    return int(100 * min(1.0, job.done / job.total)) if job.total else 0


def _progress(job: Job, began: float, first: int, now: float) -> tuple[str, str]:
    """(what a narrow page leaves out, the rest): `step 120 of 200 · `, `60 % · 12 s left`, as much as is known."""
    if job.ahead:
        return "", job.message
    counted = bool(job.total) and job.total <= COUNTED and job.kind in COUNTS
    many = f"{job.done:,} of {job.total:,}"
    if job.paused:
        return "", f"paused at step {many}" if job.done else "paused"
    if job.waits_for:
        return f"{many} · " if counted and job.done else "", f"waiting for {job.waits_for}"
    if job.message and job.kind == "train":  # before its first step
        return "", job.message
    if not job.total or not job.done:
        return "", job.message or "starting"
    seconds, parts = _seconds_left(job, began, first, now), [f"{100 * job.done / job.total:.0f} %"]
    if seconds is not None:
        parts.append(f"{duration(seconds)} left")
    return (f"{'step ' if job.kind == 'train' else ''}{many} · " if counted else ""), " · ".join(parts)


def _seconds_left(job: Job, began: float, first: int, now: float) -> float | None:
    """What the work says itself, else by what was done since it was seen first."""
    if job.pace:
        return job.pace[1] if job.pace[0] else None
    rate = (job.done - first) / (now - began) if now - began >= SETTLED else 0
    return (job.total - job.done) / rate if rate > 0 else None
