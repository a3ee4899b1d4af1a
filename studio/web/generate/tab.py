"""The Generate tab: a prompt, adapters with a slider each, and the picture with and without them."""

import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, generation, grids
from studio.web.components.clickable import clicked
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import note
from studio.web.errors import show_errors, show_warning
from studio.web.generate import adapter_rows, result
from studio.web.generate.adapter_library import adapters_part
from studio.web.generate.adapter_rows import FRESH, POOL
from studio.web.generate.context import Bench
from studio.web.generate.evaluation import measure_part
from studio.web.generate.form import FIELDS, given, make_form
from studio.web.generate.gallery import history_part
from studio.web.generate.grid import grid_part
from studio.workspace import Workspace

# What this browser remembers of the tab. Not gr.BrowserState: inside a tab that was not opened yet it reads nothing.
RECALL_JS = "() => { try { return JSON.parse(localStorage.studioGenerate); } catch { return null; } }"
READY_JS = "() => { window.studioRestored = true; }"
REMEMBER_JS = """(keys, ...held) => {
    if (window.studioRestored) localStorage.studioGenerate = JSON.stringify({keys, held});
}"""


@dataclass(frozen=True)
class GenerateTab:
    """What the other tabs need, hidden: `incoming` adds an adapter when it is filled, `emptied` as in Bench."""

    incoming: gr.Textbox
    emptied: gr.Number


def generate_tab(workspace: Workspace, demo: gr.Blocks) -> GenerateTab:
    """Build the tab inside the caller's gr.Tab."""
    keys = gr.JSON([], visible=False)  # what each row holds: "run:NAME", "file:NAME", "live:NAME" or ""
    recalled = gr.JSON(visible=False)
    incoming, taken = gr.Textbox(visible=False), gr.Textbox(visible=False)
    axes, packed, emptied = gr.JSON(visible=False), gr.JSON(visible=False), gr.Number(0, visible=False)
    made = gr.State(False)  # moving a slider draws again only when there is a picture to compare with
    with gr.Row(equal_height=False):
        with gr.Column(scale=5, min_width=300):
            form = make_form(workspace, demo, incoming)
            gr.Markdown("### Adapters", elem_classes="heading")
            chooser = gr.Dropdown(
                label="Add an adapter", choices=[], value=None, elem_id="add-adapter", interactive=True
            )
            rows = [adapter_rows.make_row(index) for index in range(POOL)]
            none_yet = gr.HTML(note("None. The picture comes from the base model alone."), elem_id="no-adapters")
            drop = gr.File(
                label="Drop adapters (.safetensors), or a picture to take its recipe", file_count="multiple",
                height=130, elem_id="drop-adapters", elem_classes="drop",
            )  # fmt: skip
        fields, values = list(form.fields), adapter_rows.values(rows)
        bench = Bench([keys, *fields, *values], partial(_recipe, workspace), taken, incoming, axes, packed, emptied)
        with gr.Column(scale=8, min_width=320):
            with gr.Row(elem_classes="actions"):
                go = gr.Button("Generate", variant="primary", elem_id="go", min_width=140, scale=3)
                strip = gr.Button("Strength strip", elem_id="strip", min_width=160)
                stop = gr.Button("Stop", elem_id="stop-drawing", min_width=70, scale=0)
                compare = gr.Dropdown(
                    [result.BESIDE, result.OVER, result.OFF],
                    value=result.BESIDE, label="With and without", elem_id="with-without", min_width=190,
                )  # fmt: skip
            with gr.Tabs(elem_id="generate-tabs") as tabs:
                with gr.Tab("Picture", id="drawn", elem_id="tab-drawn"):
                    results = result.make_results()
                with gr.Tab("Grid", id="grid", elem_id="tab-grid", render_children=True):
                    grid_part(workspace, demo, bench)
                with gr.Tab("Adapters", id="shelf", elem_id="tab-shelf") as shelf_tab:
                    adapters_part(workspace, demo, bench, shelf_tab)
                with gr.Tab("Measure", id="measures", elem_id="tab-measures"):
                    measure_part(workspace, demo, bench)
                with gr.Tab("History", id="past", elem_id="tab-history") as past:
                    history_part(workspace, bench, past)

    pool = [keys, *adapter_rows.components(rows), none_yet]
    held_here = [*form.remembered, *values]

    # Adapter rows ------------------------------------------------------------------------------------------------

    def rows_of(held: list[str], fresh: dict[int, Any] | None = None) -> list[Any]:
        """Updates for `pool`. Only the rows in `fresh` get new values."""
        return [held, *adapter_rows.shown(workspace, held, fresh), gr.update(visible=not any(held))]

    def with_added(held, wanted) -> list[Any]:
        held, new = adapter_rows.add(held or [], wanted)
        return rows_of(held, {index: FRESH for index in new})

    @show_errors
    def add(key, held):
        if not key:
            return [gr.skip()] * (len(pool) + 1)
        adapter_rows.check(workspace, key)
        return *with_added(held, [key]), gr.update(value=None)

    @show_errors
    def take(files, held):
        """Dropped files: adapters become rows, or a picture fills form and rows with its recipe."""
        wanted, picture_file = [], None
        for path in files or []:
            if Path(path).suffix.lower() == ".png":
                picture_file = path
                continue
            try:
                wanted.append(adapter_files.add_adapter_file(workspace, path))
            except StudioError as error:  # told in one line; the others are kept
                show_warning(error)
        try:
            if picture_file:
                return *restore(Path(picture_file)), load_adapters(), None
        except StudioError as error:
            show_warning(error)
        same = [gr.skip()] * len(fields)
        return *same, *with_added(held, wanted), gr.skip(), gr.skip(), load_adapters(), None

    @show_errors
    def take_recipe(name):
        """A picture of the workspace was chosen: the form takes its recipe."""
        if not name:
            return [gr.skip()] * (len(fields) + len(pool) + 3)
        return *restore(generation.image_path(workspace, name)), ""

    def restore(path: Path) -> list[Any]:
        """Updates for the form's fields, `pool`, axes and tabs, from the recipe inside a picture or a sheet."""
        found, adapters, problems = generation.restored(workspace, path)
        typed, missing = grids.typed_in(workspace, path)
        for problem in [*problems, *missing]:
            show_warning(StudioError(problem))
        updates = [gr.update(value=found[name]) if name in found else gr.skip() for name in FIELDS]
        held = {
            index: (True, one.get("strength", 1.0), one.get("text_strength"), one.get("start", 0.0),
                    one.get("end", 1.0), ", ".join(f"{k} {v:g}" for k, v in (one.get("blocks") or {}).items()))
            for index, one in enumerate(adapters[:POOL])
        }  # fmt: skip
        sheet = [time.time(), [asdict(one) for one in typed]] if typed else gr.skip()
        beside = [sheet, gr.Tabs(selected="grid" if typed else "drawn")]
        return [*updates, *rows_of([one["key"] for one in adapters[:POOL]], held), *beside]

    def remove(index, held):
        return rows_of([("" if i == index else key) for i, key in enumerate(held or [])])

    def load_adapters():
        return gr.update(choices=generation.shelf(workspace))

    def recall(memory):
        """What this browser held when it was closed; none of it is trusted."""
        memory = memory if isinstance(memory, dict) else {}
        saved = memory.get("held")
        if not isinstance(saved, list) or len(saved) != len(held_here):
            return [gr.skip()] * (len(form.remembered) + len(pool))
        old = memory.get("keys") if isinstance(memory.get("keys"), list) else []
        still, width, first = adapter_rows.known_keys(workspace, old), len(adapter_rows.FIELDS), len(form.remembered)
        places = [old.index(key) * width + first for key in still]
        values = {row: saved[at : at + width] for row, at in enumerate(places)}
        return [*given(workspace, form, saved), *rows_of(still, values)]

    # The picture -------------------------------------------------------------------------------------------------

    @show_errors
    def generate(request: gr.Request, how, held, *flat):
        yield from drawn(request, True, how, held, *flat)

    @show_errors
    def again(request: gr.Request, ready, how, held, *flat):
        """A strength was let go: the same picture with it, once there is one."""
        if not ready:
            yield [gr.skip()] * len(outputs)  # a generator that says nothing empties them
            return
        yield from drawn(request, False, how, held, *flat)

    def drawn(request, lined_up, how, held, *flat):
        session = request.session_hash or ""
        turn = result.next_turn(session, lined_up)
        if turn.is_set():
            yield [gr.skip()] * len(outputs)
            return
        recipe = bench.recipe(held, *flat)
        bare = recipe.model_copy(update={"adapters": ()}) if recipe.adapters else None
        for updates in result.draw(workspace, session, recipe, bare, how, turn):
            yield [*updates, True]

    @show_errors
    def draw_strip(request: gr.Request, held, *flat):
        turn = result.next_turn(request.session_hash or "", False)
        return result.draw_strip(workspace, bench.recipe(held, *flat), turn)

    quiet = {**NO_PROGRESS, **PRIVATE}
    inputs, outputs = [compare, *bench.inputs], [*results.parts, made]
    device = {"concurrency_id": "device", "concurrency_limit": 1, **PRIVATE}
    came = result.wire_line(go, form.prompt, stop)
    came.then(generate, inputs, outputs, trigger_mode="multiple", **NO_PROGRESS, **device)
    film = [results.blank, results.film, results.before, results.earlier]
    strip.click(draw_strip, bench.inputs, film, show_progress_on=film[:2], **device)

    def say_word(text, event: gr.EventData):
        act, word, _ = clicked(event)
        return adapter_rows.word_in(text, word) if act == "word" else gr.skip()

    for index, row in enumerate(rows):
        row.remove.click(lambda held, i=index: remove(i, held), keys, pool, **quiet)
        row.about.click(say_word, form.prompt, form.prompt, **quiet)
        gr.on(
            [row.values[1].release, row.values[0].input], again, [made, *inputs], outputs,
            trigger_mode="always_last", **NO_PROGRESS, **device,
        )  # fmt: skip
    changes = [part.change for part in [*held_here, keys]]
    gr.on(changes, None, [keys, *held_here], None, js=REMEMBER_JS, **quiet)
    form.chance.click(lambda: -1, None, form.seed, **quiet)
    form.reuse.click(result.last_seed, None, form.seed, **quiet)
    gr.on([keys.change, form.base.change], partial(adapter_rows.abouts, workspace), [keys, form.base],
          [row.about for row in rows], trigger_mode="always_last", **quiet)  # fmt: skip
    chooser.input(add, [chooser, keys], [*pool, chooser], **quiet)
    chooser.focus(load_adapters, None, chooser, **quiet)
    incoming.change(add, [incoming, keys], [*pool, incoming], **quiet)
    drop.upload(take, [drop, keys], [*fields, *pool, axes, tabs, chooser, drop], **quiet)
    taken.change(take_recipe, taken, [*fields, *pool, axes, tabs, taken], **quiet)
    demo.load(load_adapters, None, chooser, **quiet)
    demo.load(recall, recalled, [*form.remembered, *pool], js=RECALL_JS, **quiet).then(None, None, None, js=READY_JS,
                                                                                     **quiet)  # fmt: skip
    demo.load(lambda: result.earlier_pictures(workspace), None, [results.before, results.earlier], **quiet)
    return GenerateTab(incoming, emptied)


def _recipe(workspace: Workspace, held, *flat):
    """The Recipe of what stands in the form and in the rows. Raises StudioError."""
    typed = dict(zip(FIELDS, flat))
    uses = adapter_rows.uses(workspace, held or [], flat[len(FIELDS) :])
    if typed["source"]:
        typed["source"] = generation.keep_source(workspace, typed["source"])
        typed["mask"] = generation.mask_of(workspace, typed["source"], typed["mask"])
    else:
        typed["mask"] = None
    return generation.compose(workspace, uses, **typed)
