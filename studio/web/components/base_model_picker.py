"""Which base model: one from the list, or, on the owner's own page, one that is typed, looked at and fetched."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.basemodels.choice import BaseChoice
from studio.errors import BaseModelError, StudioError
from studio.services import base_models
from studio.services.base_models import STARTER
from studio.web.components.fields import NO_PROGRESS, PRIVATE, field_for, setting
from studio.web.components.html import note, progress_bar
from studio.web.errors import show_errors
from studio.workspace import Workspace

_QUIET = {**NO_PROGRESS, **PRIVATE}
OPTIONS = {  # settings of BaseChoice, with their labels and what an empty one means
    "prediction_type": ("What it says", "as its files say"),
    "resolution": ("Resolution", ""),
    "vae": ("Another codec (VAE)", ""),
    "quantise": ("Fewer bits", "as it is"),
    "family": ("Family", "recognised"),
    "variant": ("Copy of the weights", "the plain one"),
    "revision": ("Revision on the hub", ""),
    "offload": ("Fetched block by block", ""),
}


@dataclass(frozen=True)
class BaseChooser:
    """choice: the name of a base on the list. used: what happens when a typed base is taken, where it can be typed."""

    choice: gr.Dropdown
    used: Any = None

    def when_chosen(self, handler: Callable, inputs: list[Any], outputs: list[Any]) -> None:
        """Call `handler(name, *inputs)` when a person chose a base; not when a recipe or a run brought it along."""
        self.choice.input(handler, [self.choice, *inputs], outputs, **_QUIET)
        if self.used:
            self.used.then(handler, [self.choice, *inputs], outputs, **_QUIET)


def base_chooser(workspace: Workspace, demo: gr.Blocks, prefix: str) -> BaseChooser:
    """Build it where the caller stands. prefix: of the elements' ids."""

    def choices(current: str | None):
        known = base_models.base_choices(workspace)
        gone = current not in [name for _, name in known]
        return gr.update(choices=known, **({"value": STARTER} if gone else {}))

    choice = gr.Dropdown(
        base_models.base_choices(workspace), value=STARTER, label="Base model", elem_id=f"{prefix}-base",
        interactive=True,
    )  # fmt: skip
    card = gr.HTML(_card(workspace, STARTER), elem_id=f"{prefix}-base-card", elem_classes="tight")
    choice.change(lambda name: _card(workspace, name), choice, card, trigger_mode="always_last", **_QUIET)
    choice.focus(choices, choice, choice, **_QUIET)
    demo.load(choices, choice, choice, **_QUIET)
    typed = workspace.allows.folders and workspace.allows.models
    return BaseChooser(choice, _another(workspace, demo, prefix, choice) if typed else None)


def _card(workspace: Workspace, name: str) -> str:
    try:
        return note(base_models.card_lines(workspace, name))
    except StudioError as error:
        return note(str(error), bad=True)


def _another(workspace: Workspace, demo: gr.Blocks, prefix: str, choice: gr.Dropdown) -> Any:
    """A base that is typed. Returns the event of its being taken into use."""
    looked = gr.State("")  # the line that was looked at last
    with gr.Accordion("Another base model", open=False, elem_id=f"{prefix}-another") as part:
        place = gr.Textbox(
            label="Folder, .safetensors file, or owner/name on huggingface.co", max_lines=1,
            info="Stable Diffusion 1, 2, XL, 3 and 3.5, FLUX.1, Z-Image.", elem_id=f"{prefix}-place",
        )  # fmt: skip
        with gr.Accordion("Options", open=False, elem_classes="group", elem_id=f"{prefix}-options"):
            with gr.Row(elem_classes="aligned"):
                options = [_option(prefix, key) for key in list(OPTIONS)[:-1]]
            options.append(_option(prefix, "offload"))
        with gr.Row():
            look = gr.Button("Look at it", size="md", elem_id=f"{prefix}-look", min_width=110)
            use = gr.Button("Use it", variant="primary", size="md", interactive=False, elem_id=f"{prefix}-use",
                            min_width=110)  # fmt: skip
        seen = gr.HTML(elem_id=f"{prefix}-seen", elem_classes="tight")
        with gr.Column(visible=False, elem_id=f"{prefix}-fetch") as fetch:
            token = gr.Textbox(
                label="Token", type="password", max_lines=1, elem_id=f"{prefix}-token",
                info="Only for models that ask for consent: accept their terms on their page first. It is used for "
                "this download and kept nowhere.",
            )  # fmt: skip
            with gr.Row():
                get = gr.Button("Download", size="md", elem_id=f"{prefix}-download", min_width=110)
                stop = gr.Button("Stop", size="md", interactive=False, elem_id=f"{prefix}-stop-download", min_width=90)
            progress = gr.HTML(elem_id=f"{prefix}-progress", elem_classes="tight")
        drop = gr.Button("Take the chosen base off the list", size="sm", elem_id=f"{prefix}-forget")
    timer = gr.Timer(0.5, active=False)

    def look_at(typed, *values):
        """Updates for looked, seen, use, fetch. Nothing is loaded or fetched."""
        line = ""
        try:
            line = base_models.line_from(workspace, typed, dict(zip(OPTIONS, values)))
            if base_models.can_be_fetched(line):
                said = note(f"{BaseChoice.of(line).short} is not on this machine. It can be fetched once, and is then "
                            "known here.")  # fmt: skip
                return line, said, gr.update(interactive=False), gr.update(visible=True)
            return line, note(str(base_models.look_at(line))), gr.update(interactive=True), gr.update(visible=False)
        except StudioError as error:
            return line, note(str(error), bad=True), gr.update(interactive=False), gr.update(visible=False)

    @show_errors
    def use_it(line):
        """Updates for choice, part, use."""
        if not line:
            raise BaseModelError("Look at a base first.")
        name = base_models.remember(workspace, line)
        known = gr.update(choices=base_models.base_choices(workspace), value=name)
        return known, gr.update(open=False), gr.update(interactive=False)

    @show_errors
    def begin(line, secret):
        """Updates for token, get, stop, progress, timer."""
        base_models.start_download(workspace, line, secret or "")
        return "", gr.update(interactive=False), gr.update(interactive=True), note("Starting."), gr.Timer(active=True)

    def halt():
        job = base_models.download()
        if job:
            job.stop()

    def watch(line):
        """Updates for seen, use, fetch, get, stop, progress, timer."""
        job = base_models.download()
        if job is None:
            return [gr.skip()] * 6 + [gr.Timer(active=False)]
        if job.state == "running":
            shown = progress_bar(job.done, job.total) + note(f"{job.title}: {job.message}")
            return (gr.skip(), gr.skip(), gr.update(visible=True), gr.update(interactive=False),
                    gr.update(interactive=True), shown, gr.skip())  # fmt: skip
        done = bool(job.result) and job.result == base_models.name_of(workspace, line)  # not another, looked at since
        seen_now = note(f"{job.message}\n{base_models.look_at(line)}") if done else gr.skip()
        return (seen_now, gr.update(interactive=True) if done else gr.skip(), gr.update(visible=not done),
                gr.update(interactive=True), gr.update(interactive=False),
                note(job.error or job.message, bad=bool(job.error)), gr.Timer(active=False))  # fmt: skip

    def still_coming():
        """A page that is opened again finds a download that goes on."""
        job = base_models.download()
        going = job is not None and job.state == "running"
        return gr.Timer(active=going), gr.update(visible=going)

    @show_errors
    def forget(name):
        if name == STARTER:
            raise BaseModelError("The starter is always there: choose another base to take it off the list.")
        base_models.forget(workspace, name)
        return gr.update(choices=base_models.base_choices(workspace), value=STARTER)

    gr.on([look.click, place.submit], look_at, [place, *options], [looked, seen, use, fetch], **_QUIET)
    used = use.click(use_it, looked, [choice, part, use], **_QUIET)
    get.click(begin, [looked, token], [token, get, stop, progress, timer], **_QUIET)
    stop.click(halt, None, None, **_QUIET)
    timer.tick(watch, looked, [seen, use, fetch, get, stop, progress, timer], **_QUIET)
    demo.load(still_coming, None, [timer, fetch], **_QUIET)
    drop.click(forget, choice, choice, **_QUIET)
    return used


def _option(prefix: str, key: str) -> Any:
    label, empty = OPTIONS[key]
    known = setting(key, BaseChoice)
    more = {"choices": [(empty, ""), *filter(None, known.choices)], "value": ""} if known.choices else {}
    return field_for(key, label, BaseChoice, elem_id=f"{prefix}-{key}", min_width=150, **more)
