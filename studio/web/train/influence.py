"""Whether an image hurts: a part of the hardest images, which trains a run on with and without one of them."""

from html import escape

import gradio as gr

from studio.services import influence, runs
from studio.services.operations import OPERATIONS
from studio.text import duration
from studio.web.components.fields import QUIET, field_for
from studio.web.components.html import first_lines, note
from studio.web.errors import show_errors
from studio.web.train.context import TrainContext
from studio.web.train.run_job import RunJob

ABOUT = (
    "Two short branches from one checkpoint, one of which does not learn from the image, say whether it helps or "
    "hurts. The run itself stays as it is."
)
PILLS = {"helps": "good", "hurts": "bad"}
SHOWN = 12


class ImageInfluence:
    """Stands in the part of the hardest images."""

    def __init__(self, context: TrainContext):
        self.workspace, self.run = context.workspace, context.run
        self.part, self.images = context.hardest
        schema = OPERATIONS["measure_influence"].model
        gr.HTML(note(ABOUT))
        with gr.Row():
            self.image = gr.Dropdown(
                label="Image",
                info="Or click one above.",
                choices=[],
                allow_custom_value=True,
                elem_id="influence-image",
            )
            self.steps = field_for("branch_steps", "Steps", schema, elem_id="influence-steps")
        self.job = RunJob("influence", "Does it hurt?", self.measured, "influence")

    def wire(self) -> None:
        self.job.follow(self.run, self.start, [self.run, self.image, self.steps])
        self.part.expand(self.fill, self.run, [self.image, *self.job.outputs], **QUIET)
        self.images.select(self.choose, self.run, self.image, **QUIET)

    @show_errors
    def fill(self, name):
        """The part was opened: its images, and what was measured of them."""
        names = influence.images_of(self.workspace, name or "")
        choice = gr.update(choices=names, value=next(iter(names), None))
        return {self.image: choice, **self.job.watch(name, object())}

    @show_errors
    def choose(self, name, event: gr.SelectData):
        shown = runs.hardest_of(self.workspace, name or "", outlying=True)  # as the gallery shows them
        names = influence.images_of(self.workspace, name or "")
        file = shown[event.index][0].file if event.index < len(shown) else ""
        return next((one for one in names if one == file or one.endswith(f"/{file}")), gr.skip())

    def start(self, name, image, steps):
        influence.measure_influence(self.workspace, name or "", image or "", steps)

    def measured(self, name):
        return report_html(influence.measured_images(self.workspace, name))


def report_html(found) -> str:
    """Influences as a sentence each, with both losses and what differs between the branches."""
    return "".join(_card(one) for one in found[:SHOWN])


def _card(one) -> str:
    pill = f'<span class="pill {PILLS.get(one.kind, "quiet-pill")}">{escape(one.kind)}</span>'
    losses = (
        f"Held-out loss with it {one.with_it:.5f}, without it {one.without_it:.5f}; ± is the standard error of the "
        f"difference. Measured in {duration(one.seconds)}."
    )
    return (
        f'<section class="finding verdict"><header><b>{escape(one.image)}</b> {pill}</header>'
        f'<p class="sentence">{escape(one.sentence)}</p>{note(losses)}{note(one.differs)}{first_lines(one.notes)}'
        "</section>"
    )


def build(context: TrainContext) -> None:
    """Inside the part of the hardest images."""
    ImageInfluence(context).wire()
