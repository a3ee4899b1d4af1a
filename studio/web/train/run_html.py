"""The run that is shown, as HTML: what came of it, its numbers, warnings, previews. All text is escaped here.

What is shown before a run has begun, while it goes on and when it is over takes the same room, so that nothing jumps.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from studio.text import duration, percent, pluralize
from studio.web.components.clickable import button, image_link
from studio.web.components.html import html_list, note, progress_bar
from studio.web.train.scorecard_view import pill, scorecard, sentence_html

ACTIVE = ("running", "paused")
NOTHING = "–"


# What came of it ------------------------------------------------------------------------------------------------------


def run_card(view: Any, labels: Mapping[str, str], link: Callable[[Path], str] = image_link, folder: Any = None) -> str:
    """The one sentence on a run: its verdict; while it goes on, how far it is; or why it broke off.

    view: a RunView. labels: of the settings. folder: of the run, for the contact sheets of its scorecards.
    """
    if view.state == "failed":
        return _card("Failed", "", view.message or "It ended with an error: see log.txt in its folder.", bad=True)
    if found := scorecard(view, labels, link, folder):
        return found
    if view.state in ACTIVE:
        measured = any(one.step for one in view.validations)
        return _card("So far", view.word if measured else "", _so_far(view))
    if view.state == "queued":
        return _card("Queued", "", "It begins when the runs before it are done.")
    if view.state == "interrupted":
        text = f"It broke off at step {view.step:,} of {view.steps:,}." if view.steps else "It broke off before a step."
        return _card("Interrupted", "", f"{text} Resume goes on from its last checkpoint.", bad=True)
    return _card(view.state.capitalize(), "", view.message or "Nothing was measured: look at the previews.")


def _card(head: str, word: str, sentence: str, bad: bool = False) -> str:
    return (
        f'<section class="finding verdict"><header><b>{escape(head)}</b>{pill(word)}</header>'
        f'<p class="sentence{" bad" if bad else ""}">{sentence_html(sentence)}</p></section>'
    )


def _so_far(view: Any) -> str:
    if view.preparing:
        count = "{:,} of {:,}".format(*view.preparing)
        return f"{count} {view.preparing_what}." if view.preparing_what else f"Encoding images: {count}."
    if not view.steps:
        return "Loading the base model."
    measured = [one for one in view.validations if one.step and one.base_loss]
    if not measured:
        return "Not measured yet: the loss on held-out images, and the previews below, say how it goes."
    last, best = measured[-1], min(measured, key=lambda one: one.loss)
    text = f"After step {last.step:,} the held-out loss is {percent(last.loss / last.base_loss - 1)} against the base"
    return f"{text}, the lowest so far." if best is last else f"{text}. It was lowest after step {best.step:,}."


def best_step(view: Any) -> tuple[int, str]:
    """(the step that counts, what it is called): the one that the verdict picked, else of the lowest validation."""
    found = view.verdict if view.state in ("finished", "stopped") else None
    if found and found.checkpoint:
        return found.checkpoint, "picked"
    measured = [one for one in view.validations if one.step]
    if not measured:
        return 0, ""
    return min(measured, key=lambda one: one.loss).step, "best so far" if view.state in ACTIVE else "lowest validation"


# Numbers --------------------------------------------------------------------------------------------------------------


def run_status(view: Any, docked: bool = False) -> str:
    """Name, state and a few large numbers. docked: the bar on top of the page shows how far it is."""
    active = view.state in ACTIVE
    count = f' <span class="pill quiet-pill">{pluralize(len(view.warnings), "warning")}</span>' if view.warnings else ""
    state = f'<span class="pill {view.state}">{view.state}</span>'
    title = f'<div class="run-head"><b>{escape(view.name)}</b> {state}{count}</div>'
    bar = progress_bar(view.step, view.steps, view.name) if active and not docked else ""
    cells = "".join(
        f"<div><span>{escape(label)}</span><b>{escape(text)}</b></div>" for label, text in _facts(view, active, docked)
    )
    return f'{title}{bar}<div class="facts">{cells}</div>{_bands(view)}'


def _facts(view: Any, active: bool, docked: bool) -> list[tuple[str, str]]:
    """(label, text) of each number; while the run goes on also of those that are not known yet."""
    facts = [] if docked and active else [("step", f"{view.step:,} of {view.steps:,}")]
    if view.losses or active:
        facts.append(("loss", f"{view.losses[-1][2]:.4f}" if view.losses else NOTHING))
    shown = _validation(view)
    if shown or active:
        label = f"validation, step {shown.step:,}" if shown and not active else "validation against base"
        facts.append((label, percent(shown.loss / shown.base_loss - 1) if shown else NOTHING))
    speed = view.steps_per_second
    if speed or active:
        text = f"{speed:.1f} steps a second" if speed >= 1 else f"{1 / speed:.1f} s a step" if speed else NOTHING
        facts.append(("speed", text))
    if active and not docked:
        facts.append(("time left", duration(view.seconds_left) if speed else NOTHING))
    memory = view.last.memory if view.last else 0
    if memory or active:
        facts.append(("memory", f"{memory:.1f} GB" if memory else NOTHING))
    return facts


def _validation(view: Any) -> Any:
    """The validation of the step that was picked; of a run that goes on, the newest."""
    measured = [one for one in view.validations if one.step and one.base_loss]
    picked = best_step(view)[0] if view.state not in ACTIVE else 0
    return next((one for one in measured if one.step == picked), measured[-1] if measured else None)


def _bands(view: Any) -> str:
    """The same validation by timesteps: the loss as a share of the base's."""
    from studio.training.verdict import BAND_NAMES

    shown = _validation(view)
    known = shown is not None and bool(shown.bands) and len(shown.bands) == len(shown.base_bands)
    if not known and (view.state not in ACTIVE or (view.steps and not view.validations)):
        return ""
    cells = []
    rows = zip(shown.bands, shown.base_bands) if known else [(0.0, 0.0)] * len(BAND_NAMES)
    for name, (loss, base) in zip(BAND_NAMES, rows):
        share = loss / base if base else 1.0
        worse = " worse" if share > 1.005 else "" if known else " unknown"
        cells.append(
            f'<div class="band{worse}"><span>{escape(name)}</span><b>{percent(share - 1) if known else NOTHING}</b>'
            f'<div class="bar"><i style="width:{100 * min(1.0, share):.1f}%"></i></div></div>'
        )
    return (
        '<div class="bands" role="img" aria-label="Validation loss against the base, by timestep">'
        f'{"".join(cells)}</div><div class="note small">Validation loss by timestep; a full bar is the base model, '
        "shorter is better.</div>"
    )


def run_notes(view: Any) -> str:
    """How it ended, the export check, and what it ran on."""
    lines = ""
    if view.state not in (*ACTIVE, "failed") and view.message:
        lines += note(view.message)
    if view.export_check and view.state not in ACTIVE:
        lines += note(f"Export check: {view.export_check.message}")
    return lines + (f'<div class="note small">{escape(view.setup)}</div>' if view.setup else "")


def warnings_list(warnings: list[tuple[int, str]]) -> str:
    """Folded, newest first."""
    if not warnings:
        return ""
    count = pluralize(len(warnings), "warning")
    lines = [f"<b>step {step:,}</b> {escape(message)}" for step, message in reversed(warnings)]
    return f'<details class="warnings"><summary>{count}</summary>{html_list(lines)}</details>'


# Previews -------------------------------------------------------------------------------------------------------------

LARGE_JS = """
const shut = () => { element.querySelector('.lightbox')?.remove(); document.removeEventListener('keydown', keys); };
const keys = event => { if (event.key === 'Escape') { event.preventDefault(); shut(); } };
element.addEventListener('click', event => {
  const hit = event.target.closest('button[data-act]');
  if (hit && hit.dataset.act !== 'shut') trigger('click', {act: hit.dataset.act, arg: hit.dataset.arg});
  if (hit || !event.target.closest('figure')) shut();
});
new MutationObserver(() => {
  const there = element.querySelector('.lightbox');
  document.removeEventListener('keydown', keys);
  if (!there) return;
  document.addEventListener('keydown', keys);
  there.querySelector('button')?.focus({preventScroll: true});
}).observe(element, {childList: true, subtree: true});
"""


def preview_grid(
    rows: Sequence[tuple[str, Sequence[tuple[int, Path]]]],
    files: Mapping[tuple[int, str], str],
    link: Callable = image_link,
) -> str:
    """Prompts down, steps from left to right: the base at step 0 first, the newest last and in sight.

    rows: (prompt, (step, thumbnail)); files: {(step, prompt): the preview's name}. "" where there is none.
    """
    steps = sorted({step for _, images in rows for step, _ in images})
    if not steps:
        return ""
    head = "".join(f'<th scope="col">{f"{step:,}" if step else "Base"}</th>' for step in steps)
    body = ""
    for prompt, images in rows:
        known = dict(images)
        cells = "".join(_preview(prompt, files.get((step, prompt), ""), step, known.get(step), link) for step in steps)
        body += f'<tr><th scope="row">{escape(prompt)}</th>{cells}</tr>'
    return (
        '<div class="grid-room newest"><table class="grid-table" style="--cell: 120px; --shape: auto">'
        f"<thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _preview(prompt: str, file: str, step: int, path: Path | None, link: Callable) -> str:
    if path is None:
        return '<td><div class="no-image"></div></td>'
    name = f"{escape(prompt)}, {f'step {step:,}' if step else 'the base'}"
    return (
        f'<td><button type="button" data-act="enlarge" data-arg="{escape(file)}" title="Show it large" '
        f'aria-label="Show large: {name}"><img src="{escape(link(path))}" alt="{name}" loading="lazy"></button></td>'
    )


def large_preview(path: Path, name: str, prompt: str, now: float) -> str:
    """One preview over the page. name: of its file, such as 000200-0; now: makes it news when it is shown again."""
    step = int(name.partition("-")[0])
    what = f"Step {step:,}" if step else "The base"
    tools = button("generate", name, "Open in Generate", "primary") + button("shut", "", "Close")
    return (
        f'<div class="lightbox" role="dialog" aria-modal="true" aria-label="{what}" data-now="{now}"><figure>'
        f'<img src="{escape(image_link(path))}" alt="{escape(prompt or what)}">'
        f'<figcaption><b>{what}</b> {escape(prompt)}</figcaption><div class="tools">{tools}</div></figure></div>'
    )
