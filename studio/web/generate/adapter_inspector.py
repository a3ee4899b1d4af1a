"""The adapter doctor: what one adapter is and where it acts, its other forms, and the rows as one file."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapters, base_models
from studio.services.jobs import Job, latest, stop_job
from studio.text import pluralize, size
from studio.web.components.clickable import board, button, clicked, picture_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.heatmap import block_table, energy_chart
from studio.web.components.html import html_list, note, progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate.context import Bench
from studio.web.generate.form import FIELDS
from studio.workspace import Workspace

LAYOUTS = [("diffusers, PEFT", "diffusers"), ("kohya, A1111, ComfyUI", "kohya")]
SCROLL_JS = "() => document.querySelector('#made')?.scrollIntoView({behavior: 'smooth', block: 'nearest'})"
LISTED = 40  # unused layers that are named


@dataclass(frozen=True)
class Doctor:
    """chosen: hidden; fill it with `asked(key)` and the adapter is looked into."""

    chosen: gr.Textbox


def asked(key: str) -> str:
    """What to fill `chosen` with; a new text each time, so that asking again is heard."""
    return f"{time.monotonic_ns()} {key}"


def doctor(workspace: Workspace, demo: gr.Blocks, bench: Bench, changed: gr.Number) -> Doctor:
    """Build it where the caller stands. `changed` is counted up when a file was made."""
    chosen, seen = gr.Textbox(visible=False), gr.State(None)
    timer = gr.Timer(0.5, active=False)  # runs only while a job does
    report = board("doctor")
    with gr.Row(visible=False, elem_id="doctor-tools", elem_classes="low", equal_height=True) as tools:
        layout = gr.Dropdown(LAYOUTS, value="kohya", label="Layout", elem_id="convert-layout", min_width=160)
        convert = gr.Button("Convert", elem_id="convert", min_width=90, scale=0)
        rank = gr.Number(8, label="Rank", precision=0, elem_id="resize-rank", min_width=90)
        resize = gr.Button("Resize", elem_id="resize", min_width=90, scale=0)
    made = board("made")
    stop = gr.Button("Stop", visible=False, elem_id="stop-making", min_width=80, scale=0)
    gr.Markdown("### The rows as one file", elem_classes="heading")
    gr.HTML(
        note(
            "Puts the rows on the left, with their strengths, text encoder and blocks, into one file. At strength 1 it "
            "does what the rows do now, in this program and in others."
        ),
        elem_classes="tight",
    )
    with gr.Row():
        name = gr.Textbox(
            label="Name", placeholder="Made of the rows' names", max_lines=1, elem_id="export-name", min_width=180
        )
        words = gr.Textbox(
            label="Trigger words", placeholder="Those of the rows", max_lines=1, elem_id="export-words", min_width=180
        )
    with gr.Row(elem_classes="low", equal_height=True):
        out = gr.Dropdown(LAYOUTS, value="diffusers", label="Layout", elem_id="export-layout", min_width=180)
        most = gr.Number(
            32, label="Rank for what is no plain LoRA", precision=0, elem_id="export-rank", min_width=180
        )  # fmt: skip
        export = gr.Button("Export", variant="primary", elem_id="export-rows", min_width=120, scale=0)

    def key_of(text: str) -> str:
        return (text or "").partition(" ")[2]

    @show_errors
    def look(text, held, *flat):
        key = key_of(text)
        if key:
            adapters.look_inside(workspace, key, base_of(workspace, flat), held or [])
        return gr.Timer(active=bool(key))

    def recipe_of(values) -> tuple[Any, str]:
        """(the form's recipe, "") or (None, why there is none): a file can be made without a picture."""
        try:
            return bench.recipe(*values), ""
        except StudioError as error:
            return None, f"No picture before and after: {error}"

    @show_errors
    def start_convert(wanted, *values):
        recipe, why = recipe_of(values)
        adapters.convert_adapter(workspace, opened(), wanted, base_name(values[1:]), recipe=recipe, note=why)
        return gr.Timer(active=True)

    @show_errors
    def start_resize(wanted, *values):
        recipe, why = recipe_of(values)
        adapters.resize_adapter(workspace, opened(), wanted, recipe=recipe, note=why)
        return gr.Timer(active=True)

    @show_errors
    def start_export(name, words, wanted, most, *values):
        adapters.export_adapters(
            workspace, name or "", wanted, rank=most, words=words or "", recipe=bench.recipe(*values)
        )
        return gr.Timer(active=True)

    def halt():
        stop_job(adapters.MAKE)

    def watch(last, count):
        """What goes on now, or how it ended. Updates for seen, timer, report, tools, made, stop and changed."""
        look, make = (latest.get(kind) for kind in (adapters.LOOK, adapters.MAKE))
        jobs = [one.job if one else None for one in (look, make)]
        states = [job and (id(job), job.state, job.done, job.message) for job in jobs]
        last = last or [None, None]
        updates: list[Any] = [gr.skip()] * 4
        if jobs[0] and states[0] != last[0]:
            updates[:2] = look_html(jobs[0]), gr.update(visible=bool(fits(jobs[0])))
        if jobs[1] and states[1] != last[1]:
            updates[2:] = made_html(jobs[1]), gr.update(visible=jobs[1].state == "running")
        ended = jobs[1] and jobs[1].state != "running" and states[1] != last[1] and jobs[1].result.key
        going = any(job and job.state == "running" for job in jobs)
        return [states, gr.Timer(active=going), *updates, (count or 0) + 1 if ended else gr.skip()]

    @show_errors
    def act(event: gr.EventData):
        kind, key, _ = clicked(event)
        return key if kind == "add" else gr.skip()

    quiet = {**NO_PROGRESS, **PRIVATE}
    watched = [seen, timer, report, tools, made, stop, changed]
    begun = {"concurrency_limit": None, **quiet}
    looked = chosen.change(look, [chosen, *bench.inputs], timer, **begun)
    starts = [
        looked,
        convert.click(start_convert, [layout, *bench.inputs], timer, **begun),
        resize.click(start_resize, [rank, *bench.inputs], timer, **begun),
        export.click(start_export, [name, words, out, most, *bench.inputs], timer, **begun),
    ]
    for start in starts:
        start.then(watch, [seen, changed], watched, **begun)
    for start in starts[1:]:
        start.then(None, None, None, js=SCROLL_JS, **quiet)
    timer.tick(watch, [seen, changed], watched, **begun)
    demo.load(watch, [seen, changed], watched, **begun)
    stop.click(halt, None, None, **quiet)
    made.click(act, None, bench.incoming, **quiet)
    return Doctor(chosen)


def opened() -> str:
    """The key of the adapter that stands open. Raises StudioError."""
    newest = latest.get(adapters.LOOK)
    if newest is None:
        raise StudioError("Look inside an adapter first.")
    return newest.name


def base_name(flat: Sequence[Any]) -> str:
    """The base that the form names."""
    return dict(zip(FIELDS, flat)).get("base") or base_models.STARTER


def base_of(workspace: Workspace, flat: Sequence[Any]) -> str:
    """The line of that base. Raises StudioError."""
    return base_models.line_of(workspace, base_name(flat))


def fits(job: Job) -> bool:
    found = job.result.found if job.result else None
    return bool(found and found.where)


# What is shown -------------------------------------------------------------------------------------------------------


def look_html(job: Job) -> str:
    """The report of an examination, or how far it is."""
    if job.state == "running":
        return _going(job)
    if job.error:
        return note(job.error, bad=True)
    found = job.result.found
    if found is None:
        return note("Stopped.")
    from studio.adapters.advice import advice, verdict

    well = bool(found.where)
    head = (
        f"<header><b>{escape(job.result.name)}</b></header>"
        f'<div class="note{"" if well else " bad"}" id="load-report">{escape(verdict(found))}</div>'
    )
    hints = html_list([escape(line) for line in advice(found)], "advice") if well else ""
    where = block_table(found.where) if well else ""
    chart = energy_chart(found.kept)
    return (
        f'<section class="doctor">{head}{hints}<div class="doctor-parts">{where}<div>{chart}{_facts(found)}</div></div>'
        "</section>"
    )


def _facts(found: Any) -> str:
    said, ranks = found.facts, found.facts["ranks"]
    rank99 = found.rank_for()
    parts = ", ".join(f"{name or 'unnamed'} {count}" for name, count in said["components"].items())
    rows = {
        "Kind": f"{said['kind']}, {said['layout']} layout",
        "Layers": f"{said['layers']} ({parts})",
        "Rank": _counted(ranks),
        "Alpha": _counted(said["alphas"]),
        "99 % of it": f"in {rank99} directions a layer" if rank99 else "",
        "Family": f"{said['family'] or 'not known'}: {said['family_because']}",
        "Made on": ", ".join(said["base"].values()) or "not said",
        "Trigger words": ", ".join(said["trigger_words"]) or "not said",
        "New words": ", ".join(said["embeddings"]),
        "Read by": "; ".join(said["rules"]),
        "Size": f"{said['size']:,} bytes",
        "SHA-256": said["sha256"],
    }
    cells = "".join(f"<dt>{name}</dt><dd>{escape(value[:300])}</dd>" for name, value in rows.items() if value)
    return f'<dl class="file-facts">{cells}</dl>{_unused(found.fit.unused)}'


def _unused(unused: Sequence[tuple[str, str]]) -> str:
    if not unused:
        return ""
    items = "".join(f"<li><code>{escape(key)}</code> {escape(why)}</li>" for key, why in unused[:LISTED])
    more = f"<li>and {len(unused) - LISTED} more</li>" if len(unused) > LISTED else ""
    return f"<details><summary>{len(unused)} not used, and why</summary><ul>{items}{more}</ul></details>"


def _counted(numbers: dict[str, int]) -> str:
    """The commonest first."""
    if len(numbers) == 1:
        return next(iter(numbers))
    most = sorted(numbers.items(), key=lambda one: -one[1])
    said = ", ".join(f"{number} ({pluralize(count, 'layer')})" for number, count in most[:6])
    return said + (", …" if len(most) > 6 else "")


def made_html(job: Job) -> str:
    """What came of making a file, or how far it is."""
    if job.state == "running":
        return _going(job)
    made = job.result
    lines = [note(job.error, bad=True)] if job.error else []
    if made and made.key:
        name = escape(made.key.partition(":")[2])
        sizes = f"{size(made.old_size)} → {size(made.size)}" if made.old_size else size(made.size)
        link = f'<a class="button" href="{escape(picture_link(made.download))}" download="{name}">Download</a>'
        tools = f"{button('add', made.key, 'Add to the picture', 'primary')}{link}"
        lines.append(f"<header><b>{name}</b><small>{sizes}</small>{tools}</header>")
        lines.append(html_list([escape(line) for line in made.notes]))
    if made and made.difference is not None:
        cells = "".join(
            f'<li class="cell"><img src="{escape(picture_link(path))}" alt="{text}"><label>{text}</label></li>'
            for path, text in ((made.before, "Before"), (made.after, "After"))
        )
        lines.append(
            f'<ul class="cells pair">{cells}</ul><div class="note" id="made-difference">The two differ by '
            f"{made.difference:.2f} of 255 in the mean.</div>"
        )
    elif made and made.note:
        lines.append(note(made.note))
    if job.state == "stopped":
        lines.append(note("Stopped."))
    return f'<section class="finding">{"".join(lines)}</section>' if lines else ""


def _going(job: Job) -> str:
    return progress_bar(job.done, job.total) + note(f"{job.title}. {job.message}{time_left(job)}")
