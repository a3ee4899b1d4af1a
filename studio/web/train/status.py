"""A run, a check and what may be pressed now, as small pieces of HTML. Everything a person made is escaped."""

from html import escape

from studio.text import duration, pluralize
from studio.web.components.html import html_list, note, progress_bar

SIGNS = {"stop": ("✗", "Would fail"), "warn": ("!", "Careful"), "note": ("·", "Note")}


def percent(share: float) -> str:
    """`−12 %` for −0.12, with a real minus."""
    return f"{100 * share:+.0f} %".replace("-", "−")


# The run that is shown ----------------------------------------------------------------------------------------------


def run_status(view) -> str:
    """Name, state, progress and a few large numbers."""
    active = view.state in ("running", "paused")
    title = f'<div class="note"><b>{escape(view.name)}</b> <span class="pill {view.state}">{view.state}</span></div>'
    if active and view.preparing:
        done, total = view.preparing
        return title + progress_bar(done, total) + note(f"Encoding pictures: {done:,} of {total:,}")
    if active and not view.steps:
        return title + progress_bar(0, 1) + note("Loading the base model.")
    cells = "".join(f"<div><span>{escape(label)}</span><b>{html}</b></div>" for label, html in _facts(view, active))
    said = "" if active or not view.message else note(view.message, bad=view.state == "failed")
    if view.export_check and not active:
        said += note(f"Certificate: {view.export_check.message}")
    setup = f'<div class="note small">{escape(view.setup)}</div>' if view.setup else ""
    return f'{title}{progress_bar(view.step, view.steps)}<div class="facts">{cells}</div>{_bands(view)}{said}{setup}'


def _facts(view, active: bool) -> list[tuple[str, str]]:
    """(label, HTML) of each number."""
    facts = [("step", f"{view.step:,} of {view.steps:,}")]
    if view.losses:
        facts.append(("loss", f"{view.losses[-1][2]:.4f}"))
    look = view.validations[-1] if view.validations else None
    if look and look.step and look.base_loss:
        pill = f' <i class="pill {verdict_kind(look.verdict)}">{escape(look.verdict)}</i>' if look.verdict else ""
        facts.append(("held-out against base", f"{percent(look.loss / look.base_loss - 1)}{pill}"))
    speed = view.steps_per_second
    if speed:
        facts.append(("speed", f"{speed:.1f} steps a second" if speed >= 1 else f"{1 / speed:.1f} s a step"))
    if active and speed:
        facts.append(("time left", duration(view.seconds_left)))
    if view.last and view.last.memory:
        facts.append(("memory", f"{view.last.memory:.1f} GB"))
    return facts


def verdict_kind(verdict: str) -> str:
    """The class of a verdict's pill: good, bad or neither."""
    return {"learning": "good", "over-fitting": "bad"}.get(verdict, "quiet-pill")


def _bands(view) -> str:
    """The newest look at the held-out pictures, by noise: the loss as a share of the base's."""
    look = view.validations[-1] if view.validations else None
    if not look or not look.step or not look.bands or len(look.bands) != len(look.base_bands):
        return ""
    from studio.training.verdict import BAND_NAMES

    cells = []
    for name, loss, base in zip(BAND_NAMES, look.bands, look.base_bands):
        share = loss / base if base else 1.0
        worse = " worse" if share > 1.005 else ""
        cells.append(
            f'<div class="band{worse}"><span>{escape(name)}</span><b>{percent(share - 1)}</b>'
            f'<div class="bar"><i style="width:{100 * min(1.0, share):.1f}%"></i></div></div>'
        )
    return (
        '<div class="bands" role="img" aria-label="Held-out loss against the base, by what the noise decides">'
        f'{"".join(cells)}</div><div class="note small">Held-out loss by noise level; a full bar is the base model, '
        "shorter is better.</div>"
    )


def warnings_list(warnings: list[tuple[int, str]]) -> str:
    """Folded, newest first."""
    if not warnings:
        return ""
    count = pluralize(len(warnings), "warning")
    lines = [f"<b>step {step:,}</b> {escape(message)}" for step, message in reversed(warnings)]
    return f'<details class="warnings"><summary>{count}</summary>{html_list(lines)}</details>'


# A check before a run -----------------------------------------------------------------------------------------------


def check_report(job, labels: dict[str, str]) -> str:
    """What a check found. labels: of the settings that it may propose to change."""
    if job is None:
        return ""
    if job.state == "running":
        return note(f"{job.title}: a few real steps are tried. It takes as long as a run needs to begin.")
    if job.state == "failed":
        return _titled("Not ready") + html_list([_finding("stop", job.error or "The check failed.")])
    report = job.result
    if job.state == "stopped" or report is None:
        return note("The check was stopped.")
    title = "Ready" if report.ready else "Not ready"
    html = _titled(title) + html_list([_finding(finding.level, finding.message) for finding in report.findings])
    if report.step_seconds:
        facts = [("a step", _seconds(report.step_seconds))]
        if report.preview_seconds:
            facts.append(("a preview", _seconds(report.preview_seconds)))
        facts += [("memory", f"{report.memory:.1f} of {report.available:.0f} GB")]
        facts += [("in all, about", duration(report.total_seconds))]
        html += _facts_row(facts)
    if report.proposal:
        changes = [
            f"{escape(labels.get(key, key))}: <b>{escape(_value(new))}</b>" for key, new in report.proposal.items()
        ]
        html += note("Better settings for this machine:") + html_list(changes)
    return html


def _titled(title: str) -> str:
    return f'<div class="note"><b>{title}</b></div>'


def _finding(level: str, message: str) -> str:
    sign, word = SIGNS.get(level, SIGNS["note"])
    return f'<span class="sign {escape(level)}">{sign} {word}</span> {escape(message)}'


def _facts_row(facts: list[tuple[str, str]]) -> str:
    cells = "".join(f"<div><span>{escape(label)}</span><b>{escape(value)}</b></div>" for label, value in facts)
    return f'<div class="facts">{cells}</div>'


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


def _value(value) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


# What may be pressed ------------------------------------------------------------------------------------------------


def why_not(job, newest) -> str:
    """Why Start can't be pressed now, or how the newest run ended when that was badly. job: what runs now."""
    if job is None:
        failed = newest is not None and newest.state == "failed"
        return note(f"The last run failed: {newest.error}", bad=True) if failed else ""
    if job.kind == "check":
        return ""  # its own line says how it goes
    if job.kind != "train":
        return note(f"{job.title} is going on: wait until it is done, or stop it in the Dataset tab.")
    if job.stop_event.is_set():
        return note("Stopping after this step.")
    if job.paused:
        return note("Paused, with a checkpoint written. You can generate pictures meanwhile.")
    if job.pause_event.is_set():
        return note("Pausing after this step.")
    return note("A run is going on. You can close this page: it goes on, and you find it here again.")
