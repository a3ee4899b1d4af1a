"""Images as the trainer crops and resizes them. A folded part of the form of a run."""

from collections import Counter
from html import escape

import gradio as gr

from studio.errors import StudioError
from studio.services import run_data
from studio.services.thumbnails import augmented, cropped, masked
from studio.training.setting_groups import LABELS
from studio.web.components.fields import QUIET, gallery
from studio.web.components.html import html_list, note
from studio.web.errors import show_errors
from studio.web.train.context import TrainContext
from studio.web.train.values import listed
from studio.workspace import Workspace

CROPS = 24  # images that are shown
NAMED = ("data.held_out", "data.regularisation")  # other images
KEYS = ("base", "training.seed", *(key for key in LABELS if key.startswith("data.") and key not in NAMED))
TOLD, MOST_CAPTIONS = 3, 6  # images whose captions are listed; captions of each


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
            given = listed(dict(zip(KEYS, values, strict=True)))
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
    """(HTML of the buckets and captions, (file, label) of the first images and their variants). Raises StudioError."""
    found, counts = run_data.crops_of(workspace, dataset, given)
    cells: list[tuple[str, str]] = []
    shown, dark = 0, ""
    for crop in found:
        if len(cells) >= CROPS:
            break
        box = crop.frame.box(crop.width, crop.height)
        lost = f"{100 * crop.frame.lost:.0f} % cropped" if crop.frame.lost >= 0.005 else "not cropped"
        size = f"{crop.frame.size[0]} × {crop.frame.size[1]}"
        small = None
        if crop.data.masks:
            small, dark = masked(workspace, crop.item, crop.data.outside), " What masks leave out is dark."
        cells.append((str(cropped(workspace, crop.item.path, box, crop.width, small)), f"{size} · {lost}"))
        for number, variant in enumerate(crop.variants(), 1):
            label = f"variant {number} · {variant.describe(crop.frame)}"
            cells.append((str(augmented(workspace, crop.item.path, variant)), label))
        shown += 1
    sizes = ", ".join(f"{w} × {h}: {count}" for (w, h), count in sorted(counts.items()))
    more = f" The first {shown} are shown; what is cropped is pale." if len(found) > shown else ""
    return note(f"Images by size: {sizes}.{more}{dark}") + _captions(found), cells


def _captions(found: list[run_data.Crop]) -> str:
    """The captions that are drawn from, of the first images, where they vary."""
    lists: list[str] = []
    for crop in {crop.item.path: crop for crop in found[: 4 * TOLD]}.values():
        counted = Counter(crop.captions())
        if len(counted) < 2 or len(lists) == TOLD:
            continue
        lines = [
            f"{count} of {counted.total()}: {escape(caption)}" for caption, count in counted.most_common(MOST_CAPTIONS)
        ]
        rest = len(counted) - len(lines)
        lines += [f"and {rest} more"] if rest > 0 else []
        lists.append(f"<p>{escape(crop.item.path.name)} is drawn with</p>{html_list(lines)}")
    return f'<div class="note small" id="drawn-captions">{"".join(lists)}</div>' if lists else ""
