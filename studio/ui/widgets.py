"""Shared pieces of the page: one-line errors, notes, progress, and form fields that read RunConfig."""

import functools
import inspect
import time
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from studio.errors import in_words
from studio.jobs import Job
from studio.workspace import Workspace

SIDE = 128  # pixels: the starter model's size
# Whatever shows progress is looked up in the whole page at each message of any event, also when it is hidden.
QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
HIDDEN = {"api_visibility": "private"}  # the page's own events; programs use the named endpoints of api.py


def plainly(handler: Callable) -> Callable:
    """For the page: show an error that `in_words` has a sentence for as one line and leave every field as it was.

    Other errors are bugs and keep their traceback. (Raising would cover the outputs with the word "Error".)
    """

    @functools.wraps(handler)
    def wrapped(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            if in_words(error) is None:
                raise
            tell(error)
            return gr.skip()

    @functools.wraps(handler)
    def streamed(*args, **kwargs):
        try:
            yield from handler(*args, **kwargs)
        except Exception as error:
            if in_words(error) is None:
                raise
            tell(error)
            yield gr.skip()

    return streamed if inspect.isgeneratorfunction(handler) else wrapped


def encoder_fields(workspace: Workspace, prefix: str, title: str = "Image encoder") -> tuple[gr.Textbox, gr.Checkbox]:
    """Folded: another image encoder, and whether it may be fetched. prefix: of the elements' ids."""
    with gr.Accordion(title, open=False, visible=workspace.allows.models, elem_id=f"{prefix}-encoder-part"):
        encoder = gr.Textbox(
            label="A CLIP", info="Empty: the built-in one, which knows what the built-in base model draws. Else a "
            "name from huggingface.co, or a folder.", placeholder="openai/clip-vit-base-patch32", max_lines=1,
            elem_id=f"{prefix}-encoder",
        )  # fmt: skip
        download = gr.Checkbox(label="Fetch it if it is missing", elem_id=f"{prefix}-download")
    return encoder, download


def gallery(name: str, **options) -> gr.Gallery:
    """A grid of pictures with what is said of them below, as high as they are; hidden until it is filled."""
    look: dict[str, Any] = {
        "show_label": False, "height": "auto", "buttons": [], "object_fit": "contain", "interactive": False,
        "visible": False, "elem_classes": "gallery",
    }  # fmt: skip
    return gr.Gallery(elem_id=name, **look | options)


def tell(error: Exception) -> None:
    """Show an error as a small message that goes away by itself."""
    gr.Warning(one_line(error), title="Please check", duration=12)


def one_line(error: Exception) -> str:
    """The message on one line. Gradio shows messages as HTML, so what a person typed in it is escaped."""
    return escape(" ".join((in_words(error) or str(error)).split()), quote=False)


def note(text: str = "", bad: bool = False) -> str:
    """Plain text, a line each, as a quiet paragraph."""
    lines = "<br>".join(escape(line) for line in text.splitlines())
    return f'<div class="note{" bad" if bad else ""}">{lines}</div>' if lines else ""


def empty(title: str, text: str) -> str:
    """An empty state: what is missing and what to do."""
    return f'<div class="empty"><b>{escape(title)}</b>{escape(text)}</div>'


def told(items: list[str], kind: str = "") -> str:
    """A list of lines that are HTML already."""
    lines = "".join(f"<li>{item}</li>" for item in items)
    return f'<ul class="told {kind}">{lines}</ul>' if items else ""


def bar(done: int, total: int) -> str:
    """How far something is, as a thin line; empty while the total isn't known."""
    share = 100 * min(1.0, done / total) if total else 0
    return f'<div class="bar"><i style="width:{share:.1f}%"></i></div>'


def duration(seconds: float | None) -> str:
    """`42 s`, `3 min`, `2 h 05 min`."""
    if seconds is None or not 0 <= seconds < 1e9:  # nobody knows, or nobody will wait for it
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(job: Job, from_share: float = 0.05) -> str:
    """` · 3 min left` for a job that runs, as it went until now; "" before this share of it is done."""
    share = job.done / job.total if job.total else 0.0
    seconds = time.monotonic() - job.began
    return f" · {duration(seconds * (1 - share) / share)} left" if share > from_share else ""


def counted(count: int, what: str) -> str:
    """`1 picture`, `1,200 pictures`."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def size(count: int) -> str:
    """`34 MB` for 34,000,000 bytes."""
    for unit, one in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= one:
            return f"{count / one:.1f} {unit}" if count < 10 * one else f"{count / one:,.0f} {unit}"
    return f"{count} bytes"


@dataclass(frozen=True)
class Setting:
    """What RunConfig says about one dotted setting."""

    key: str
    help: str
    default: Any
    low: float | None
    high: float | None
    kind: type
    optional: bool
    choices: tuple[str, ...]


def setting(key: str, schema: Any = None) -> Setting:
    """Description, default and range of `section.name`, read from RunConfig (or another schema): said once."""
    from studio.training.config import RunConfig

    model: Any = schema or RunConfig
    field: Any = None
    for part in key.split("."):
        field = model.model_fields[part]
        model = field.annotation
    low = high = None
    for rule in field.metadata:
        low = next((v for v in (getattr(rule, "ge", None), getattr(rule, "gt", None)) if v is not None), low)
        high = next((v for v in (getattr(rule, "le", None), getattr(rule, "lt", None)) if v is not None), high)
    kinds = typing.get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
    kind = next(kind for kind in kinds if kind is not type(None))
    choices = tuple(typing.get_args(kind)) if typing.get_origin(kind) is typing.Literal else ()
    default = field.get_default(call_default_factory=True)
    return Setting(key, field.description or "", default, low, high, kind, len(kinds) > 1, choices)


def _is_union(annotation) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def field_for(key: str, label: str | None = None, schema: Any = None, **options) -> gr.components.Component:
    """A form field for one setting: label, help, range and default from RunConfig, or from another schema.

    Ranges are told, not enforced: a value outside keeps standing in the field and the run says what is wrong with it.
    """
    known = setting(key, schema)
    label = label or key.split(".")[-1].replace("_", " ").capitalize()
    ends = [
        f"{word} {end:,.10g}"
        for word, end in (("from", known.low), ("to", known.high))
        if end is not None and end < 2**31
    ]
    info = known.help.rstrip(".") + (f" ({' '.join(ends)})." if ends else ".") if known.help or ends else None
    common = {"label": label, "info": info, "elem_id": key.replace(".", "-"), "interactive": True, **options}
    if known.choices or "choices" in options:
        return gr.Dropdown(**{"choices": list(known.choices), "value": known.default, **common})
    if known.kind is bool:
        return gr.Checkbox(value=bool(known.default), **common)
    if known.kind is int and not known.optional:
        return gr.Number(value=known.default, precision=0, **common)
    value = known.default
    if isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    elif isinstance(value, float):
        value = f"{value:g}"
    return gr.Textbox(**{"value": "" if value is None else str(value), "max_lines": 1, **common})
