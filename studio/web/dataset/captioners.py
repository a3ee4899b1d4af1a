"""Which captioner writes, with its settings, and several of them side by side. Parts of the Dataset tab."""

from typing import Any

import gradio as gr

from studio.captioning import MODES, list_captioners
from studio.errors import StudioError
from studio.services import captioning, datasets
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import thumbnail
from studio.web.components.clickable import clickable_html, clicked, image_link
from studio.web.components.fields import QUIET, field_for
from studio.web.components.html import empty, note
from studio.web.dataset import views
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors
from studio.workspace import Workspace

NAMES = {
    "starter": "Built-in tagger",
    "blip": "BLIP",
    "blip2": "BLIP-2",
    "florence": "Florence-2",
    "chat": "Qwen-VL, LLaVA … by a prompt",
    "joycaption": "JoyCaption",
    "server": "A server: Ollama, LM Studio, vLLM …",
    "wd": "WD tagger",
}
FEW = 4  # images that captioners are compared on
NOTHING = empty(
    "Nothing compared yet", "Choose two or more captioners to see their captions for a few images. Nothing is written."
)


class CaptionerForm:
    """The captioner that is chosen, and the settings of each; `inputs` are what `chosen` reads."""

    def __init__(self, workspace: Workspace) -> None:
        listed = list_captioners()
        self.kinds = {name: listed[name] for name in captioning.usable_captioners(workspace)}
        self.fields: dict[tuple[str, str], gr.components.Component] = {}  # (captioner, setting) -> field
        self.groups: dict[str, gr.Accordion] = {}
        self.name = gr.Dropdown(
            label="Captioner",
            choices=[(NAMES.get(name, name), name) for name in self.kinds],
            value="starter",
            elem_id="captioner",
        )
        self.about = gr.HTML(note(self.kinds["starter"].about + "."), elem_id="captioner-about")
        for kind, known in self.kinds.items():
            if known.settings.model_fields:
                self._group(kind, known.settings)
        self.download = gr.Checkbox(
            label="Download its model if it is missing",
            info="From huggingface.co, once.",
            visible=False,
            elem_id="captioner-download",
        )
        self.mode = gr.Dropdown(
            label="Which images",
            choices=[(words[0].upper() + words[1:], key) for key, words in MODES.items()],
            value="skip",
            elem_id="mode",
        )

    def _group(self, kind: str, schema: Any) -> None:
        with gr.Accordion("Settings", open=False, visible=False, elem_id=f"{kind}-settings") as self.groups[kind]:
            for key in schema.model_fields:
                long: dict[str, Any] = {"lines": 3, "max_lines": 8} if key in ("prompt", "system") else {}
                self.fields[kind, key] = field_for(key, schema=schema, elem_id=f"{kind}-{key}", **long)

    def wire(self) -> None:
        self.name.change(self.show, self.name, [self.about, self.download, *self.groups.values()], **QUIET)

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.name, self.mode, self.download, *self.fields.values()]

    def show(self, chosen):
        known = self.kinds.get(chosen) if isinstance(chosen, str) else None
        if known is None:
            return gr.skip()
        groups = {group: gr.update(visible=kind == chosen) for kind, group in self.groups.items()}
        return {self.about: note(known.about + "."), self.download: gr.update(visible=bool(known.files)), **groups}

    def chosen(self, name: str, mode: str, download: bool, *values) -> dict:
        """What `captioning.caption_dataset` takes, from the values of `inputs`."""
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


def captioner_form(workspace: Workspace) -> CaptionerForm:
    """Built inside the caller's column."""
    form = CaptionerForm(workspace)
    form.wire()
    return form


class Comparison:
    """The sub-tab: captioners side by side on the first images of the page that is open."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace, self.form = context, context.workspace, context.captions.form
        with gr.Tab("Compare captioners", id="compare", elem_id="tab-compare", render_children=True):
            self.seen = gr.State(None)
            with gr.Row(equal_height=False):
                self.several = gr.Dropdown(
                    label="Captioners",
                    info="With the settings chosen for each on the left.",
                    choices=[(NAMES.get(name, name), name) for name in self.form.kinds],
                    value=[],
                    multiselect=True,
                    scale=3,
                    elem_id="compare-which",
                )
                with gr.Column(scale=1, min_width=200):
                    self.compare = gr.Button(f"Compare on {FEW} images", variant="primary", elem_id="compare")
                    self.stop = gr.Button("Stop", visible=False, elem_id="stop-compare")
            self.progress = gr.HTML(elem_id="compare-progress")
            self.table = clickable_html("compared", NOTHING)

    def wire(self) -> None:
        context = self.context
        inputs = [context.choice, context.images.shown, self.several, *self.form.inputs]
        self.compare.click(self.start, inputs, self.progress, **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        context.poller.watch(self.watch, self.seen, [self.seen, self.progress, self.table, self.stop])
        self.table.click(use_captioner, None, self.form.name, **QUIET)

    @show_errors
    def start(self, dataset, files, names, *values):
        _, _, download, *typed = values
        wanted = [(one, self.form.settings(one, typed)) for one in names or []]
        first = [file for file, _ in files[:FEW]]
        captioning.start_comparing(self.workspace, dataset, wanted, first, bool(download))
        return note("Starting.")

    def watch(self, last):
        newest = latest.get("compare")
        if newest is None:
            return gr.skip()
        job = newest.job
        state = (id(job), job.state, job.done, job.message)
        if state == last:
            return gr.skip()
        running = job.state == "running"
        line = note(job.error, bad=True) if job.error else note(job.message if running else "")
        updates = {self.seen: state, self.progress: line, self.stop: gr.update(visible=running)}
        if running or not job.result:
            return updates
        files, found = job.result
        try:
            known = datasets.view(self.workspace, newest.name).by_file()
        except StudioError as error:  # the dataset was deleted: its captions stay
            known, updates[self.progress] = {}, note(str(error), bad=True)
        links = [image_link(thumbnail(self.workspace, known[file].path)) if file in known else "" for file in files]
        return updates | {self.table: views.comparison(files, found, links)}


def build(context: DatasetContext) -> Comparison:
    """The sub-tab. Captions and Images are built before it."""
    part = Comparison(context)
    part.wire()
    return part


def halt():
    stop_job("compare")


@show_errors
def use_captioner(event: gr.EventData):
    """The captioner of the column that was clicked."""
    act, arg, _ = clicked(event)
    newest = latest.get("compare")
    if act != "use" or newest is None or not newest.job.result or not arg.isdigit():
        return gr.skip()
    found = newest.job.result[1]
    return found[int(arg)].captioner if int(arg) < len(found) else gr.skip()
