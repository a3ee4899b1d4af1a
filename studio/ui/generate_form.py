"""The form of the Generate tab: everything of a recipe but its adapters."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.ui.painter import painter
from studio.ui.widgets import SIDE, setting
from studio.workspace import Workspace

# Fields of a Recipe in the order of `Form.fields`. A browser remembers all but the last two.
FIELDS = ("prompt", "negative_prompt", "seed", "steps", "guidance", "width", "height", "scheduler", "clip_skip",
          "count", "denoising", "source", "mask")  # fmt: skip


@dataclass(frozen=True)
class Form:
    """`fields` in the order of FIELDS."""

    fields: tuple[Any, ...]
    tokens: gr.HTML
    chance: gr.Button
    reuse: gr.Button

    @property
    def prompt(self) -> gr.Textbox:
        return self.fields[0]

    @property
    def negative(self) -> gr.Textbox:
        return self.fields[1]

    @property
    def seed(self) -> gr.Number:
        return self.fields[2]

    @property
    def remembered(self) -> tuple[Any, ...]:
        return self.fields[:-2]


def make_form(workspace: Workspace) -> Form:
    """Build it where the caller stands."""
    from studio.generation.schedulers import NAMES

    number = {"precision": 0, "min_width": 80}
    prompt = gr.Textbox(
        label="Prompt", lines=3, max_lines=8, placeholder="red apple, on a blue background", elem_id="prompt"
    )
    tokens = gr.HTML(elem_id="prompt-tokens")
    negative = gr.Textbox(label="Negative prompt", info="What to keep away from.", max_lines=3, elem_id="negative")
    with gr.Group(), gr.Row():
        seed = gr.Number(label="Seed", value=0, elem_id="seed", **number)
        steps = gr.Number(label="Steps", value=setting("preview.steps").default, elem_id="gen-steps", **number)
        guidance = gr.Number(
            label="Guidance", value=setting("preview.guidance").default, min_width=80, elem_id="guidance"
        )
        width = gr.Number(label="Width", value=SIDE, step=8, elem_id="width", **number)
        height = gr.Number(label="Height", value=SIDE, step=8, elem_id="height", **number)
    with gr.Row(elem_classes="seeds"):
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
    fields = (prompt, negative, seed, steps, guidance, width, height, scheduler, skip, count, denoising, begin.source,
              begin.mask)  # fmt: skip
    return Form(fields, tokens, chance, reuse)


def given(form: Form, values: list[Any]) -> list[Any]:
    """Updates for `form.remembered` of what a browser remembered, where it is of the kind that a field holds."""
    return [_update(part, value) for part, value in zip(form.remembered, values)]


def _update(part: Any, value: Any) -> Any:
    kinds: tuple[type, ...] = (str,) if isinstance(part, gr.Textbox | gr.Dropdown) else (int, float)
    if isinstance(part, gr.Dropdown) and value not in [choice for _, choice in part.choices]:
        return gr.skip()
    return gr.update(value=value) if isinstance(value, kinds) and not isinstance(value, bool) else gr.skip()
