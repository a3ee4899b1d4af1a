"""A brush over an image: for the inpainting mask of image to image, and for the masks of a dataset.

gr.ImageEditor fails inside a closed accordion.
"""

import base64
import binascii
import io
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import generation
from studio.web.components.clickable import image_link
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.errors import show_errors

MAX_SIZE = 768  # pixels of the painted mask at the most, as painter.js has it
_MAX_TEXT = 3_000_000  # characters of one mask

_JS = (Path(__file__).parent / "painter.js").read_text("utf-8")


class MaskPainter:
    """`source` holds the image's file, `mask` the name of what was painted on it."""

    def __init__(self, context: PageContext):
        self.workspace = context.workspace
        self.source = gr.Image(
            label="Image to image",
            type="filepath",
            format="png",
            height=170,
            elem_id="source",
            sources=["upload", "clipboard"],
        )
        self.mask = gr.Textbox(visible=False)
        self.canvas = canvas("paint")

    def wire(self) -> None:
        self.source.change(self.show, [self.source, self.mask], self.canvas, **QUIET)
        self.canvas.click(self.painted, self.source, self.mask, **QUIET)

    @show_errors
    def show(self, path, name):
        if not path:
            return ""
        kept = generation.keep_source(self.workspace, path)
        text = "Paint the part to change. With nothing painted, all of it changes."
        return canvas_html(kept, generation.mask_of(self.workspace, kept, name), text)

    @show_errors
    def painted(self, path, event: gr.EventData):
        if not path:
            return gr.skip()
        return generation.keep_mask(self.workspace, generation.keep_source(self.workspace, path), painted_image(event))


def build(context: PageContext) -> MaskPainter:
    part = MaskPainter(context)
    part.wire()
    return part


def canvas(name: str) -> gr.HTML:
    """What `canvas_html` is shown in, with this element id; `component.click` gets what was painted."""
    return gr.HTML("", elem_id=name, elem_classes="painter", html_template="${value}", js_on_load=_JS)


def canvas_html(source: Path, mask: Path | None, text: str, size: tuple[int, int] | None = None, key: str = "") -> str:
    """An image to paint on, with its brush.

    size  of the canvas in pixels, where the mask was made for one; else as large as the image, at most MAX_SIZE
    key   sent along with what was painted
    """
    data = f' data-mask="{escape(image_link(mask))}"' if mask else ""
    data += f' data-width="{size[0]}" data-height="{size[1]}"' if size else ""
    return (
        f'<div class="note small">{escape(text)}</div>'
        f'<div class="paint"><img src="{escape(image_link(source))}" alt="">'
        f'<canvas aria-label="Mask" data-key="{escape(key)}"{data}></canvas></div>'
        '<div class="paint-tools"><label>Brush <input type="range" min="2" max="40" value="12" '
        'aria-label="Width of the brush"></label><label><input type="checkbox"> Eraser</label>'
        '<button type="button" data-clear>Clear</button></div>'
    )


def painted_key(event: gr.EventData) -> str:
    """The `key` of the canvas that was painted on."""
    data = event._data if isinstance(event._data, dict) else {}
    return str(data.get("key", ""))[:4000]


def painted_image(event: gr.EventData) -> Any:
    """What was painted, as a PIL RGBA image. Raises GenerationError when it is none."""
    from PIL import Image

    data = event._data if isinstance(event._data, dict) else {}
    text = str(data.get("arg", ""))[:_MAX_TEXT]
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2], validate=True)), formats=["PNG"])
        if max(image.size) > MAX_SIZE:
            raise ValueError(image.size)
        return image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, binascii.Error) as error:
        raise GenerationError("The painted mask did not arrive: paint it again.") from error
