"""Where images stand on the Generate tab: with and without adapters, beside each other or one over the other.

Everything has its final size from the beginning: previews and the images that follow them stand in the same frames.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from studio.services.vocabulary import display_scale
from studio.web.components.clickable import image_link

BESIDE, OVER, OFF = "Side by side", "Slider", "Off"
WIDTHS = {3: 512, 2: 640, 1: 1024}  # most pixels of a frame on the screen, by how much its image is enlarged
SMALL = 64  # pixels; previews up to this are sent without loss
_CORNERS = (
    '<svg viewBox="0 0 12 12" width="12" height="12" aria-hidden="true">'
    '<path d="M1 4V1h3M8 1h3v3M11 8v3H8M4 11H1V8" fill="none" stroke="currentColor" stroke-width="1.5"/></svg>'
)
STAGE_JS = (Path(__file__).parent / "stage.js").read_text("utf-8")


@dataclass(frozen=True)
class Shown:
    """What stands on the stage. without: the image without adapters, "" for none; paths of the others, in order.

    width, height: of an image, in pixels; count: how many there will be beside `without`
    """

    width: int
    height: int
    paths: tuple[str, ...] = ()
    without: str = ""
    compares: bool = False
    count: int = 1

    def as_state(self) -> dict[str, Any]:
        return asdict(self)


def shown_from(state: Any) -> Shown | None:
    """What `as_state` made; None for nothing."""
    return Shown(**{**state, "paths": tuple(state["paths"])}) if isinstance(state, dict) else None


@dataclass(frozen=True)
class _Frame:
    """One image. kind: "" when it is drawn, "draft" while it is a preview or an older image, "blank" for none yet."""

    label: str
    name: str
    source: str = ""
    kind: str = ""


def stage_html(shown: Shown, how: str, preview: Any = None, older: Shown | None = None, drawing: bool = False) -> str:
    """The frames. preview: PIL.Image of the one that is drawn now; older: what stood here before it, until it comes."""
    frames = _frames(shown, preview, older if _alike(shown, older) else None, drawing)
    scale = display_scale(max(shown.width, shown.height))
    style = f"--width: {shown.width}; --height: {shown.height}; --most: {WIDTHS[scale]}px"
    if shown.compares and how == OVER and shown.count == 1:
        inner, kind = _slider(*frames), "one"
    else:
        inner = "".join(map(_figure, frames))
        kind = "many" if len(frames) > 2 else "two" if len(frames) == 2 else "one"
    return f'<div class="stage {kind}{" unsmoothed" if scale > 1 else ""}" style="{style}">{inner}</div>'


def _alike(shown: Shown, older: Shown | None) -> bool:
    """Whether an older image may stand in for a new one: it is as large, and there are as many."""
    return older is not None and replace(older, paths=(), without="") == replace(shown, paths=(), without="")


def _frames(shown: Shown, preview: Any, older: Shown | None, drawing: bool) -> list[_Frame]:
    now = preview_link(preview) if preview is not None else ""
    frames = []
    if shown.compares:
        now_here = "" if shown.without else now
        frames.append(_frame("Without adapters", "without", shown.without, now_here, older.without if older else ""))
        now = now if shown.without else ""
    for number in range(shown.count if drawing else len(shown.paths)):
        label = "With adapters" if shown.compares else "Image"
        label += f" {number + 1}" if shown.count > 1 else ""
        name = "image" if number == 0 else f"image-{number + 1}"
        path = shown.paths[number] if number < len(shown.paths) else ""
        before = older.paths[number] if older and number < len(older.paths) else ""
        frames.append(_frame(label, name, path, now if number == len(shown.paths) else "", before))
    return frames


def _frame(label: str, name: str, path: str, now: str, before: str) -> _Frame:
    if path:
        return _Frame(label, name, image_link(Path(path)))
    if now or before:
        return _Frame(label, name, now or image_link(Path(before)), "draft" if now else "draft older")
    return _Frame(label, name, "", "blank")


def preview_link(image: Any) -> str:
    """An image as a data: address, small enough to be sent several times a second."""
    stream, small = io.BytesIO(), max(image.size) <= SMALL
    image.convert("RGB").save(stream, "PNG" if small else "JPEG", **({} if small else {"quality": 80}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _image(frame: _Frame, more: str = "") -> str:
    if not frame.source:
        return f'<div class="no-image {more}"></div>'
    alt = f"{frame.label}{', being drawn' if frame.kind else ''}"
    kinds = f"{frame.kind} {more}".strip()
    return f'<img class="{kinds}" src="{escape(frame.source)}" alt="{alt}">'


def _tools(frame: _Frame) -> str:
    """Download and full screen, for an image that is drawn."""
    if frame.kind:
        return ""
    name = escape(Path(frame.source).name)
    return (
        f'<a class="tool" href="{escape(frame.source)}" download="{name}" '
        f'aria-label="Download: {frame.label}" title="Download">↓</a>{_full_screen(frame.label)}'
    )


def _full_screen(label: str) -> str:
    title = f'aria-label="Full screen: {label}" title="Full screen"'
    return f'<button type="button" class="tool" data-full {title}>{_CORNERS}</button>'


def _figure(frame: _Frame) -> str:
    return (
        f'<figure id="{frame.name}"><figcaption><span>{frame.label}</span>{_tools(frame)}</figcaption>'
        f'<div class="frame">{_image(frame)}</div></figure>'
    )


def _slider(without: _Frame, drawn: _Frame) -> str:
    """Both in one frame. The slider lies over all of it, so that it can be dragged anywhere, and by the arrow keys."""
    label = "How much is without adapters, from the left, in percent"
    tools = _tools(drawn) if not (without.kind or drawn.kind) else ""
    return (
        f'<figure id="both" class="before-after"><figcaption><span>Without adapters</span>{tools}'
        f'<span class="end">With adapters</span></figcaption><div class="frame" style="--at: 50%">{_image(drawn)}'
        f'{_image(without, "before")}<input type="range" min="0" max="100" value="50" step="1" aria-label="{label}">'
        '<i class="divide" aria-hidden="true"></i></div></figure>'
    )


def older_of(state: Any) -> Shown | None:
    """What stands on the stage, when all of it is still there."""
    found = shown_from(state)
    return found if found and all(Path(path).is_file() for path in _paths(found)) else None


def _paths(shown: Shown) -> Sequence[str]:
    return [*shown.paths, *filter(None, [shown.without])]
