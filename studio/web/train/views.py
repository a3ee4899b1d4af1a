"""Runs as HTML: the list, the queue, the trash, settings side by side, the timeline of previews, and a check.

All text is escaped here.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.text import duration, percent, pluralize, size
from studio.web.components.clickable import button, checkbox, image_link
from studio.web.components.html import empty, html_list, note
from studio.web.components.loss_chart import COLOURS
from studio.web.train.scorecard_view import pill

PAGE = 60  # rows shown at a time
SIGNS = {"stop": ("✗", "Would fail"), "warn": ("!", "Warning"), "note": ("·", "Note")}

LIST_JS = """
const send = (act, arg) => trigger('click', {act, arg,
  selected: [...element.querySelectorAll('input[data-tick]:checked')].map(box => box.dataset.tick)});
element.addEventListener('click', event => {
  const hit = event.target.closest('button[data-act]');
  if (hit) send(hit.dataset.act, hit.dataset.arg || '');
});
element.addEventListener('change', event => { if (event.target.closest('input[data-tick]')) send('select', ''); });
// Gradio puts new HTML into the old elements, and a box that was once checked would stay so for another run.
new MutationObserver(() => {
  for (const box of element.querySelectorAll('input[data-tick]')) box.checked = box.hasAttribute('checked');
}).observe(element, {childList: true, subtree: true, attributes: true});
"""

# Every image is sent once; the slider shows, of each prompt, the newest one that is not beyond it.
TIMELINE_JS = """
element.addEventListener('input', event => {
  const range = event.target.closest('.scrub input[type=range]');
  if (!range) return;
  const step = Number(range.dataset.steps.split(',')[Number(range.value)]);
  element.querySelector('.slider-value').textContent = step.toLocaleString('en-US');
  range.setAttribute('aria-valuetext', `step ${step}`);
  for (const cell of element.querySelectorAll('.frames')) {
    let shown = null;
    for (const frame of cell.querySelectorAll('img')) {
      frame.loading = 'eager';
      if (shown === null || Number(frame.dataset.step) <= step) shown = frame;
    }
    for (const frame of cell.querySelectorAll('img')) frame.hidden = frame !== shown;
  }
});
"""


def when(seconds: float) -> str:
    """The day, and the hour where it is today's. seconds: since 1970."""
    then = time.localtime(seconds)
    return time.strftime("%H:%M" if then[:3] == time.localtime()[:3] else "%Y-%m-%d", then)


# The list -----------------------------------------------------------------------------------------------------------


def run_list(rows: Sequence[Any], selected: Sequence[str], fitting: int, total: int, left: int) -> str:
    """rows: Rows; fitting: how many runs pass the filter; left: how many were not read yet."""
    if not total:
        return empty("No run yet", "Start one on the left, and it is listed here.")
    if not fitting and not left:
        return empty("No run found", f"Clear the filter to see all {total:,}.")
    lines = "".join(_row(row, row.run.name in selected) for row in rows)
    count = pluralize(total, "run") if fitting == total else f"{fitting:,} of {pluralize(total, 'run')}"
    if left:
        count += f", {left:,} more are being read"
    names = {one.run.name for one in rows}
    chosen = [name for name in selected if name in names]
    delete = button("delete", "", f"Delete {len(chosen)}" if chosen else "Delete") if chosen else ""
    clear = button("clear", "", "Select none", "link") if chosen else ""
    hint = "" if chosen else "<small>Select runs to compare them.</small>"
    more = button("more", "", f"Show {min(PAGE, fitting - len(rows))} more") if fitting > len(rows) else ""
    return (
        f'<header><b>{count}</b>{hint}{clear}{delete}</header><ul class="runs">{lines}</ul>'
        f'<div class="more">{more}</div>'
    )


def _row(row: Any, on: bool) -> str:
    run = row.run
    image = f'<img src="{escape(image_link(row.image))}" alt="" loading="lazy">' if row.image else "<i></i>"
    against = f"<b>{percent(run.against_base)}</b>" if run.against_base is not None else "<b>–</b>"
    verdict = pill(run.verdict)
    best = ""
    if run.best is not None and run.base_loss is not None:
        numbers = f"{run.best:.4f} / {run.base_loss:.4f}"
        best = f'<small title="lowest validation loss, and the base model\'s">{numbers}</small>'
    remark = f"<small>{escape(row.note[:160])}</small>" if row.note else ""
    base = run.base.partition("?")[0].rstrip("/")
    base = base if base.count("/") == 1 and not base.startswith("/") else base.rpartition("/")[2]
    return (
        f'<li class="run{" on" if on else ""}">{checkbox(run.name, f"Select {run.name}", on)}{image}'
        f'<div class="what">{button("open", run.name, run.name, "link", f"Show {run.name}")} '
        f'<span class="pill {escape(run.state)}">{escape(run.state)}</span>'
        f"<small>{escape(run.dataset)} on {escape(base)}</small>{remark}</div>"
        f'<div class="how"><span class="against" title="validation loss against the base">{against}</span>{verdict}'
        f"{best}</div>"
        f'<div class="much"><span>{run.step:,} of {pluralize(run.steps, "step")}</span>'
        f"<small>{when(run.changed)} · {size(run.size)}</small></div></li>"
    )


def trash_line(deleted: Sequence[Any], sure: bool) -> str:
    """The runs in the trash, to restore. sure: the person asked to empty it and is asked once more."""
    if not deleted:
        return ""
    total, many = sum(one.size for one in deleted), pluralize(len(deleted), "run")
    if sure:
        end = (
            f"<b>Delete {many} for good?</b>{button('really', '', f'Delete {size(total)}', 'primary')}"
            f"{button('keep', '', 'Keep them')}"
        )
    else:
        undo = button("undo", deleted[0].key, f"Undo: restore {deleted[0].name}")
        end = f"<b>{many} in the trash, {size(total)}</b>{undo}{button('empty', '', 'Empty trash')}"
    items = "".join(
        f"<li>{escape(one.name)} <small>{size(one.size)}</small>"
        f"{button('undo', one.key, 'Restore', 'link', f'Restore {one.name}')}</li>"
        for one in deleted[1:50]
    )
    others = f'<details><summary>Others</summary><ul class="deleted">{items}</ul></details>' if items else ""
    return f'<div class="trash"><header>{end}</header>{others}</div>'


# The queue ----------------------------------------------------------------------------------------------------------


def queue_list(waiting: Sequence[Any], going: bool) -> str:
    """waiting: Summaries, the next one first; going: whether the next one starts automatically."""
    if not waiting:
        return ""
    many = f"{pluralize(len(waiting), 'run')} queued"
    if going:
        head = f"<b>{many}</b>{button('hold', '', 'Pause queue')}"
    else:
        head = f"<b>{many}, queue paused</b>{button('go', '', 'Resume queue', 'primary')}"
    rows = ""
    for place, run in enumerate(waiting):
        up = button("up", run.name, "↑", "step", f"Move {run.name} forward") if place else ""
        down = button("down", run.name, "↓", "step", f"Move {run.name} back") if place < len(waiting) - 1 else ""
        out = button("out", run.name, "×", "step", f"Remove {run.name} from the queue")
        rows += (
            f"<li><span><b>{escape(run.name)}</b> "
            f"<small>{escape(run.dataset)}, {pluralize(run.steps, 'step')}</small></span>"
            f'<span class="tools">{up}{down}{out}</span></li>'
        )
    hint = "Runs start automatically, one after the other." if going else "No run starts until you resume the queue."
    return f'<section class="finding"><header>{head}</header><ol>{rows}</ol><small>{hint}</small></section>'


# Comparing ----------------------------------------------------------------------------------------------------------


def settings_table(names: Sequence[str], rows: Sequence[tuple[str, Sequence[Any]]], labels: Mapping[str, str]) -> str:
    """Only the settings that differ. labels: what the form calls them."""
    if len(names) < 2:
        return ""
    if not rows:
        return '<div class="note">These runs have the same settings.</div>'
    head = "".join(f'<th><i class="dot run-{n % COLOURS}"></i>{escape(name)}</th>' for n, name in enumerate(names))
    body = "".join(
        f"<tr><th>{escape(labels.get(key, key))}</th>"
        + "".join(f"<td>{escape(_value(value))}</td>" for value in values)
        + "</tr>"
        for key, values in rows
    )
    return (
        '<div class="wide"><table class="compared settings"><thead><tr><th>Differences</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def layer_table(rows: Sequence[Any]) -> str:
    """What each line of `adapter.patterns` catches. rows: of `base_models.layer_table`."""
    if not rows:
        return ""
    body = "".join(
        f"<tr><th>{escape(row.line)}</th><td>{row.layers:,}</td>"
        f"<td>{f'{row.parameters:,}' if row.parameters or not row.layers else 'left out'}</td></tr>"
        for row in rows
    )
    head = "<tr><th>Line</th><th>Layers</th><th>Parameters</th></tr>"
    return (
        '<div class="wide"><table class="compared settings" aria-label="Layers by pattern">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def folder_table(rows: Sequence[Any]) -> str:
    """What each dataset folder comes to. rows: of `run_data.folder_table`."""
    body = "".join(
        f"<tr><th>{escape(row.folder)}{_beside(row)}</th><td>{row.images:,}</td><td>{row.share:.1%}</td>"
        f"<td>{row.shown:.3g} ×</td></tr>"
        for row in rows
    )
    names = ("Folder", "Images", "Share", "Per epoch")
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>"
    return (
        '<div class="wide"><table class="compared settings" style="table-layout:auto" aria-label="Dataset folders">'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>"
    )


def _beside(row: Any) -> str:
    """Trigger and held-out images of a folder, below its name."""
    held_out = f"{row.held_out:,} more held out" if row.held_out else ""
    text = ", ".join(filter(None, (escape(row.trigger), held_out)))
    return f'<div class="note small">{text}</div>' if text else ""


def timestep_plot(shares: Sequence[float]) -> str:
    """Bars of how often each part of the noise schedule is drawn."""
    most, width = max(shares), 1000 / len(shares)
    bars = "".join(
        f'<rect x="{place * width:.1f}" y="{1000 - 1000 * share / most:.1f}" width="{width - 4:.1f}" '
        f'height="{1000 * share / most:.1f}" fill="var(--primary-400)"><title>{share:.1%}</title></rect>'
        for place, share in enumerate(shares)
    )
    return (
        '<div class="note small">Timesteps that will be drawn, from no noise to noise alone</div>'
        '<svg role="img" aria-label="Timesteps that will be drawn" viewBox="0 0 1000 1000" preserveAspectRatio="none" '
        f'style="width:100%;height:70px">{bars}</svg>'
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "none"
    return "–" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def timeline(runs: Sequence[tuple[str, Sequence[tuple[str, Sequence[tuple[int, Path]]]]]], link: Callable = image_link):
    """A slider over the steps and, for each run, its prompts side by side. runs: (name, (prompt, images))."""
    runs = [(name, prompts) for name, prompts in runs if prompts]
    steps = sorted({step for _, prompts in runs for _, images in prompts for step, _ in images})
    if not steps:
        return '<div class="note">No previews were made.</div>'
    rows = ""
    for name, prompts in runs:
        cells = "".join(_cell(prompt, images, link) for prompt, images in prompts)
        title = f"<h4>{escape(name)}</h4>" if len(runs) > 1 else ""
        rows += f'<section>{title}<div class="cells">{cells}</div></section>'
    last = len(steps) - 1
    return (
        f'<div class="frame-slider scrub"><label>Step <b class="slider-value">{steps[-1]:,}</b>'
        f'<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Step of training"'
        f' aria-valuetext="step {steps[-1]}" data-steps="{",".join(map(str, steps))}"></label></div>{rows}'
    )


def _cell(prompt: str, images: Sequence[tuple[int, Path]], link: Callable) -> str:
    last = len(images) - 1
    frames = "".join(
        f'<img src="{escape(link(path))}" alt="{escape(prompt)}, step {step}" data-step="{step}" loading="lazy"'
        f"{'' if place == last else ' hidden'}>"
        for place, (step, path) in enumerate(images)
    )
    return f'<figure class="cell"><div class="frames">{frames}</div><small>{escape(prompt)}</small></figure>'


# A check before a run -----------------------------------------------------------------------------------------------


def check_report(job, labels: dict[str, str]) -> str:
    """What a check found. labels: of the settings that it may propose to change."""
    if job is None:
        return ""
    if job.state == "running":
        return note(f"{job.title}: a few real steps are run. It takes as long as the start of a run.")
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
        facts += [("in total, about", duration(report.total_seconds))]
        html += _facts_row(facts)
    if report.proposal:
        changes = [
            f"{escape(labels.get(key, key))}: <b>{escape(_proposed(new))}</b>" for key, new in report.proposal.items()
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


def _proposed(value) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value}"


# What may be pressed ------------------------------------------------------------------------------------------------


def why_not(job, newest) -> str:
    """Why Start can't be pressed now, or how the newest run ended when that was badly. job: what runs now."""
    if job is None:
        failed = newest is not None and newest.state == "failed"
        return note(f"The last run failed: {newest.error}", bad=True) if failed else ""
    if job.kind == "check":
        return ""  # the report above says how it goes
    if job.kind != "train":
        return note(f"{job.title} is running: wait until it is done, or stop it in the bar on top.")
    if job.stop_event.is_set():
        return note("Stopping after this step.")
    if job.paused:
        return note("Paused, with a checkpoint written. You can generate images meanwhile.")
    if job.pause_event.is_set():
        return note("Pausing after this step.")
    return note("A run is active: you can close this page.")
