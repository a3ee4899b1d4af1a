"""The adapter inspector: what one adapter is and where it acts, converting and resizing it, and merging the rows."""

import time
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapters
from studio.services.jobs import Job, latest, stop_job
from studio.text import pluralize, size
from studio.web.components.clickable import button, clickable_html, clicked, image_link
from studio.web.components.fields import QUIET
from studio.web.components.heatmap import block_table, energy_chart
from studio.web.components.html import html_list, note, progress_bar, time_left
from studio.web.errors import show_errors
from studio.web.generate.context import GenerateContext

LAYOUTS = [("diffusers, PEFT", "diffusers"), ("kohya, A1111, ComfyUI", "kohya")]
SCROLL_JS = "() => document.querySelector('#made')?.scrollIntoView({behavior: 'smooth', block: 'nearest'})"
LISTED = 40  # unused layers that are named


class AdapterInspector:
    """chosen: hidden; fill it with `request(key)` and the adapter is inspected. changed: counts the files made here."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        self.chosen, self.seen = gr.Textbox(visible=False), gr.State(None)
        self.changed = gr.Number(0, visible=False)
        self.timer = gr.Timer(0.5, active=False)  # runs only while a job does
        self.report = clickable_html("inspector")
        with gr.Row(visible=False, elem_id="inspector-tools", elem_classes="low", equal_height=True) as self.tools:
            self.layout = gr.Dropdown(LAYOUTS, value="kohya", label="Layout", elem_id="convert-layout", min_width=160)
            self.convert = gr.Button("Convert", elem_id="convert", min_width=90, scale=0)
            self.rank = gr.Number(8, label="Rank", precision=0, elem_id="resize-rank", min_width=90)
            self.resize = gr.Button("Resize", elem_id="resize", min_width=90, scale=0)
            self.plain = gr.Button("Save as plain LoRA", visible=False, elem_id="save-plain", min_width=160, scale=0)
        self.made = clickable_html("made")
        self.stop = gr.Button("Stop", visible=False, elem_id="stop-making", min_width=80, scale=0)
        self._merge_part()

    def _merge_part(self) -> None:
        gr.Markdown("### Merge into one file", elem_classes="heading")
        gr.HTML(
            note(
                "Merges the adapters on the left, with their strengths, text encoder and blocks, into one file. At "
                "strength 1 it does what they do together, in this program and in others."
            ),
            elem_classes="tight",
        )
        with gr.Row():
            self.name = gr.Textbox(
                label="Name", placeholder="From the adapters' names", max_lines=1, elem_id="merge-name", min_width=180
            )
            self.words = gr.Textbox(
                label="Trigger words",
                placeholder="From the adapters",
                max_lines=1,
                elem_id="merge-words",
                min_width=180,
            )
        with gr.Row(elem_classes="low", equal_height=True):
            self.merged_layout = gr.Dropdown(
                LAYOUTS, value="diffusers", label="Layout", elem_id="merge-layout", min_width=180
            )
            self.merged_rank = gr.Number(
                32, label="Rank for non-LoRA adapters", precision=0, elem_id="merge-rank", min_width=180
            )
            self.merge = gr.Button("Merge", variant="primary", elem_id="merge", min_width=120, scale=0)

    def wire(self) -> None:
        context, begun = self.context, {"concurrency_limit": None, **QUIET}
        watched = self.watched
        merging = [self.name, self.words, self.merged_layout, self.merged_rank]
        making = [
            self.convert.click(self.start_convert, [self.layout, *context.inputs], self.timer, **begun),
            self.resize.click(self.start_resize, [self.rank, *context.inputs], self.timer, **begun),
            self.plain.click(self.start_plain, [self.rank, self.layout, *context.inputs], self.timer, **begun),
            self.merge.click(self.start_merge, [*merging, *context.inputs], self.timer, **begun),
        ]
        inspecting = self.chosen.change(self.inspect, [self.chosen, *context.inputs], self.timer, **begun)
        for start in (inspecting, *making):
            start.then(self.watch, [self.seen, self.changed], watched, **begun)
        for start in making:
            start.then(None, None, None, js=SCROLL_JS, **QUIET)
        for event in (self.timer.tick, context.demo.load):
            event(self.watch, [self.seen, self.changed], watched, **begun)
        self.stop.click(halt, None, None, **QUIET)
        self.made.click(added, None, context.incoming, **QUIET)

    @property
    def watched(self) -> list[Any]:
        """What `watch` sets."""
        return [self.seen, self.timer, self.report, self.tools, self.plain, self.made, self.stop, self.changed]

    @show_errors
    def inspect(self, text, keys, *values):
        key = (text or "").partition(" ")[2]
        if key:
            base = self.context.base_line([keys, *values])
            adapters.start_inspection(self.workspace, key, base, keys or [])
        return gr.Timer(active=bool(key))

    @show_errors
    def start_convert(self, wanted, *values):
        base, (recipe, why) = self.context.base_name(values), recipe_or_reason(self.context, values)
        adapters.convert_adapter(self.workspace, opened(), wanted, base, recipe=recipe, note=why)
        return gr.Timer(active=True)

    @show_errors
    def start_resize(self, wanted, *values):
        recipe, why = recipe_or_reason(self.context, values)
        adapters.resize_adapter(self.workspace, opened(), wanted, recipe=recipe, note=why)
        return gr.Timer(active=True)

    @show_errors
    def start_plain(self, rank, layout, *values):
        base = self.context.base_name(values)
        adapters.save_as_plain_lora(self.workspace, opened(), rank, layout, base)
        return gr.Timer(active=True)

    @show_errors
    def start_merge(self, name, words, wanted, rank, *values):
        adapters.export_adapters(
            self.workspace, name or "", wanted, rank=rank, words=words or "", recipe=self.context.recipe(*values)
        )
        return gr.Timer(active=True)

    def watch(self, last, count):
        """What goes on now, or how it ended."""
        jobs = [one.job if one else None for one in (latest.get(kind) for kind in (adapters.INSPECT, adapters.MAKE))]
        states = [job and (id(job), job.state, job.done, job.message) for job in jobs]
        last = last or [None, None]
        (inspecting, making), active = jobs, any(job and job.state == "running" for job in jobs)
        updates: dict[Any, Any] = {self.seen: states, self.timer: gr.Timer(active=active)}
        if inspecting and states[0] != last[0]:
            updates |= {self.report: report_html(inspecting), self.tools: gr.update(visible=fits(inspecting))}
            updates[self.plain] = gr.update(visible=is_unusual(inspecting))
        if making and states[1] != last[1]:
            running = making.state == "running"
            updates |= {self.made: made_html(making), self.stop: gr.update(visible=running)}
            if not running and making.result.key:
                updates[self.changed] = (count or 0) + 1
        return updates


def build(context: GenerateContext) -> AdapterInspector:
    """The inspector, where the caller stands. Form and rows are built before it."""
    part = context.inspector = AdapterInspector(context)
    part.wire()
    return part


def request(key: str) -> str:
    """What to fill `chosen` with; a new text each time, so that asking again counts."""
    return f"{time.monotonic_ns()} {key}"


def opened() -> str:
    """The key of the adapter that is inspected. Raises StudioError."""
    newest = latest.get(adapters.INSPECT)
    if newest is None:
        raise StudioError("Inspect an adapter first.")
    return newest.name


def recipe_or_reason(context: GenerateContext, values: Sequence[Any]) -> tuple[Any, str]:
    """(the form's recipe, "") or (None, why there is none): a file can be made without an image."""
    try:
        return context.recipe(*values), ""
    except StudioError as error:
        return None, f"No image before and after: {error}"


def halt():
    stop_job(adapters.MAKE)


@show_errors
def added(event: gr.EventData):
    """Add, on a file that was made."""
    kind, key, _ = clicked(event)
    return key if kind == "add" else gr.skip()


def fits(job: Job) -> bool:
    found = job.result.found if job.result else None
    return bool(found and found.where)


# What is shown -------------------------------------------------------------------------------------------------------


def is_unusual(job: Job) -> bool:
    """Whether it holds kinds that most programs don't read, which a plain LoRA would stand in for."""
    found = job.result.found if job.result else None
    return found is not None and found.facts["kind"] != "LoRA"


def report_html(job: Job) -> str:
    """What the inspection found, or how far it is."""
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
        f'<section class="inspector">{head}{hints}<div class="inspector-parts">{where}'
        f"<div>{chart}{_facts(found)}</div></div></section>"
    )


def _facts(found: Any) -> str:
    facts, ranks = found.facts, found.facts["ranks"]
    rank99 = found.rank_for()
    parts = ", ".join(f"{name or 'unnamed'} {count}" for name, count in facts["components"].items())
    rows = {
        "Type": f"{facts['kind']}, {facts['layout']} layout",
        "Layers": f"{facts['layers']} ({parts})",
        "Rank": _counted(ranks),
        "Alpha": _counted(facts["alphas"]),
        "Effective rank": f"{rank99} (99 % of the change)" if rank99 else "",
        "Base model": f"{facts['family'] or 'not known'}: {facts['family_because']}",
        "Trained on": ", ".join(facts["base"].values()) or "not given",
        "Trigger words": ", ".join(facts["trigger_words"]) or "not given",
        "Embeddings": ", ".join(facts["embeddings"]),
        "Read by": "; ".join(facts["rules"]),
        "Size": f"{facts['size']:,} bytes",
        "SHA-256": facts["sha256"],
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
    listed = ", ".join(f"{number} ({pluralize(count, 'layer')})" for number, count in most[:6])
    return listed + (", …" if len(most) > 6 else "")


def made_html(job: Job) -> str:
    """The file that was made, or how far it is."""
    if job.state == "running":
        return _going(job)
    made = job.result
    lines = [note(job.error, bad=True)] if job.error else []
    if made and made.key:
        name = escape(made.key.partition(":")[2])
        sizes = f"{size(made.old_size)} → {size(made.size)}" if made.old_size else size(made.size)
        link = f'<a class="button" href="{escape(image_link(made.download))}" download="{name}">Download</a>'
        tools = f"{button('add', made.key, 'Add to the image', 'primary')}{link}"
        lines.append(f"<header><b>{name}</b><small>{sizes}</small>{tools}</header>")
        lines.append(html_list([escape(line) for line in made.notes]))
    elif made and made.checkpoint:
        lines.append(f"<header><b>{escape(made.checkpoint)}</b><small>{size(made.size)}</small></header>")
        lines.append(html_list([escape(line) for line in made.notes]))
    if made and made.difference is not None:
        cells = "".join(
            f'<li class="cell"><img src="{escape(image_link(path))}" alt="{text}"><label>{text}</label></li>'
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
