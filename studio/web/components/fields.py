"""Form fields that read RunConfig, and what nearly every event of the page is given."""

from typing import Any

import gradio as gr

from studio.schema import Setting
from studio.schema import setting as schema_setting
from studio.workspace import Workspace

# Whatever shows progress is looked up in the whole page at each message of any event, also when it is hidden.
NO_PROGRESS: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": []}
PRIVATE = {"api_visibility": "private"}  # the page's own events; programs use the named endpoints of api.py
QUIET: dict[str, Any] = {**NO_PROGRESS, **PRIVATE}  # of nearly every event
UNQUEUED: dict[str, Any] = {**QUIET, "queue": False}  # answered at once, not in the queue's turn; shows no message


def encoder_fields(workspace: Workspace, prefix: str, title: str = "Image encoder") -> tuple[gr.Textbox, gr.Checkbox]:
    """Closed: another image encoder, and whether it may be downloaded. prefix: of the elements' ids."""
    with gr.Accordion(title, open=False, visible=workspace.allows.models, elem_id=f"{prefix}-encoder-part"):
        encoder = gr.Textbox(
            label="CLIP model",
            info="Empty: the built-in one, for the things of the built-in base model. Else a name "
            "from huggingface.co, or a folder.",
            placeholder="openai/clip-vit-base-patch32",
            max_lines=1,
            elem_id=f"{prefix}-encoder",
        )
        download = gr.Checkbox(label="Download it if it is missing", elem_id=f"{prefix}-download")
    return encoder, download


def kept(value: list[str] | dict[str, Any]) -> gr.JSON:
    """Hidden: a value that the browser keeps between two events, and may send back as anything. What is of another kind
    counts as nothing, and a list holds texts alone.
    """

    def received(payload: Any) -> Any:
        if not isinstance(payload, type(value)):
            return type(value)()
        return [one for one in payload if isinstance(one, str)] if isinstance(payload, list) else payload

    made = gr.JSON(value, visible=False)
    made.preprocess = received  # type: ignore[method-assign]
    return made


def gallery(name: str, **options) -> gr.Gallery:
    """A grid of images with captions below them, as high as they are; hidden until it is filled."""
    plain: dict[str, Any] = {
        "show_label": False,
        "height": "auto",
        "buttons": [],
        "object_fit": "contain",
        "interactive": False,
        "visible": False,
        "elem_classes": "gallery",
    }
    return gr.Gallery(elem_id=name, **plain | options)


def setting(key: str, schema: Any = None) -> Setting:
    """Description, default and range of `section.name`, read from RunConfig or another schema."""
    from studio.training.config import RunConfig

    return schema_setting(schema or RunConfig, key)


def field_for(key: str, label: str | None = None, schema: Any = None, **options) -> gr.components.Component:
    """A form field for one setting: label, help, range and default from RunConfig, or from another schema.

    Ranges are shown, not enforced: a value outside stays in the field, and the run says what is wrong with it.
    """
    known = setting(key, schema)
    label = label or key.split(".")[-1].replace("_", " ").capitalize()
    ends = [
        f"{word} {end:,.10g}"
        for word, end in (("from", known.low), ("to", known.high))
        if end is not None and end < 2**31
    ]
    about = known.description.rstrip(".")
    info = about + (f" ({' '.join(ends)})." if ends else ".") if about or ends else None
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
