"""The form of the Generate tab: everything of a recipe but its adapters."""

from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import base_models, runs
from studio.services.base_models import DEFAULT_SIZE
from studio.services.generation import prompt_problems
from studio.text import pluralize
from studio.web.components.base_model_picker import base_chooser
from studio.web.components.fields import NO_PROGRESS, PRIVATE, setting
from studio.web.components.html import html_list
from studio.web.components.mask_painter import painter
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

# Fields of a Recipe in the order of `Form.fields`. A browser remembers all but the last two.
FIELDS = ("base", "prompt", "negative_prompt", "seed", "steps", "guidance", "width", "height", "scheduler",
          "clip_skip", "count", "denoising", "source", "mask")  # fmt: skip
_BROUGHT = ("width", "height", "steps", "guidance")  # what a base brings along


@dataclass(frozen=True)
class Form:
    """`fields` in the order of FIELDS."""

    fields: tuple[Any, ...]
    chance: gr.Button
    reuse: gr.Button

    def field(self, name: str) -> Any:
        return self.fields[FIELDS.index(name)]

    @property
    def base(self) -> gr.Dropdown:
        return self.field("base")

    @property
    def prompt(self) -> gr.Textbox:
        return self.field("prompt")

    @property
    def seed(self) -> gr.Number:
        return self.field("seed")

    @property
    def remembered(self) -> tuple[Any, ...]:
        return self.fields[:-2]


def make_form(workspace: Workspace, demo: gr.Blocks, incoming: gr.Textbox) -> Form:
    """Build it where the caller stands. incoming: given the key of an adapter that comes from another tab."""
    from studio.generation.schedulers import NAMES

    number = {"precision": 0, "min_width": 80}
    chooser = base_chooser(workspace, demo, "gen")
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, placeholder="red apple, on a blue background", elem_id="prompt"
    )
    tokens = gr.HTML(elem_id="prompt-tokens")
    problems = gr.HTML(elem_id="prompt-problems")
    negative = gr.Textbox(label="Negative prompt", info="What to keep away from.", max_lines=3, elem_id="negative")
    with gr.Group(), gr.Row():
        seed = gr.Number(label="Seed", value=0, elem_id="seed", **number)
        steps = gr.Number(label="Steps", value=setting("preview.steps").default, elem_id="gen-steps", **number)
        guidance = gr.Number(
            label="Guidance", value=setting("preview.guidance").default, min_width=80, elem_id="guidance"
        )
        width = gr.Number(label="Width", value=DEFAULT_SIZE, step=8, elem_id="width", **number)
        height = gr.Number(label="Height", value=DEFAULT_SIZE, step=8, elem_id="height", **number)
    with gr.Row():
        chance = gr.Button("Random seed", size="sm", min_width=90, elem_id="seed-random")
        reuse = gr.Button("Reuse last seed", size="sm", min_width=90, elem_id="seed-reuse")
    with gr.Accordion("Scheduler, count, from a picture", open=False, elem_id="gen-more"):
        with gr.Row():
            scheduler = gr.Dropdown(
                list(NAMES), value=NAMES[0], label="Scheduler", min_width=150, elem_id="scheduler"
            )  # fmt: skip
            skip = gr.Number(label="Clip skip", info="2: one layer less.", value=1, elem_id="clip-skip", **number)
            count = gr.Number(label="Pictures", value=1, minimum=1, maximum=16, elem_id="count", **number)
        begin = painter(workspace)
        denoising = gr.Slider(
            0, 1, value=0.6, step=0.05, label="How much of it is drawn anew", elem_id="denoising"
        )  # fmt: skip
    fields = (chooser.choice, prompt, negative, seed, steps, guidance, width, height, scheduler, skip, count, denoising,
              begin.source, begin.mask)  # fmt: skip
    form = Form(fields, chance, reuse)
    brought = [form.field(name) for name in _BROUGHT]

    @show_errors
    def follow(base):
        """A base was chosen: the sizes, steps and guidance that one draws with it."""
        found = base_models.usual(workspace, base)
        return [found[name] for name in _BROUGHT]

    @show_errors
    def suit(base, scheduled):
        """Updates for scheduler, width, height: what goes with the base. Values stay where they can."""
        found = base_models.usual(workspace, base)
        kept = scheduled if scheduled in found["schedulers"] else found["schedulers"][0]
        step = gr.update(step=found["step"])
        return gr.update(choices=list(found["schedulers"]), value=kept), step, step

    @show_errors
    def come(key, base):
        """An adapter came from another tab: the base that its run was trained on, and what one draws with it."""
        kind, _, run = (key or "").partition(":")
        if kind != "run":
            return [gr.skip()] * (1 + len(brought))
        own = runs.run_settings(workspace, run)["base"]
        if not own:
            text = f"{run} was trained on a base model that is not on the list: add it to draw with it."
            show_warning(StudioError(text))
        if not own or own == base:
            return [gr.skip()] * (1 + len(brought))
        return gr.update(choices=base_models.base_choices(workspace), value=own), *follow(own)

    def count_tokens(text, base):
        if not (text or "").strip():
            return ""
        counter = base_models.counter(workspace, base)
        many, cut = counter(text)
        said = ""
        if cut and counter.reads_on:
            said = f": they are read in {-(-many // counter.room)} pieces"
        elif cut:
            said = f": only {counter.room} are read"
        return f'<div class="note small">{pluralize(many, "token")}{said}</div>'

    def say_problems(*typed):
        """What of the prompt is not understood or has no effect, under it."""
        text, negative_prompt, base, scale, skipped = typed
        try:
            line = base_models.line_of(workspace, base)
            found = prompt_problems(
                workspace, (text or "")[:4000], (negative_prompt or "")[:4000], line, scale, int(skipped or 1)
            )
        except StudioError as error:
            found = [str(error)]
        return html_list([escape(one) for one in found if (text or "").strip()], "bad")

    quiet = {**NO_PROGRESS, **PRIVATE}
    read = [prompt, negative, chooser.choice, guidance, skip]
    gr.on([part.change for part in read], say_problems, read, problems, trigger_mode="always_last", **quiet)
    chooser.when_chosen(follow, [], brought)
    chooser.choice.change(suit, [chooser.choice, scheduler], [scheduler, width, height], **quiet)
    incoming.change(come, [incoming, chooser.choice], [chooser.choice, *brought], **quiet)
    gr.on([prompt.change, chooser.choice.change], count_tokens, [prompt, chooser.choice], tokens,
          trigger_mode="always_last", **quiet)  # fmt: skip
    return form


def given(workspace: Workspace, form: Form, values: list[Any]) -> list[Any]:
    """Updates for `form.remembered` of what a browser remembered, where it is of the kind that a field holds."""
    known = base_models.base_choices(workspace)
    base = gr.update(choices=known, value=values[0]) if values[0] in [name for _, name in known] else gr.skip()
    return [base, *(_update(part, value) for part, value in zip(form.remembered[1:], values[1:]))]


def _update(part: Any, value: Any) -> Any:
    kinds: tuple[type, ...] = (str,) if isinstance(part, gr.Textbox | gr.Dropdown) else (int, float)
    if isinstance(part, gr.Dropdown) and value not in [choice for _, choice in part.choices]:
        return gr.skip()
    return gr.update(value=value) if isinstance(value, kinds) and not isinstance(value, bool) else gr.skip()
