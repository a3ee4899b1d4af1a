"""The mask of the image that is open: painted over it, and what is trained of it. A part of the Dataset tab."""

from html import escape

import gradio as gr

from studio.services import datasets, masks
from studio.web.components.clickable import image_link
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.components.mask_painter import canvas, canvas_html, painted_image, painted_key
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.image_editor import split_key
from studio.web.errors import show_errors

TEXT = "Paint what is learned. With nothing painted, all of it is; a run uses masks where Use masks is on."


class MaskEditor:
    """drawn: which mask of which image the canvas shows, so that a stroke is not drawn over while the next is made."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace, self.picked = context, context.workspace, context.editor.picked
        with context.images.side, gr.Accordion("Mask", open=False, elem_id="mask-part") as self.part:
            self.is_open, self.drawn = gr.State(False), gr.State("")
            self.canvas = canvas("mask-paint")
            self.seen = gr.HTML(elem_id="mask-seen")

    def wire(self) -> None:
        shown = [self.canvas, self.seen, self.drawn]
        self.part.expand(self.open, self.picked, [self.is_open, *shown], **QUIET)
        self.part.collapse(lambda: False, None, self.is_open, **QUIET)
        for event in (self.picked.change, self.context.revision.change):
            event(self.follow, [self.is_open, self.picked, self.drawn], shown, trigger_mode="always_last", **QUIET)
        # Every stroke counts, also while the one before is still being written.
        self.canvas.click(
            self.painted, self.picked, [self.seen, self.drawn, self.context.revision], trigger_mode="multiple", **QUIET
        )

    @show_errors
    def open(self, key):
        return {self.is_open: True, **self.updates(key, "")}

    @show_errors
    def follow(self, is_open, key, drawn):
        """Another image was opened, or this one's mask was undone or made elsewhere."""
        return self.updates(key, drawn) if is_open else gr.skip()

    def updates(self, key, drawn):
        """Of what is shown; the canvas stays where it shows this mask already."""
        name, file = split_key(key)
        item = datasets.view(self.workspace, name).by_file().get(file) if file else None
        if item is None:
            return {self.canvas: "", self.seen: note("Choose an image first.") if not file else "", self.drawn: ""}
        now = f"{key} {masks.mask_stamp(item)}"
        if now == drawn:
            return {self.drawn: now}
        source, mask, size = masks.canvas_of(self.workspace, item)
        html = canvas_html(source, mask, TEXT, size, key)
        return {self.canvas: html, self.seen: self.trained(item), self.drawn: now}

    def trained(self, item) -> str:
        """The image as a run with masks sees it."""
        source = escape(image_link(masks.trained_view(self.workspace, item)))
        return note("What is learned; the dark part counts as the run's Loss outside masks says.") + (
            f'<img class="mask-seen" src="{source}" alt="What is learned of {escape(item.file)}">'
        )

    @show_errors
    def painted(self, key, event: gr.EventData):
        """A stroke, written at once. The canvas says of which image it is: the next one may be open already."""
        painted_on = painted_key(event)
        name, file = split_key(painted_on)
        masks.paint_mask(self.workspace, name, file, painted_image(event))
        revision = {self.context.revision: datasets.stamp(self.workspace, name)}
        if painted_on != key:
            return revision
        item = datasets.find_item(datasets.view(self.workspace, name), file)
        return {self.seen: self.trained(item), self.drawn: f"{key} {masks.mask_stamp(item)}"} | revision


def build(context: DatasetContext) -> MaskEditor:
    """The folded part below the editor, which is built before it."""
    part = MaskEditor(context)
    part.wire()
    return part
