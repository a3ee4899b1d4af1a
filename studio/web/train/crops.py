"""Images as the trainer crops and resizes them. A folded part of the form of a run."""

import gradio as gr

from studio.errors import StudioError
from studio.services import runs
from studio.services.thumbnails import cropped, masked
from studio.web.components.fields import QUIET, gallery
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.train.context import TrainContext
from studio.workspace import Workspace

CROPS = 24  # images that are shown
# Settings that decide.
KEYS = ("base", *(f"data.{key}" for key in ("resolution", "buckets", "upscale", "masks", "outside")))


class Crops:
    """Made when the part is opened or the button is pressed."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace = context, context.workspace
        with gr.Accordion("Cropped images", open=False, elem_id="crops") as self.part:
            self.buckets = gr.HTML(elem_id="buckets")
            self.grid = gallery("cropped")
            self.again = gr.Button("Check again", size="sm", elem_id="crop-again")
        self.open = gr.State(False)

    def wire(self) -> None:
        form = self.context.form
        inputs = [form.dataset, *(form.fields[key] for key in KEYS)]
        shown = [self.buckets, self.grid]
        for event in (self.part.expand, self.again.click):
            event(self.show, inputs, shown, **QUIET)
        self.part.expand(lambda: True, None, self.open, **QUIET)
        self.part.collapse(lambda: False, None, self.open, **QUIET)
        form.dataset.change(self.follow, [self.open, *inputs], shown, trigger_mode="always_last", **QUIET)

    def follow(self, is_open, *given):
        """Another dataset was chosen."""
        return self.show(*given) if is_open else gr.skip()

    @show_errors
    def show(self, dataset, *values):
        line, cells = note("Choose a dataset first."), list[tuple[str, str]]()
        if dataset:
            given = {key: value for key, value in zip(KEYS, values, strict=True) if value is not None}
            try:
                line, cells = crops(self.workspace, dataset, given)
            except StudioError as error:
                line = note(str(error), bad=True)
        return {self.buckets: line, self.grid: gr.update(value=cells, visible=bool(cells))}


def build(context: TrainContext) -> Crops:
    """The folded part. The form's fields are built before it."""
    part = Crops(context)
    part.wire()
    return part


def crops(workspace: Workspace, dataset: str, given: dict) -> tuple[str, list[tuple[str, str]]]:
    """(HTML of the buckets, (file, label) of the first images). Raises StudioError."""
    found, counts = runs.crops_of(workspace, dataset, given)
    cells, dark = [], ""
    for crop in found[:CROPS]:
        box = crop.frame.box(crop.width, crop.height)
        lost = f"{100 * crop.frame.lost:.0f} % cropped" if crop.frame.lost >= 0.005 else "not cropped"
        size = f"{crop.frame.size[0]} × {crop.frame.size[1]}"
        small = None
        if crop.outside is not None:
            small, dark = masked(workspace, crop.item, crop.outside), " What masks leave out is dark."
        cells.append((str(cropped(workspace, crop.item.path, box, crop.width, small)), f"{size} · {lost}"))
    sizes = ", ".join(f"{w} × {h}: {count}" for (w, h), count in sorted(counts.items()))
    more = f" The first {CROPS} are shown; what is cropped is pale." if len(found) > CROPS else ""
    return note(f"Images by size: {sizes}.{more}{dark}"), cells
