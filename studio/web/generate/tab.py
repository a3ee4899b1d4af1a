"""The Generate tab: a prompt, adapters with a slider each, and the image with and without them."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import drops, generation, grids, run_library
from studio.text import pluralize
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET, kept
from studio.web.errors import show_errors, show_warning
from studio.web.generate import actions, adapter_library, adapter_rows, evaluation, form, gallery, grid, result
from studio.web.generate.context import FIELDS, POOL, ROW_FIELDS, GenerateContext
from studio.web.generate.result import at_rest

# What this browser remembers of the tab. Not gr.BrowserState: inside a tab that was not opened yet it reads nothing.
RECALL_JS = "() => { try { return JSON.parse(localStorage.studioGenerate); } catch { return null; } }"
READY_JS = "() => { window.studioRestored = true; }"
REMEMBER_JS = """(keys, ...held) => {
    if (window.studioRestored) localStorage.studioGenerate = JSON.stringify({keys, held});
}"""


class GenerateTab:
    """incoming: hidden; fill it with an adapter's key, and the adapter gets a row.

    dropped   {"when", "keys" of adapters, "recipe": an image's path, "source": another's}; on the server alone
    """

    def __init__(self, page: PageContext):
        self.workspace = page.workspace
        with gr.Tab("Generate", id="generate", elem_id="tab-generate", render_children=True):
            self.recalled, self.dropped = gr.JSON(visible=False), gr.State(None)
            self.context = context = GenerateContext(
                **vars(page),
                keys=kept([]),
                taken=gr.Textbox(visible=False),
                incoming=gr.Textbox(visible=False),
                to_sweep=gr.Textbox(visible=False),
                axes=gr.State(None),
                packed=gr.JSON(visible=False),
                pair=gr.State(None),
            )
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    form.build(context)
                    adapter_rows.build(context)
                    self.drop = gr.File(
                        label="Drop adapters, or an image to take its recipe, here or anywhere on the page",
                        file_count="multiple",
                        height=130,
                        elem_id="drop-adapters",
                        elem_classes="drop",
                    )
                with gr.Column(scale=8, min_width=320):
                    actions.build(context)
                    with gr.Tabs(elem_id="generate-tabs") as self.tabs:
                        context.tabs = self.tabs
                        self.result = result.build(context)
                        grid.build(context)
                        adapter_library.build(context)
                        evaluation.build(context)
                        gallery.build(context)
        self.incoming = context.incoming

    def wire(self) -> None:
        context, demo = self.context, self.context.demo
        kept = [*context.form.remembered, *context.rows.values]
        changes = [part.change for part in [*kept, context.keys]]
        gr.on(changes, None, [context.keys, *kept], None, js=REMEMBER_JS, **QUIET)
        filled = [
            *context.form.fields,
            self.result.line,
            context.form.keep_seed,
            *context.rows.outputs,
            context.axes,
            self.tabs,
        ]
        dropped = [*filled, context.rows.chooser, context.form.more, context.form.field("source"), context.pair]
        self.dropped.change(self.take, [self.dropped, context.keys], dropped, **QUIET)
        context.taken.change(self.take_recipe, context.taken, [*filled, context.taken], **QUIET)
        context.actions.queued.then(lambda: gr.Tabs(selected="drawn"), None, self.tabs, **QUIET)
        recalled = demo.load(
            self.recall, self.recalled, [*context.form.remembered, *context.rows.outputs], js=RECALL_JS, **QUIET
        )
        recalled.then(None, None, None, js=READY_JS, **QUIET)

    @show_errors
    def take(self, dropped, keys):
        """What was dropped (see `web.drop`): adapters become rows, an image gives its recipe, or starts image to image.

        Two adapters dropped together are compared at one seed.
        """
        context, rows = self.context, self.context.rows
        if not dropped:
            return gr.skip()
        if dropped.get("source"):
            return {context.form.field("source"): dropped["source"], context.form.more: gr.update(open=True)}
        if dropped["recipe"]:
            updates = self.restored(Path(dropped["recipe"]))
        else:
            free = POOL - sum(map(bool, keys or []))
            new = [key for key in dropped["keys"] if key not in (keys or [])]
            updates = rows.with_added(keys, new[:free])
            if left := len(new[free:]):
                text = (
                    f"{pluralize(left, 'adapter')} found no free row: add them from the list, or remove others first."
                )
                show_warning(StudioError(text))
            if len(dropped["keys"]) == 2:
                updates[context.pair] = [dropped["when"], *dropped["keys"]]
        return updates | {rows.chooser: rows.choices()}

    @show_errors
    def take_recipe(self, name):
        """An image of the workspace was chosen: the form takes its recipe."""
        if not name:
            return gr.skip()
        path = run_library.preview_named(self.workspace, name) or generation.image_path(self.workspace, name)
        return self.restored(path) | {self.context.taken: ""}

    def restored(self, path: Path) -> dict[Any, Any]:
        """Updates for the form, the rows, axes and tabs, from the recipe inside an image or a contact sheet."""
        context = self.context
        found, adapters, problems = generation.restored(self.workspace, path)
        axes, missing = grids.typed_in(self.workspace, path)
        for problem in [*problems, *missing]:
            show_warning(StudioError(problem))
        fields = {
            part: gr.update(value=found[name]) for name, part in zip(FIELDS, context.form.fields) if name in found
        }
        rows = {index: row_values(one) for index, one in enumerate(adapters[:POOL])}
        line = at_rest(drops.restored_text(path.name, found, adapters[:POOL]))
        updates = (
            fields | {self.result.line: line} | context.rows.updates([one["key"] for one in adapters[:POOL]], rows)
        )
        updates[context.form.keep_seed] = True
        if axes:
            updates[context.axes] = [time.time(), [asdict(one) for one in axes]]
        return updates | {self.tabs: gr.Tabs(selected="grid" if axes else "drawn")}

    def recall(self, memory):
        """What this browser held when it was closed; none of it is trusted."""
        form, rows = self.context.form, self.context.rows
        memory = memory if isinstance(memory, dict) else {}
        saved, first, width = memory.get("held"), len(form.remembered), len(ROW_FIELDS)
        if not isinstance(saved, list) or len(saved) != first + len(rows.values):
            return gr.skip()
        old = memory.get("keys") if isinstance(memory.get("keys"), list) else []
        still = adapter_rows.known_keys(self.workspace, old)
        places = [old.index(key) * width + first for key in still]
        values = {row: saved[at : at + width] for row, at in enumerate(places)}
        return form.recalled(saved) | rows.updates(still, values)


def build(context: PageContext) -> GenerateTab:
    """The tab, inside the caller's gr.Tabs."""
    part = GenerateTab(context)
    part.wire()
    return part


def row_values(adapter: dict[str, Any]) -> tuple[Any, ...]:
    """An adapter of a recipe as the values of a row."""
    blocks = ", ".join(f"{name} {value:g}" for name, value in (adapter.get("blocks") or {}).items())
    return (
        True,
        adapter.get("strength", 1.0),
        adapter.get("text_strength"),
        adapter.get("start", 0.0),
        adapter.get("end", 1.0),
        blocks,
    )
