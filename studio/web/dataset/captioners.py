"""Which captioner writes, with its settings, and several of them side by side. A part of the Dataset tab."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.captioning import MODES, list_captioners
from studio.errors import StudioError
from studio.services import captioning, datasets
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import thumbnail
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE, field_for
from studio.web.components.html import empty, note
from studio.web.components.polling import Beat
from studio.web.errors import show_errors
from studio.workspace import Workspace

NAMES = {
    "starter": "Built-in tagger",
    "blip": "BLIP",
    "blip2": "BLIP-2",
    "florence": "Florence-2",
    "chat": "Qwen-VL, LLaVA … by a prompt",
    "joycaption": "JoyCaption",
    "wd": "WD tagger",
}
FEW = 4  # pictures that captioners are compared on
NOTHING = empty(
    "Nothing compared yet", "Choose two or more captioners; they caption a few pictures, and nothing is kept."
)


@dataclass(frozen=True)
class Captioners:
    """The chosen captioner; `inputs` are what `chosen` reads."""

    name: gr.Dropdown
    mode: gr.Dropdown
    download: gr.Checkbox
    fields: dict[tuple[str, str], gr.components.Component]  # (captioner, setting) -> field

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.name, self.mode, self.download, *self.fields.values()]

    def chosen(self, name: str, mode: str, download: bool, *values) -> dict:
        """What `captioning.caption_dataset` takes of it."""
        return {
            "captioner": name,
            "settings": self.settings(name, values),
            "mode": mode,
            "download": bool(download),
        }

    def settings(self, name: str, values) -> dict:
        """What was typed for one captioner; an empty number falls back to its default."""
        typed = {key: value for (owner, key), value in zip(self.fields, values) if owner == name}
        return {key: value for key, value in typed.items() if value is not None}


def captioner_form() -> Captioners:
    """Built inside the caller's column."""
    kinds = list_captioners()
    choices = [(NAMES.get(name, name), name) for name in kinds]
    name = gr.Dropdown(label="Captioner", choices=choices, value="starter", elem_id="captioner")
    about = gr.HTML(note(kinds["starter"].about + "."), elem_id="captioner-about")
    fields: dict[tuple[str, str], gr.components.Component] = {}
    groups = {}
    for kind, known in kinds.items():
        if not known.settings.model_fields:
            continue
        with gr.Accordion("Its settings", open=False, visible=False, elem_id=f"{kind}-settings") as groups[kind]:
            for key in known.settings.model_fields:
                long: dict[str, Any] = {"lines": 3, "max_lines": 8} if key in ("prompt", "system") else {}
                fields[kind, key] = field_for(key, schema=known.settings, elem_id=f"{kind}-{key}", **long)
    download = gr.Checkbox(
        label="Fetch its model if it is missing", info="From huggingface.co, once.", visible=False, elem_id="download"
    )
    mode = gr.Dropdown(
        label="Which pictures",
        choices=[(words[0].upper() + words[1:], key) for key, words in MODES.items()],
        value="skip",
        elem_id="mode",
    )

    def show(chosen):
        known = kinds.get(chosen)
        if known is None:
            return [gr.skip()] * (2 + len(groups))
        updates = [gr.update(visible=kind == chosen) for kind in groups]
        return [note(known.about + "."), gr.update(visible=bool(known.files)), *updates]

    name.change(show, name, [about, download, *groups.values()], **NO_PROGRESS, **PRIVATE)
    return Captioners(name, mode, download, fields)


def comparison(workspace: Workspace, choice: gr.Dropdown, shown: gr.State, form: Captioners, timer: Beat) -> None:
    """The sub-tab: captioners side by side on the first pictures of the page that is open."""
    seen = gr.State(None)
    kinds = list_captioners()
    with gr.Row(equal_height=False):
        several = gr.Dropdown(
            label="Captioners",
            info="With the settings chosen for each on the left.",
            choices=[(NAMES.get(name, name), name) for name in kinds],
            value=[],
            multiselect=True,
            scale=3,
            elem_id="compare-which",
        )
        with gr.Column(scale=1, min_width=200):
            go = gr.Button(f"Compare on {FEW} pictures", variant="primary", elem_id="compare")
            stop = gr.Button("Stop", visible=False, elem_id="stop-compare")
    told = gr.HTML(elem_id="compare-progress")
    table = clickable.board("compared", NOTHING)

    @show_errors
    def start(dataset, files, names, *values):
        name, mode, download, *typed = values
        wanted = [(one, form.settings(one, typed)) for one in names or []]
        first = [file for file, _ in files[:FEW]]
        captioning.start_comparing(workspace, dataset, wanted, first, bool(download))
        return note("Starting.")

    def watch(last):
        newest = latest.get("compare")
        if newest is None:
            return [gr.skip()] * 4
        job = newest.job
        state = (id(job), job.state, job.done, job.message)
        if state == last:
            return [gr.skip()] * 4
        going = job.state == "running"
        line = note(job.error, bad=True) if job.error else note(job.message if going else "")
        if going or not job.result:
            return state, line, gr.skip(), gr.update(visible=going)
        files, found = job.result
        try:
            known = datasets.view(workspace, newest.name).by_file()
        except StudioError as error:  # the set went away: what was said of it stays
            known, line = {}, note(str(error), bad=True)
        sources = [
            clickable.picture_link(thumbnail(workspace, known[file].path)) if file in known else "" for file in files
        ]
        return state, line, clickable.compared(files, found, sources), gr.update(visible=False)

    @show_errors
    def take(event: gr.EventData):
        act, arg, _ = clickable.clicked(event)
        newest = latest.get("compare")
        if act != "use" or newest is None or not newest.job.result or not arg.isdigit():
            return gr.skip()
        found = newest.job.result[1]
        return found[int(arg)].captioner if int(arg) < len(found) else gr.skip()

    def halt():
        stop_job("compare")

    go.click(start, [choice, shown, several, *form.inputs], told, **NO_PROGRESS, **PRIVATE)
    stop.click(halt, None, None, **NO_PROGRESS, **PRIVATE)
    timer.tick(watch, seen, [seen, told, table, stop])
    table.click(take, None, form.name, **NO_PROGRESS, **PRIVATE)
