"""Small pieces of HTML. Text that a person typed is escaped here, where a docstring says so, or by the caller."""

import time
from collections.abc import Sequence
from html import escape

from studio.services.jobs import Job
from studio.text import duration

MOST_LINES = 20


def note(text: str = "", bad: bool = False) -> str:
    """Plain text, a line each, as a quiet paragraph."""
    lines = "<br>".join(escape(line) for line in text.splitlines())
    return f'<div class="note{" bad" if bad else ""}">{lines}</div>' if lines else ""


def empty(title: str, text: str) -> str:
    """An empty state: what is missing and what to do."""
    return f'<div class="empty"><b>{escape(title)}</b>{escape(text)}</div>'


def html_list(items: list[str], kind: str = "") -> str:
    """A list of lines that are HTML already."""
    lines = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="message-list {kind}">{lines}</ul>' if items else ""


def progress_bar(done: int, total: int, label: str = "") -> str:
    """How far something is, as a thin line; empty while the total isn't known. label: what is read out of it."""
    share = 100 * min(1.0, done / total) if total else 0
    spoken = f' role="progressbar" aria-label="{escape(label)}" aria-valuenow="{share:.0f}"' if label else ""
    return f'<div class="bar"{spoken}><i style="width:{share:.1f}%"></i></div>'


def time_left(job: Job, from_share: float = 0.05) -> str:
    """` · 3 min left` for a job that runs, as it went until now; "" before this share of it is done."""
    share = job.done / job.total if job.total else 0.0
    seconds = time.monotonic() - job.began
    return f" · {duration(seconds * (1 - share) / share)} left" if share > from_share else ""


def job_report(job: Job) -> str:
    """A job as a bar and a line or two."""
    if job.state == "running":
        return progress_bar(job.done, job.total) + note(f"{job.title}: {job.done:,} of {job.total:,}\n{job.message}")
    if job.state == "failed":
        return note(job.error or "", bad=True)
    if job.kind != "import" or not job.result:
        return note(job.message)
    _, skipped, warnings = job.result
    return note(job.message) + first_lines([f"Skipped {line}" for line in skipped], bad=True) + first_lines(warnings)


def first_lines(lines: Sequence[str], bad: bool = False) -> str:
    """The lines as a note; of many, the first and how many more there are."""
    more = [f"and {len(lines) - MOST_LINES:,} more"] if len(lines) > MOST_LINES else []
    return note("\n".join([*lines[:MOST_LINES], *more]), bad)
