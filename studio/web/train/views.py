"""Runs as HTML: the list, the queue, the bin, settings side by side, and the film of previews. All escaped here."""

import time
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.text import percent, pluralize, size
from studio.web.components.clickable import button, picture_link, tick
from studio.web.components.html import empty
from studio.web.components.loss_chart import COLOURS
from studio.web.train.status import verdict_kind

PAGE = 60  # rows shown at a time

BOARD_JS = """
const tell = (act, arg) => trigger('click', {act, arg,
  ticked: [...element.querySelectorAll('input[data-tick]:checked')].map(box => box.dataset.tick)});
element.addEventListener('click', event => {
  const hit = event.target.closest('button[data-act]');
  if (hit) tell(hit.dataset.act, hit.dataset.arg || '');
});
element.addEventListener('change', event => { if (event.target.closest('input[data-tick]')) tell('tick', ''); });
// Gradio puts new HTML into the old elements, and a box that a person once ticked would stay so for another run.
new MutationObserver(() => {
  for (const box of element.querySelectorAll('input[data-tick]')) box.checked = box.hasAttribute('checked');
}).observe(element, {childList: true, subtree: true, attributes: true});
"""

# Every picture is sent once; the slider shows, of each prompt, the newest one that is not beyond it.
FILM_JS = """
element.addEventListener('input', event => {
  const range = event.target.closest('.scrub input[type=range]');
  if (!range) return;
  const step = Number(range.dataset.steps.split(',')[Number(range.value)]);
  element.querySelector('.film-at').textContent = step.toLocaleString('en-US');
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


def run_list(rows: Sequence[Any], ticked: Sequence[str], fitting: int, total: int, left: int) -> str:
    """rows: Rows; fitting: runs that pass the filter; left: runs that could not be read yet."""
    if not total:
        return empty("No run yet", "Start one on the left, and it is listed here.")
    if not fitting and not left:
        return empty("No run fits", f"Empty the filter to see all {total:,}.")
    lines = "".join(_row(row, row.run.name in ticked) for row in rows)
    count = pluralize(total, "run") if fitting == total else f"{fitting:,} of {pluralize(total, 'run')}"
    if left:
        count += f", {left:,} more are being read"
    names = {one.run.name for one in rows}
    chosen = [name for name in ticked if name in names]
    delete = button("delete", "", f"Delete {len(chosen)}" if chosen else "Delete") if chosen else ""
    clear = button("clear", "", "Tick none", "link") if chosen else ""
    say = "" if chosen else "<small>Tick runs to compare them.</small>"
    more = button("more", "", f"Show {min(PAGE, fitting - len(rows))} more") if fitting > len(rows) else ""
    return (
        f'<header><b>{count}</b>{say}{clear}{delete}</header><ul class="runs">{lines}</ul>'
        f'<div class="more">{more}</div>'
    )


def _row(row: Any, on: bool) -> str:
    run = row.run
    picture = f'<img src="{escape(picture_link(row.image))}" alt="" loading="lazy">' if row.image else "<i></i>"
    against = f"<b>{percent(run.against_base)}</b>" if run.against_base is not None else "<b>–</b>"
    word = f'<span class="pill {verdict_kind(run.verdict)}">{escape(run.verdict)}</span>' if run.verdict else ""
    best = ""
    if run.best is not None and run.base_loss is not None:
        numbers = f"{run.best:.4f} / {run.base_loss:.4f}"
        best = f'<small title="lowest held-out loss, and the base model\'s">{numbers}</small>'
    said = f"<small>{escape(row.note[:160])}</small>" if row.note else ""
    base = run.base.partition("?")[0].rstrip("/")
    base = base if base.count("/") == 1 and not base.startswith("/") else base.rpartition("/")[2]
    return (
        f'<li class="run{" on" if on else ""}">{tick(run.name, f"Tick {run.name}", on)}{picture}'
        f'<div class="what">{button("open", run.name, run.name, "link", f"Show {run.name}")} '
        f'<span class="pill {escape(run.state)}">{escape(run.state)}</span>'
        f"<small>{escape(run.dataset)} on {escape(base)}</small>{said}</div>"
        f'<div class="how"><span class="against" title="held-out loss against the base">{against}</span> {word}'
        f"{best}</div>"
        f'<div class="much"><span>{run.step:,} of {pluralize(run.steps, "step")}</span>'
        f"<small>{when(run.changed)} · {size(run.size)}</small></div></li>"
    )


def bin_line(thrown: Sequence[Any], sure: bool) -> str:
    """What is in the bin, and the way back. sure: the person asked to empty it and is asked once more."""
    if not thrown:
        return ""
    total, many = sum(one.size for one in thrown), pluralize(len(thrown), "run")
    if sure:
        end = (
            f"<b>Delete {many} for good?</b>{button('really', '', f'Delete {size(total)}', 'primary')}"
            f"{button('keep', '', 'Keep them')}"
        )
    else:
        undo = button("undo", thrown[0].key, f"Undo: take back {thrown[0].name}")
        end = f"<b>{many} in the bin, {size(total)}</b>{undo}{button('empty', '', 'Empty the bin')}"
    items = "".join(
        f"<li>{escape(one.name)} <small>{size(one.size)}</small>"
        f"{button('undo', one.key, 'Take back', 'link', f'Take back {one.name}')}</li>"
        for one in thrown[1:50]
    )
    others = f'<details><summary>Others in it</summary><ul class="binned">{items}</ul></details>' if items else ""
    return f'<div class="bin"><header>{end}</header>{others}</div>'


# The queue ----------------------------------------------------------------------------------------------------------


def queue_list(waiting: Sequence[Any], going: bool) -> str:
    """waiting: Summaries, the next one first; going: whether the next one begins by itself."""
    if not waiting:
        return ""
    many = f"{pluralize(len(waiting), 'run')} wait{'s' * (len(waiting) == 1)}"
    if going:
        head = f"<b>{many}</b>{button('hold', '', 'Hold the queue')}"
    else:
        head = f"<b>{many}: go on?</b>{button('go', '', 'Go on', 'primary')}"
    rows = ""
    for place, run in enumerate(waiting):
        up = button("up", run.name, "↑", "step", f"Move {run.name} forward") if place else ""
        down = button("down", run.name, "↓", "step", f"Move {run.name} back") if place < len(waiting) - 1 else ""
        out = button("out", run.name, "×", "step", f"Take {run.name} out of the queue")
        rows += (
            f"<li><span><b>{escape(run.name)}</b> "
            f"<small>{escape(run.dataset)}, {pluralize(run.steps, 'step')}</small></span>"
            f'<span class="tools">{up}{down}{out}</span></li>'
        )
    said = "They begin by themselves, one after the other." if going else "Nothing begins until you say so."
    return f'<section class="finding"><header>{head}</header><ol>{rows}</ol><small>{said}</small></section>'


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
        '<div class="wide"><table class="compared settings"><thead><tr><th>What differs</th>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value)) or "none"
    return "–" if value in (None, "") else f"{value:g}" if isinstance(value, float) else str(value)


def film(runs: Sequence[tuple[str, Sequence[tuple[str, Sequence[tuple[int, Path]]]]]], link: Callable = picture_link):
    """A slider through training time and, for each run, its prompts side by side. runs: (name, (prompt, pictures))."""
    runs = [(name, prompts) for name, prompts in runs if prompts]
    steps = sorted({step for _, prompts in runs for _, pictures in prompts for step, _ in pictures})
    if not steps:
        return '<div class="note">No previews were made.</div>'
    rows = ""
    for name, prompts in runs:
        cells = "".join(_cell(prompt, pictures, link) for prompt, pictures in prompts)
        title = f"<h4>{escape(name)}</h4>" if len(runs) > 1 else ""
        rows += f'<section>{title}<div class="cells">{cells}</div></section>'
    last = len(steps) - 1
    return (
        f'<div class="film scrub"><label>Step <b class="film-at">{steps[-1]:,}</b>'
        f'<input type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Step of training"'
        f' aria-valuetext="step {steps[-1]}" data-steps="{",".join(map(str, steps))}"></label></div>{rows}'
    )


def _cell(prompt: str, pictures: Sequence[tuple[int, Path]], link: Callable) -> str:
    last = len(pictures) - 1
    frames = "".join(
        f'<img src="{escape(link(path))}" alt="{escape(prompt)}, step {step}" data-step="{step}" loading="lazy"'
        f"{'' if place == last else ' hidden'}>"
        for place, (step, path) in enumerate(pictures)
    )
    return f'<figure class="cell"><div class="frames">{frames}</div><small>{escape(prompt)}</small></figure>'
