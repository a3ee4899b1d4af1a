"""The panel of all settings: a search above closed groups, with marks on what differs from the chosen preset.

Search and marks need no server. A closed group is not in the page until it is opened, so the script goes by an index.
"""

import json
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.services import runs
from studio.text import pluralize
from studio.training.setting_groups import FIRST, GROUPS, LABELS, Group, search_text
from studio.web.components.clickable import clickable_html, clicked
from studio.web.components.fields import QUIET, field_for, kept, setting
from studio.web.train import preview_lines
from studio.web.train.context import TrainContext
from studio.web.train.values import LISTS, NOT_CHOSEN, NUMBERS, PATTERNS, as_shown, standard_of

_JS = (Path(__file__).parent / "settings_panel.js").read_text("utf-8")
MARK_JS = "(standard, ...values) => { window.studioSettings?.mark(standard || {}, values); return []; }"
RESET_ALL = "*"


class SettingsPanel:
    """fields: by dotted setting. standard: hidden, the chosen preset's values as the fields show them."""

    def __init__(self, context: TrainContext):
        self.context, self.fields, self.errors = context, dict[str, Any](), dict[str, Any]()
        first = next(iter(runs.list_presets(context.workspace).values()))
        self.standard = kept(standard_of(first))
        self.search = clickable_html("settings-search", search_html(), script=_JS, padding=False)
        with gr.Accordion("All settings", open=False, elem_id="expert"):
            for group in GROUPS:
                with gr.Accordion(group.title, open=False, elem_classes="group", elem_id=f"{group.name}-settings"):
                    self._fill(group)

    def _fill(self, group: Group) -> None:
        if group.name == "previews":
            self.prompts = self.fields["preview.prompts"] = gr.Textbox(
                label=LABELS["preview.prompts"],
                info="One a line. An image of each is generated during training.",
                value=as_shown("preview.prompts", setting("preview.prompts").default),
                lines=3,
                max_lines=8,
                elem_id="preview-prompts",
            )
            self.lines = preview_lines.build(self.context)
        rest = {key: label for key, label in group.settings.items() if key not in self.fields}
        self.fields |= group_fields(rest, self.errors)
        if group.name == "data":
            self.folders = gr.HTML(elem_id="folder-table", elem_classes="tight")
        if group.name == "adapter":
            self.layers = gr.HTML(elem_id="layer-table", elem_classes="tight")
        if group.name == "loss":
            self.drawn = gr.HTML(elem_id="timestep-plot", elem_classes="tight")

    def wire(self, fields: Mapping[str, Any]) -> None:
        """fields: all of the form, in the order of LABELS, those above the panel too."""
        self.all = dict(fields)
        parts = list(self.all.values())
        gr.on(
            [self.context.demo.load, self.standard.change, *(part.change for part in parts)],
            None,
            [self.standard, *parts],
            None,
            js=MARK_JS,
            **QUIET,
        )
        self.mark_after(self.search.click(self.reset, self.standard, parts, **QUIET))

    def mark_after(self, event: Any) -> None:
        """`event` fills fields. Those in a closed group are not in the page, and tell of no change."""
        event.then(None, [self.standard, *self.all.values()], None, js=MARK_JS, **QUIET)

    def reset(self, standard, event: gr.EventData):
        """One field, or all of them, as the preset has it."""
        act, key, _ = clicked(event)
        known = {name: value for name, value in standard.items() if name in self.all}
        if act != "reset" or key not in (RESET_ALL, *known):
            return gr.skip()
        return {self.all[name]: value for name, value in known.items() if key in (RESET_ALL, name)}


def build(context: TrainContext) -> SettingsPanel:
    """The panel, inside the form's column; the form wires it when all of its own fields are there."""
    return SettingsPanel(context)


def group_fields(labels: Mapping[str, str], errors: dict[str, Any]) -> dict[str, Any]:
    """The fields of one group: two a line, then what is on or off. errors: gets what stands below a field."""
    fields = {}
    with gr.Row(elem_classes="aligned"):
        for key, label in labels.items():
            if setting(key).kind is not bool:
                choices: dict[str, Any] = {"lines": 2, "max_lines": 8} if key in LISTS and key not in NUMBERS else {}
                choices |= {"choices": [(NOT_CHOSEN[key], "")], "value": ""} if key in NOT_CHOSEN else {}
                if key == PATTERNS:
                    with gr.Column(min_width=130):
                        fields[key] = field_for(key, label, **choices)
                        errors[key] = gr.HTML(elem_id="patterns-error", elem_classes="tight")
                else:
                    fields[key] = field_for(key, label, min_width=130, **choices)
    for key, label in labels.items():
        if setting(key).kind is bool:
            fields[key] = field_for(key, label)
    return fields


def search_html() -> str:
    """The search field, with what it finds settings by: [key, element id, label, group, text] of each."""
    groups = {key: one.name for one in GROUPS for key in one.settings}
    rows = [
        [key, key.replace(".", "-"), label, groups.get(key, ""), search_text(key)]
        for key, label in LABELS.items()
        if key in groups or key in FIRST
    ]
    index, keys = (escape(json.dumps(one, ensure_ascii=False)) for one in (rows, list(LABELS)))
    example = f"Search {pluralize(len(rows), 'setting')}: snr, batch, flip"
    return (
        f'<div class="settings-search" data-index="{index}" data-keys="{keys}"><input type="search" '
        f'aria-label="Search settings" autocomplete="off" spellcheck="false" placeholder="{example}">'
        '<div class="found" role="status" hidden></div><div class="changed">As the preset has it</div></div>'
    )
