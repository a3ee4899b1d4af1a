"""One line on top of every tab: what goes on in the background, how far it is, how long it will take, and Stop."""

import time
from html import escape

import gradio as gr

from studio.services.jobs import Job, jobs, stop_job
from studio.text import duration
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import progress_bar
from studio.web.components.polling import Beat

SILENT = ("thumbnails", "about", "history")  # nobody waits for these
RATES = {"train": "steps", "caption": "pictures", "health": "pictures", "score": "captions", "import": "pictures"}
SETTLED = 3  # seconds until a rate is worth telling
COUNTED = 100_000  # totals above this are parts or bytes, and told as a share


def jobs_bar(demo: gr.Blocks, timer: Beat) -> None:
    """Built above the tabs. It is as high with nothing to say as with a job."""
    seen = gr.State({})  # {"html": what is shown, id of a job: when and where it was seen first}
    line = clickable.board("jobs-bar")

    def watch(last):
        going = [job for job in jobs.running() if job.kind not in SILENT]
        now, fresh = time.monotonic(), {}
        for job in going:
            fresh[str(id(job))] = (last or {}).get(str(id(job))) or (now, job.done)
        html = shown(going, fresh, now)
        if last and html == last.get("html"):
            return gr.skip(), gr.skip()
        return {**fresh, "html": html}, html

    def act(event: gr.EventData):
        kind, arg, _ = clickable.clicked(event)
        if kind == "stop":
            stop_job(arg)

    quiet = {**NO_PROGRESS, **PRIVATE}
    for event in (timer.tick, demo.load):
        event(watch, seen, [seen, line], concurrency_limit=None, **quiet)
    line.click(act, None, None, **quiet)


def shown(going: list[Job], since: dict[str, tuple[float, int]], now: float) -> str:
    """The line of the jobs that run. since: {id: (time, done)} of the first look at each; now: seconds."""
    if not going:
        return ""
    job, more = going[0], len(going) - 1
    others = f' <span class="more" title="{escape(", ".join(one.title for one in going[1:]))}">+{more}</span>'
    stopping = job.stop_event.is_set()
    told = "stopping after this step" if stopping else _progress(job, *since[str(id(job))], now)
    stop = clickable.button("stop", job.kind, "Stop", label=f"Stop: {job.title}") if not stopping else ""
    return (
        f'<div class="going" role="status"><b>{escape(job.title)}</b>{others if more else ""}'
        f'{progress_bar(job.done, job.total)}<span class="told">{escape(told)}</span>{stop}</div>'
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
