"""Preview lines as a form: prompt, negative, size, seed, guidance, steps, strength. It writes kohya's flags."""

from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import preview_lines
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.train.context import TrainContext

NEW = ("A new line", -1)
NUMBERS = {  # field of a PreviewLine: its label
    "width": "Width",
    "height": "Height",
    "seed": "Seed",
    "guidance": "Guidance",
    "steps": "Steps",
    "strength": "Strength",
}


class PreviewLines:
    """The closed form below the preview prompts, whose text is what counts."""

    def __init__(self, context: TrainContext):
        self.workspace, self.form = context.workspace, context.form
        with gr.Accordion("Write preview lines by form", open=False, elem_id="preview-lines") as self.part:
            self.line = gr.Dropdown([NEW], value=-1, label="Line", elem_id="preview-line", interactive=True)
            self.prompt = gr.Textbox(label="Prompt", lines=2, max_lines=4, elem_id="line-prompt")
            self.negative = gr.Textbox(label="Negative prompt", max_lines=1, elem_id="line-negative")
            with gr.Row(elem_classes="aligned"):
                self.numbers = {
                    name: gr.Textbox(
                        label=label, placeholder="as the run", max_lines=1, min_width=90, elem_id=f"line-{name}"
                    )
                    for name, label in NUMBERS.items()
                }
            with gr.Row():
                self.put = gr.Button("Put into the list", size="md", elem_id="put-line", min_width=120)
                self.remove = gr.Button("Remove", size="md", elem_id="remove-line", min_width=80)
                self.of_set = gr.Button("From the dataset", size="md", elem_id="lines-of-set", min_width=120)
            self.said = gr.HTML(elem_id="line-said", elem_classes="tight")

    def wire(self) -> None:
        """The form's own fields are there by now."""
        text, fields = self.form.prompts, [self.prompt, self.negative, *self.numbers.values()]
        shown = [text, self.line, self.said]
        self.part.expand(self.lines, text, self.line, **QUIET)
        text.change(self.lines, text, self.line, trigger_mode="always_last", **QUIET)
        self.line.input(self.fill, [text, self.line], fields, **QUIET)
        self.put.click(self.write, [text, self.line, *fields], shown, **QUIET)
        self.remove.click(self.drop, [text, self.line], shown, **QUIET)
        trigger = self.form.fields["data.trigger"]
        of_set = [self.form.dataset, trigger, self.form.picker.choice]
        self.of_set.click(self.from_the_set, of_set, shown, **QUIET)

    def lines(self, text):
        known = [(f"{place + 1}: {line[:60]}", place) for place, line in enumerate(listed(text))]
        return gr.update(choices=[NEW, *known], value=-1)

    def fill(self, text, place):
        """A line of the list into the fields."""
        from studio.training.preview_prompts import PreviewLine, read_preview

        lines = listed(text)
        chosen = read_preview(lines[place]) if isinstance(place, int) and 0 <= place < len(lines) else PreviewLine("")
        found = {self.prompt: chosen.prompt, self.negative: chosen.negative}
        return found | {field: shown(getattr(chosen, name), name) for name, field in self.numbers.items()}

    @show_errors
    def write(self, text, place, prompt, negative, *numbers):
        line = preview_lines.preview_line(prompt or "", negative or "", dict(zip(NUMBERS, numbers)))
        lines = listed(text)
        if isinstance(place, int) and 0 <= place < len(lines):
            lines[place] = line
        else:
            lines.append(line)
        return self.shown_as(lines)

    @show_errors
    def drop(self, text, place):
        lines = listed(text)
        if not (isinstance(place, int) and 0 <= place < len(lines)):
            raise StudioError("Choose the line to remove.")
        return self.shown_as([line for number, line in enumerate(lines) if number != place])

    @show_errors
    def from_the_set(self, dataset, trigger, base):
        lines = preview_lines.suggest_prompts(self.workspace, dataset or "", trigger or "", base)
        said = "Captions of the dataset and things that it lacks, each with the trigger word."
        return self.shown_as(lines) | {self.said: note(said)}

    def shown_as(self, lines: list[str]) -> dict[Any, Any]:
        return {self.form.prompts: "\n".join(lines), self.said: ""}


def build(context: TrainContext) -> PreviewLines:
    """The form, below the prompts; the train form wires it when all of its own fields are there."""
    return PreviewLines(context)


def listed(text: Any) -> list[str]:
    return [line.strip() for line in (text or "").splitlines() if line.strip()]


def shown(value: Any, name: str) -> str:
    """A number as its field shows it."""
    if value is None or (name, value) == ("strength", 1.0):
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)
