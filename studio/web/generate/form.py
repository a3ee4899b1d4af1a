"""The form of the Generate tab: everything of a recipe but its adapters."""

from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import base_models, runs
from studio.services.base_models import DEFAULT_SIZE
from studio.services.generation import prompt_problems
from studio.text import pluralize
from studio.web.components import base_model_picker, mask_painter
from studio.web.components.fields import QUIET, setting
from studio.web.components.html import html_list
from studio.web.errors import show_errors, show_warning
from studio.web.generate import vocabulary
from studio.web.generate.context import FIELDS, GenerateContext

BROUGHT = ("width", "height", "steps", "guidance", "guidance_rescale")  # the base's own defaults
NUMBER: dict[str, Any] = {"precision": 0, "min_width": 70}


class GenerateForm:
    """`fields` in the order of FIELDS."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        self.picker = base_model_picker.build(context, "gen")
        self.base = self.picker.choice
        self.prompt = gr.Textbox(
            label="Prompt",
            info="Ctrl+Enter generates.",
            lines=3,
            max_lines=8,
            placeholder="red apple, on a blue background",
            elem_id="prompt",
        )
        self.tokens = gr.HTML(elem_id="prompt-tokens")
        self.problems = gr.HTML(elem_id="prompt-problems")
        self.words = vocabulary.build(context)
        negative = gr.Textbox(label="Negative prompt", info="What to avoid.", max_lines=3, elem_id="negative")
        numbers = self._numbers()
        more = self._more()
        self.fields: tuple[Any, ...] = (self.base, self.prompt, negative, *numbers, *more)

    def _numbers(self) -> tuple[Any, ...]:
        """Seed, steps, guidance, width and height."""
        with gr.Group(), gr.Row():
            self.seed = gr.Number(label="Seed", value=0, elem_id="seed", **NUMBER | {"min_width": 120, "scale": 2})
            steps = gr.Number(label="Steps", value=setting("preview.steps").default, elem_id="gen-steps", **NUMBER)
            guidance = gr.Number(
                label="Guidance", value=setting("preview.guidance").default, min_width=70, elem_id="guidance"
            )
            self.width = gr.Number(label="Width", value=DEFAULT_SIZE, step=8, elem_id="width", **NUMBER)
            self.height = gr.Number(label="Height", value=DEFAULT_SIZE, step=8, elem_id="height", **NUMBER)
        self.keep_seed = gr.Checkbox(
            label="Keep this seed",
            info="Off: each click on Generate takes a new one.",
            value=False,
            elem_id="keep-seed",
        )
        return self.seed, steps, guidance, self.width, self.height

    def _more(self) -> tuple[Any, ...]:
        """Scheduler, clip skip, count, denoising strength, CFG rescale, source and mask."""
        from studio.generation.schedulers import NAMES

        with gr.Accordion("Scheduler, count, image to image", open=False, elem_id="gen-more") as self.more:
            with gr.Row():
                self.scheduler = gr.Dropdown(
                    list(NAMES), value=NAMES[0], label="Scheduler", min_width=150, elem_id="scheduler"
                )
                skip = gr.Number(label="Clip skip", info="2: one layer less.", value=1, elem_id="clip-skip", **NUMBER)
                count = gr.Number(label="Images", value=1, minimum=1, maximum=16, elem_id="count", **NUMBER)
            painter = mask_painter.build(self.context)
            denoising = gr.Slider(0, 1, value=0.6, step=0.05, label="Denoising strength", elem_id="denoising")
            rescale = gr.Slider(
                0,
                1,
                value=0,
                step=0.05,
                label="CFG rescale",
                info="0.7 for bases of zero terminal SNR.",
                elem_id="guidance-rescale",
            )
        return self.scheduler, skip, count, denoising, rescale, painter.source, painter.mask

    def field(self, name: str) -> Any:
        return self.fields[FIELDS.index(name)]

    @property
    def remembered(self) -> tuple[Any, ...]:
        """What a browser keeps: all but the source and its mask."""
        return self.fields[:-2]

    def wire(self) -> None:
        base, incoming = self.base, self.context.incoming
        brought = [self.field(name) for name in BROUGHT]
        self.picker.when_chosen(self.follow_base, [], brought)
        base.change(self.suit, [base, self.scheduler], [self.scheduler, self.width, self.height], **QUIET)
        incoming.change(self.follow_run, [incoming, base], [base, *brought], **QUIET)
        gr.on(
            [self.prompt.change, base.change],
            self.count_tokens,
            [self.prompt, base],
            self.tokens,
            trigger_mode="always_last",
            **QUIET,
        )
        read = [self.prompt, *(self.field(name) for name in ("negative_prompt", "base", "guidance", "clip_skip"))]
        gr.on(
            [part.change for part in read], self.check_prompt, read, self.problems, trigger_mode="always_last", **QUIET
        )
        self.seed.input(None, None, self.keep_seed, js="() => true", **QUIET)  # who types a seed wants that seed
        self.words.wire(self.prompt, base)

    @show_errors
    def follow_base(self, base):
        """A base was chosen: its own size, steps and guidance."""
        found = base_models.usual(self.workspace, base)
        return {self.field(name): found[name] for name in BROUGHT}

    @show_errors
    def suit(self, base, scheduler):
        """What goes with the base. Values stay where they can."""
        found = base_models.usual(self.workspace, base)
        kept = scheduler if scheduler in found["schedulers"] else found["schedulers"][0]
        return {
            self.scheduler: gr.update(choices=list(found["schedulers"]), value=kept),
            **dict.fromkeys((self.width, self.height), gr.update(step=found["step"])),
        }

    @property
    def of_base(self) -> list[Any]:
        """What `with_base` answers for."""
        return [self.base, *(self.field(name) for name in BROUGHT)]

    def with_base(self, name: str) -> dict[Any, Any]:
        """Updates that choose a base, with its own size, steps and guidance. Raises StudioError."""
        found = base_models.usual(self.workspace, name)
        chosen = gr.update(choices=base_models.base_choices(self.workspace), value=name)
        return {self.base: chosen, **{self.field(part): found[part] for part in BROUGHT}}

    @show_errors
    def follow_run(self, key, base):
        """An adapter came from another tab: the base that its run was trained on, with its size, steps, guidance."""
        kind, _, run = (key or "").partition(":")
        if kind != "run":
            return gr.skip()
        own = runs.run_settings(self.workspace, run)["base"]
        if not own:
            text = f"{run} was trained on a base model that is not on the list: add it to generate with it."
            show_warning(StudioError(text))
        if not own or own == base:
            return gr.skip()
        return self.with_base(own)

    def count_tokens(self, text, base):
        if not (text or "").strip():
            return ""
        counter = base_models.counter(self.workspace, base)
        many, cut = counter(text)
        rest = ""
        if counter.chunks(many) > 1:
            rest = f": encoded in {counter.chunks(many)} chunks"
        elif cut:
            rest = f": only {counter.room} are encoded"
        return f'<div class="note small">{pluralize(many, "token")}{rest}</div>'

    def check_prompt(self, text, negative, base, guidance, skip):
        """What of the prompt is not understood or has no effect, under it."""
        text, negative = (text or "")[:4000], (negative or "")[:4000]
        try:
            line = base_models.line_of(self.workspace, base)
            found = prompt_problems(self.workspace, text, negative, line, guidance, int(skip or 1))
        except StudioError as error:
            found = [str(error)]
        return html_list([escape(one) for one in found if text.strip()], "bad")

    def recalled(self, values: list[Any]) -> dict[Any, Any]:
        """Updates for `remembered` of what a browser kept, where it is of the kind that a field holds."""
        found = {}
        for part, value in zip(self.remembered, values):
            if part is self.base:
                known = base_models.base_choices(self.workspace)
                if value in [name for _, name in known]:
                    found[part] = gr.update(choices=known, value=value)
            elif fits(part, value):
                found[part] = gr.update(value=value)
        return found


def build(context: GenerateContext) -> GenerateForm:
    """The form, inside the caller's column."""
    part = GenerateForm(context)
    context.form = part
    part.wire()
    return part


def fits(part: Any, value: Any) -> bool:
    """Whether a field can hold a value that came from a browser."""
    kinds: tuple[type, ...] = (str,) if isinstance(part, gr.Textbox | gr.Dropdown) else (int, float)
    if isinstance(part, gr.Dropdown) and value not in [choice for _, choice in part.choices]:
        return False
    return isinstance(value, kinds) and not isinstance(value, bool)
