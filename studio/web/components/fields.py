"""Shared pieces of the page: one-line errors, notes, progress, and form fields that read RunConfig."""

import types
import typing
from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.workspace import Workspace

# Whatever shows progress is looked up in the whole page at each message of any event, also when it is hidden.
NO_PROGRESS: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
PRIVATE = {"api_visibility": "private"}  # the page's own events; programs use the named endpoints of api.py


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
