"""A picture to begin from, with a brush that says where to draw. gr.ImageEditor fails while it stands folded away."""

import base64
import binascii
import io
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import generation
from studio.web.components.clickable import picture_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.errors import show_errors
from studio.workspace import Workspace

SIDE = 768  # pixels of the painted mask at the most, as painter.js has it
_LONGEST = 3_000_000  # characters of one

_JS = (Path(__file__).parent / "painter.js").read_text("utf-8")


@dataclass(frozen=True)
class Painter:
    """`source` holds the picture's file, `mask` the name of what was painted on it."""

    source: gr.Image
    mask: gr.Textbox


def painter(workspace: Workspace) -> Painter:
    """Build it where the caller stands."""
    source = gr.Image(
        label="Begin from this picture", type="filepath", format="png", height=170, elem_id="source",
        sources=["upload", "clipboard"],
    )  # fmt: skip
    mask = gr.Textbox(visible=False)
    canvas = gr.HTML("", elem_id="paint", html_template="${value}", js_on_load=_JS)

    @show_errors
    def show(path, name):
        if not path:
            return ""
        kept = generation.keep_source(workspace, path)
        hole = generation.mask_of(workspace, kept, name)
        return _html(kept, hole)

    @show_errors
    def painted(path, event: gr.EventData):
        if not path:
            return gr.skip()
        return generation.keep_mask(workspace, generation.keep_source(workspace, path), _png(event))

    source.change(show, [source, mask], canvas, **NO_PROGRESS, **PRIVATE)
    canvas.click(painted, source, mask, **NO_PROGRESS, **PRIVATE)
    return Painter(source, mask)


def _html(source: Path, hole: Path | None) -> str:
    mask = f' data-mask="{escape(picture_link(hole))}"' if hole else ""
    return (
        '<div class="note small">Paint where to draw anew; nothing painted: all of it.</div>'
        f'<div class="paint"><img src="{escape(picture_link(source))}" alt="">'
        f'<canvas aria-label="Where to draw"{mask}></canvas></div>'
        '<div class="paint-tools"><label>Brush <input type="range" min="2" max="40" value="12" '
        'aria-label="Width of the brush"></label><label><input type="checkbox"> Eraser</label>'
        '<button type="button" data-clear>Clear</button></div>'
    )


def _png(event: gr.EventData) -> Any:
    """What was painted, as PIL RGBA. Raises GenerationError when it is no such picture."""
    from PIL import Image

    data = event._data if isinstance(event._data, dict) else {}
    text = str(data.get("arg", ""))[:_LONGEST]
    try:
        image = Image.open(io.BytesIO(base64.b64decode(text.partition("base64,")[2], validate=True)), formats=["PNG"])
        if max(image.size) > SIDE:
            raise ValueError(image.size)
        return image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, binascii.Error) as error:
        raise GenerationError("What was painted did not arrive: paint it again.") from error
