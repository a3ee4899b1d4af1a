"""Which base model: one from the list, or, on the owner's own page, one that is typed, inspected and downloaded."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from studio.basemodels.choice import BaseChoice
from studio.errors import BaseModelError, StudioError
from studio.services import base_models
from studio.services.base_models import STARTER
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET, field_for, setting
from studio.web.components.html import note, progress_bar
from studio.web.errors import show_errors
from studio.workspace import Workspace

OPTIONS = {  # settings of BaseChoice, with their labels and what an empty one means
    "prediction_type": ("Prediction type", "as its files say"),
    "zero_terminal_snr": ("Zero terminal SNR", ""),
    "resolution": ("Resolution", ""),
    "max_sequence_length": ("Text length", ""),
    "vae": ("Another VAE", ""),
    "quantise": ("Quantization", "none"),
    "family": ("Family", "detected"),
    "variant": ("Variant of the weights", "default"),
    "revision": ("Revision on the Hub", ""),
    "offload": ("Offload block by block", ""),
}


class BaseModelPicker:
    """choice: the name of a base on the list. added: the form of another one, where one can be typed."""

    def __init__(self, context: PageContext, prefix: str):
        self.context, self.workspace = context, context.workspace
        self.choice = gr.Dropdown(
            base_models.base_choices(self.workspace),
            value=STARTER,
            label="Base model",
            elem_id=f"{prefix}-base",
            interactive=True,
        )
        self.card = gr.HTML(card_html(self.workspace, STARTER), elem_id=f"{prefix}-base-card", elem_classes="tight")
        allows = self.workspace.allows
        self.added = NewBaseModel(context, prefix, self.choice) if allows.folders and allows.models else None

    def wire(self) -> None:
        choice = self.choice
        choice.change(self.show_card, choice, self.card, trigger_mode="always_last", **QUIET)
        choice.focus(self.refresh, choice, choice, **QUIET)
        self.context.demo.load(self.refresh, choice, choice, **QUIET)
        if self.added:
            self.added.wire()

    def when_chosen(self, handler: Callable, inputs: list[Any], outputs: list[Any]) -> None:
        """Call `handler(name, *inputs)` when a person chose a base; not when a recipe or a run brought it along."""
        self.choice.input(handler, [self.choice, *inputs], outputs, **QUIET)
        if self.added:
            self.added.used.then(handler, [self.choice, *inputs], outputs, **QUIET)

    def show_card(self, name):
        return card_html(self.workspace, name)

    def refresh(self, current):
        known = base_models.base_choices(self.workspace)
        gone = current not in [name for _, name in known]
        return gr.update(choices=known, **({"value": STARTER} if gone else {}))


class NewBaseModel:
    """Folded: a base that is typed. used: the event of its being put on the list and chosen."""

    used: Any

    def __init__(self, context: PageContext, prefix: str, choice: gr.Dropdown):
        self.context, self.workspace, self.choice = context, context.workspace, choice
        self.line = gr.State("")  # the base that was inspected last
        with gr.Accordion("Another base model", open=False, elem_id=f"{prefix}-another") as self.part:
            self.place = gr.Textbox(
                label="Folder, .safetensors file, or owner/name on huggingface.co",
                max_lines=1,
                info="Stable Diffusion 1, 2, XL, 3 and 3.5, FLUX.1, Z-Image.",
                elem_id=f"{prefix}-place",
            )
            with gr.Accordion("Options", open=False, elem_classes="group", elem_id=f"{prefix}-options"):
                with gr.Row(elem_classes="aligned"):
                    self.options = [_option(prefix, key) for key in list(OPTIONS)[:-1]]
                self.options.append(_option(prefix, "offload"))
            with gr.Row():
                self.inspect_button = gr.Button("Inspect", size="md", elem_id=f"{prefix}-inspect", min_width=110)
                self.use_button = gr.Button(
                    "Use this model",
                    variant="primary",
                    size="md",
                    interactive=False,
                    elem_id=f"{prefix}-use",
                    min_width=110,
                )
            self.report = gr.HTML(elem_id=f"{prefix}-seen", elem_classes="tight")
            self._download_part(prefix)
            self.forget_button = gr.Button("Remove from list", size="sm", elem_id=f"{prefix}-forget")
        self.timer = gr.Timer(0.5, active=False)  # ticks while something is downloaded

    def _download_part(self, prefix: str) -> None:
        with gr.Column(visible=False, elem_id=f"{prefix}-fetch") as self.fetch:
            self.token = gr.Textbox(
                label="Token",
                type="password",
                max_lines=1,
                elem_id=f"{prefix}-token",
                info="Only for gated models: accept their terms on their page first. It is used for this download and "
                "not stored.",
            )
            with gr.Row():
                self.get = gr.Button("Download", size="md", elem_id=f"{prefix}-download", min_width=110)
                self.stop = gr.Button(
                    "Stop", size="md", interactive=False, elem_id=f"{prefix}-stop-download", min_width=90
                )
            self.progress = gr.HTML(elem_id=f"{prefix}-progress", elem_classes="tight")

    def wire(self) -> None:
        inspected = [self.line, self.report, self.use_button, self.fetch]
        watched = [self.report, self.use_button, self.fetch, self.get, self.stop, self.progress, self.timer]
        begun = [self.token, self.get, self.stop, self.progress, self.timer]
        gr.on(
            [self.inspect_button.click, self.place.submit],
            self.inspect,
            [self.place, *self.options],
            inspected,
            **QUIET,
        )
        self.used = self.use_button.click(self.use, self.line, [self.choice, self.part, self.use_button], **QUIET)
        self.get.click(self.begin, [self.line, self.token], begun, **QUIET)
        self.stop.click(stop_download, None, None, **QUIET)
        self.timer.tick(self.watch, self.line, watched, **QUIET)
        self.context.demo.load(self.reattach, None, [self.timer, self.fetch], **QUIET)
        self.forget_button.click(self.forget, self.choice, self.choice, **QUIET)

    def inspect(self, typed, *values):
        """Nothing is loaded or downloaded."""
        line, usable, missing = "", False, False
        try:
            line = base_models.line_from(self.workspace, typed, dict(zip(OPTIONS, values)))
            missing = base_models.can_be_fetched(line)
            usable = not missing
            if missing:
                report = note(
                    f"{BaseChoice.of(line).short} is not on this machine. It can be downloaded once and is kept here."
                )
            else:
                report = note(str(base_models.inspect_base(line)))
        except StudioError as error:
            usable, missing, report = False, False, note(str(error), bad=True)
        return {
            self.line: line,
            self.report: report,
            self.use_button: gr.update(interactive=usable),
            self.fetch: gr.update(visible=missing),
        }

    @show_errors
    def use(self, line):
        if not line:
            raise BaseModelError("Inspect a base model first.")
        name = base_models.remember(self.workspace, line)
        return {
            self.choice: gr.update(choices=base_models.base_choices(self.workspace), value=name),
            self.part: gr.update(open=False),
            self.use_button: gr.update(interactive=False),
        }

    @show_errors
    def begin(self, line, secret):
        base_models.start_download(self.workspace, line, secret or "")
        return {
            self.token: "",
            self.get: gr.update(interactive=False),
            self.stop: gr.update(interactive=True),
            self.progress: note("Starting."),
            self.timer: gr.Timer(active=True),
        }

    def watch(self, line):
        job = base_models.download()
        if job is None:
            return {self.timer: gr.Timer(active=False)}
        if job.state == "running":
            return {
                self.fetch: gr.update(visible=True),
                self.get: gr.update(interactive=False),
                self.stop: gr.update(interactive=True),
                self.progress: progress_bar(job.done, job.total) + note(f"{job.title}: {job.message}"),
            }
        updates = {
            self.get: gr.update(interactive=True),
            self.stop: gr.update(interactive=False),
            self.progress: note(job.error or job.message, bad=bool(job.error)),
            self.timer: gr.Timer(active=False),
        }
        done = bool(job.result) and job.result == base_models.name_of(self.workspace, line)
        updates[self.fetch] = gr.update(visible=not done)
        if done:  # the one that was inspected last, and no other
            updates[self.report] = note(f"{job.message}\n{base_models.inspect_base(line)}")
            updates[self.use_button] = gr.update(interactive=True)
        return updates

    def reattach(self):
        """A page that is opened again finds a download that goes on."""
        job = base_models.download()
        running = job is not None and job.state == "running"
        return {self.timer: gr.Timer(active=running), self.fetch: gr.update(visible=running)}

    @show_errors
    def forget(self, name):
        if name == STARTER:
            raise BaseModelError("The starter stays on the list: choose another base model to remove.")
        base_models.forget(self.workspace, name)
        return gr.update(choices=base_models.base_choices(self.workspace), value=STARTER)


def build(context: PageContext, prefix: str) -> BaseModelPicker:
    """prefix: of the elements' ids."""
    part = BaseModelPicker(context, prefix)
    part.wire()
    return part


def card_html(workspace: Workspace, name: str) -> str:
    """What is known of a base on the list."""
    try:
        return note(base_models.card_lines(workspace, name))
    except StudioError as error:
        return note(str(error), bad=True)


def stop_download():
    job = base_models.download()
    if job:
        job.stop()


def _option(prefix: str, key: str) -> Any:
    label, empty = OPTIONS[key]
    known = setting(key, BaseChoice)
    more = {"choices": [(empty, ""), *filter(None, known.choices)], "value": ""} if known.choices else {}
    return field_for(key, label, BaseChoice, elem_id=f"{prefix}-{key}", min_width=150, **more)
