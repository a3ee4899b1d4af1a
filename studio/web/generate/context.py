"""What the parts of the Generate tab share: the recipe that the form and the adapter rows make, and the ways back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import gradio as gr

from studio.services import base_models, generation
from studio.web.components.context import PageContext

if TYPE_CHECKING:
    from studio.web.generate.actions import Actions
    from studio.web.generate.adapter_inspector import AdapterInspector
    from studio.web.generate.adapter_rows import AdapterRows
    from studio.web.generate.form import GenerateForm

# Fields of a Recipe in the order of `GenerateForm.fields`. A browser remembers all but the last two.
FIELDS = (
    "base",
    "prompt",
    "negative_prompt",
    "seed",
    "steps",
    "guidance",
    "width",
    "height",
    "scheduler",
    "clip_skip",
    "count",
    "denoising",
    "guidance_rescale",
    "source",
    "mask",
)
POOL = 8  # adapters at once: rows made once and shown when needed, since rows made on the fly lose their values
ROW_FIELDS = ("on", "strength", "text_strength", "start", "end", "blocks")  # of a row, in the order of its `values`


@dataclass
class GenerateContext(PageContext):
    """The left side of the tab, for the parts on its right. Form, rows and actions are filled in as they are built.

    keys      hidden: what each row holds: "run:NAME", "file:NAME", "live:NAME" or ""
    taken     hidden: fill it with the name of an image in the workspace's outputs, and the form takes its recipe
    incoming  hidden: fill it with an adapter's key ("run:NAME", "file:NAME"), and it gets a row
    to_sweep  hidden: fill it with a row's number and the time, and the adapter in it is drawn at several strengths
    axes      hidden: when a contact sheet was taken, and its axes as fields of a Typed each
    pair      two adapters to compare: [when, key, key]; on the server alone
    packed    hidden: what the grid's plan is made of, in one piece
    measured  the adapter that the Measure tab is about, and the images that it is held against
    """

    keys: gr.JSON
    taken: gr.Textbox
    incoming: gr.Textbox
    to_sweep: gr.Textbox
    axes: gr.State
    packed: gr.JSON
    pair: gr.State
    form: GenerateForm = field(init=False)
    rows: AdapterRows = field(init=False)
    actions: Actions = field(init=False)
    inspector: AdapterInspector = field(init=False)
    tabs: gr.Tabs = field(init=False)
    measured: tuple[gr.Dropdown, gr.Dropdown] = field(init=False)

    @property
    def inputs(self) -> list[Any]:
        """Components whose values `recipe` takes."""
        return [self.keys, *self.form.fields, *self.rows.values]

    def rows_on(self, values: Sequence[Any]) -> list[bool]:
        """Which rows are switched on. values: of `inputs`."""
        return [bool(on) for on in values[1 + len(FIELDS) :: len(ROW_FIELDS)]]

    def recipe(self, keys: Sequence[str] | None, *values: Any) -> Any:
        """The Recipe of the values of `inputs`, adapters and all. Raises StudioError."""
        typed, workspace = dict(zip(FIELDS, values)), self.workspace
        used = adapters_of(self, keys or [], values[len(FIELDS) :])
        if typed["source"]:
            typed["source"] = generation.keep_source(workspace, typed["source"])
            typed["mask"] = generation.mask_of(workspace, typed["source"], typed["mask"])
        else:
            typed["mask"] = None
        return generation.compose(workspace, used, **typed)

    def base_name(self, values: Sequence[Any]) -> str:
        """The base that the form names. values: of `inputs`."""
        return typed_value(values, "base") or base_models.STARTER

    def base_line(self, values: Sequence[Any]) -> str:
        """The line of that base. Raises StudioError."""
        return base_models.line_of(self.workspace, self.base_name(values))


def typed_value(values: Sequence[Any], name: str) -> Any:
    """What a field of the form holds, from the values of `GenerateContext.inputs`."""
    return dict(zip(FIELDS, values[1:])).get(name)


def adapters_of(context: GenerateContext, keys: Sequence[str], values: Sequence[Any]) -> list[dict[str, Any]]:
    """Fields of the AdapterUses of all rows that are on. values: of all rows. Raises StudioError."""
    found = []
    for index, key in enumerate(keys[:POOL]):
        held = dict(zip(ROW_FIELDS, values[index * len(ROW_FIELDS) :]))
        if key and held.pop("on"):
            found.append(generation.applied_fields(context.workspace, key, **held))
    return found
