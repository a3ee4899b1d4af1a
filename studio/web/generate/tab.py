"""The Generate tab: a prompt, adapters with a slider each, and the image with and without them."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, generation, grids
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.errors import show_errors, show_warning
from studio.web.generate import actions, adapter_library, adapter_rows, evaluation, form, gallery, grid, result
from studio.web.generate.context import FIELDS, POOL, ROW_FIELDS, GenerateContext

# What this browser remembers of the tab. Not gr.BrowserState: inside a tab that was not opened yet it reads nothing.
RECALL_JS = "() => { try { return JSON.parse(localStorage.studioGenerate); } catch { return null; } }"
READY_JS = "() => { window.studioRestored = true; }"
REMEMBER_JS = """(keys, ...held) => {
    if (window.studioRestored) localStorage.studioGenerate = JSON.stringify({keys, held});
}"""


class GenerateTab:
    """incoming: hidden; fill it with an adapter's key, and the adapter gets a row."""

    def __init__(self, page: PageContext):
        self.workspace = page.workspace
        with gr.Tab("Generate", id="generate", elem_id="tab-generate", render_children=True):
            self.recalled = gr.JSON(visible=False)
            self.context = context = GenerateContext(
                **vars(page),
                keys=gr.JSON([], visible=False),
                taken=gr.Textbox(visible=False),
                incoming=gr.Textbox(visible=False),
                axes=gr.JSON(visible=False),
                packed=gr.JSON(visible=False),
            )
            with gr.Row(equal_height=False):
                with gr.Column(scale=5, min_width=300):
                    form.build(context)
                    adapter_rows.build(context)
                    self.drop = gr.File(
                        label="Drop adapters (.safetensors), or an image to take its recipe",
                        file_count="multiple",
                        height=130,
                        elem_id="drop-adapters",
                        elem_classes="drop",
                    )
                with gr.Column(scale=8, min_width=320):
                    actions.build(context)
                    with gr.Tabs(elem_id="generate-tabs") as self.tabs:
                        result.build(context)
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
        filled = [*context.form.fields, context.form.keep_seed, *context.rows.outputs, context.axes, self.tabs]
        dropped = [*filled, context.rows.chooser, self.drop]
        self.drop.upload(self.take_files, [self.drop, context.keys], dropped, **QUIET)
        context.taken.change(self.take_recipe, context.taken, [*filled, context.taken], **QUIET)
        recalled = demo.load(
            self.recall, self.recalled, [*context.form.remembered, *context.rows.outputs], js=RECALL_JS, **QUIET
        )
        recalled.then(None, None, None, js=READY_JS, **QUIET)

    @show_errors
    def take_files(self, files, keys):
        """Dropped files: adapters become rows, or an image fills form and rows with its recipe."""
        rows, wanted, image = self.context.rows, [], None
        for path in files or []:
            if Path(path).suffix.lower() == ".png":
                image = path
                continue
            try:
                wanted.append(adapter_files.add_adapter_file(self.workspace, path))
            except StudioError as error:  # shown in one line; the others are kept
                show_warning(error)
        updates = None
        try:
            updates = self.restored(Path(image)) if image else None
        except StudioError as error:
            show_warning(error)
        if updates is None:
            updates = rows.with_added(keys, wanted)
        return updates | {rows.chooser: rows.choices(), self.drop: None}

    @show_errors
    def take_recipe(self, name):
        """An image of the workspace was chosen: the form takes its recipe."""
        if not name:
            return gr.skip()
        return self.restored(generation.image_path(self.workspace, name)) | {self.context.taken: ""}

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
        updates = fields | context.rows.updates([one["key"] for one in adapters[:POOL]], rows)
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
