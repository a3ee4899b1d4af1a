"""Whole checkpoints: merge adapters into one, extract a LoRA from one. The inspector above shows the result."""

import gradio as gr

from studio.services import base_models, checkpoints
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.generate.context import GenerateContext

PRECISIONS = [("As the base", "keep"), "fp16", "bf16", "fp32"]


class Checkpoints:
    """Both forms; the job is watched by the inspector's timer."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace, self.inspector = context, context.workspace, context.inspector
        choices = base_models.base_choices(self.workspace)
        with gr.Accordion("Merge into a checkpoint", open=False, elem_id="merge-checkpoint-part"):
            gr.HTML(
                note(
                    "Merges the adapters on the left into a copy of the whole base model, for programs that load it "
                    "alone. A base that is one .safetensors file stays one; a folder stays a folder."
                )
            )
            with gr.Row(elem_classes="low", equal_height=True):
                self.name = gr.Textbox(
                    label="Name", placeholder="From the adapters' names", max_lines=1, elem_id="checkpoint-name"
                )
                self.precision = gr.Dropdown(
                    PRECISIONS, value="keep", label="Precision", elem_id="checkpoint-precision", min_width=140
                )
                self.merge = gr.Button("Merge", elem_id="merge-checkpoint", min_width=100, scale=0)
        with gr.Accordion("Extract a LoRA from a checkpoint", open=False, elem_id="extract-part") as self.part:
            gr.HTML(
                note("Takes what a trained checkpoint adds to its base, as a LoRA. Both stand on the list of bases.")
            )
            with gr.Row():
                self.tuned = gr.Dropdown(choices, value=None, label="Checkpoint", elem_id="extract-tuned")
                self.base = gr.Dropdown(choices, value="starter", label="Its base", elem_id="extract-base")
            with gr.Row():
                self.rank = gr.Number(32, label="Rank", precision=0, elem_id="extract-rank", min_width=100)
                self.conv_rank = gr.Number(
                    None, label="Rank of convolutions", info="Empty: the same; 0: none.", precision=0, min_width=120
                )
                self.keep = gr.Number(
                    1.0, label="Share to keep", info="Fewer directions where they hold this much.", min_width=120
                )
            with gr.Row(elem_classes="low", equal_height=True):
                self.text = gr.Checkbox(True, label="Text encoders too", min_width=140)
                self.numbers = gr.Dropdown(
                    ["fp16", "bf16", "fp32"],
                    value="fp16",
                    label="Precision",
                    elem_id="extract-precision",
                    min_width=120,
                )
                self.extract = gr.Button("Extract", elem_id="extract", min_width=100, scale=0)

    def wire(self) -> None:
        part, begun = self.inspector, {"concurrency_limit": None, **QUIET}
        options = [self.tuned, self.base, self.rank, self.conv_rank, self.keep, self.text, self.numbers]
        self.part.expand(self.choices, None, [self.tuned, self.base], **QUIET)
        for event in (
            self.merge.click(self.start_merge, [self.name, self.precision, *self.context.inputs], part.timer, **begun),
            self.extract.click(self.start_extract, options, part.timer, **begun),
        ):
            event.then(part.watch, [part.seen, part.changed], part.watched, **begun)

    def choices(self):
        """The bases as they are now."""
        choices = base_models.base_choices(self.workspace)
        return gr.update(choices=choices), gr.update(choices=choices)

    @show_errors
    def start_merge(self, name, precision, *values):
        checkpoints.merge_into_checkpoint(
            self.workspace, [], name=name or "", precision=precision, recipe=self.context.recipe(*values)
        )
        return gr.Timer(active=True)

    @show_errors
    def start_extract(self, tuned, base, rank, conv_rank, keep, text, precision):
        checkpoints.extract_lora(self.workspace, tuned or "", base, rank, conv_rank, keep, bool(text), precision)
        return gr.Timer(active=True)


def build(context: GenerateContext) -> Checkpoints | None:
    """Both forms, where the caller stands; None where no other base may be used. The inspector is built before them."""
    if not context.workspace.allows.models:
        return None
    part = Checkpoints(context)
    part.wire()
    return part
