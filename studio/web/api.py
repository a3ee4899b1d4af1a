"""Endpoints and MCP tools: one for every operation of `studio.services`, made from its own definition.

from gradio_client import Client, handle_file
studio = Client("http://127.0.0.1:7860")
studio.predict("silhouette", api_name="/open_dataset")
"""

import inspect
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import gradio as gr
from pydantic.fields import FieldInfo

from studio.errors import StudioError, user_message
from studio.schema import settings
from studio.server.callers import asked
from studio.services.operations import Operation, all_operations
from studio.web import warm
from studio.web.errors import one_line
from studio.web.turns import DEVICE, caller_is_gone
from studio.workspace import Workspace

SIMPLE = (bool, int, float, str, dict, list)


def endpoints(workspace: Workspace) -> gr.Column:
    """Add an endpoint for each operation to the page being built. The column holds their components, which are hidden.

    Older names answer too. They are listed, since gradio_client fills in defaults and keywords only of what is listed.
    """
    with gr.Column(visible=False) as column:
        for operation in all_operations().values():
            for name in (operation.name, *operation.aliases):
                _endpoint(workspace, operation, name)
    return column


def _endpoint(workspace: Workspace, operation: Operation, name: str) -> None:
    options: dict[str, Any] = {
        "api_name": name,
        "api_description": description(operation) if name == operation.name else f"Older name of {operation.name}.",
    }
    if operation.device:
        options["concurrency_id"] = DEVICE
    called = _called(workspace, operation, name)
    if not operation.file and not operation.upload:
        gr.api(called, **options)
        return
    gr.Button(visible=False).click(called, _inputs(operation), _outputs(operation), **options)  # files need components


def _called(workspace: Workspace, operation: Operation, name: str) -> Callable[..., Any]:
    """The operation as Gradio calls it: plain arguments in, JSON out, a user's mistake as one line."""

    def call(*args: Any) -> Any:
        warm.wait()
        try:
            with asked(caller_is_gone()):
                return _answer(workspace, operation, operation(workspace, **dict(zip(operation.fields, args))))
        except Exception as error:
            if user_message(error) is None:
                raise
            raise gr.Error(one_line(error), print_exception=False) from None

    call.__name__ = name  # also the MCP tool's, which would else get a number for a name
    older = operation.renamed if name != operation.name else {}
    fields = {older.get(key, key): field for key, field in operation.fields.items()}
    hints = {key: _hint(field) for key, field in fields.items()}
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [
        inspect.Parameter(key, kind, default=_default(field), annotation=hints[key]) for key, field in fields.items()
    ]
    call.__signature__ = inspect.Signature(parameters, return_annotation=Any)  # type: ignore[attr-defined]
    call.__annotations__ = hints | {"return": Any}
    return call


def _answer(workspace: Workspace, operation: Operation, result: Any) -> Any:
    if operation.waits:
        result.wait()
        if result.error or result.result is None:
            raise StudioError(result.error or f"{result.title} was stopped.")
        result = result.result
    if operation.file == "download":
        return str(result)
    if operation.file:
        path, *rest = result
        return (str(path), *rest) if rest else str(path)
    return operation.answered(workspace, result)


def description(operation: Operation) -> str:
    """The operation's summary, then a line for each parameter with its range."""
    lines = [f"{name}: {text}" for name, text in parameter_lines(operation)]
    return "\n".join([operation.summary.split("\n\n")[0], *lines])


def parameter_lines(operation: Operation) -> Iterator[tuple[str, str]]:
    """(name, description with range) of each parameter."""
    for one in settings(operation.model):
        text = one.description.rstrip(".")
        yield one.name, f"{text} ({one.range_text})." if one.range_text else f"{text}."


def _hint(field: FieldInfo) -> Any:
    """The plain type that a client sees. The operation itself checks what arrives."""
    found = _kinds(field.annotation)
    return found[0] if len(found) == 1 else Any


def _kinds(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [kind for one in typing.get_args(annotation) if one is not type(None) for kind in _kinds(one)]
    if typing.get_origin(annotation) is typing.Literal:
        return [str]
    if typing.get_origin(annotation) is typing.Annotated:
        return _kinds(typing.get_args(annotation)[0])
    kind = typing.get_origin(annotation) or annotation
    return [kind] if kind in SIMPLE else []


def _default(field: FieldInfo) -> Any:
    return inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)


# Files --------------------------------------------------------------------------------------------------------------


def _inputs(operation: Operation) -> list[gr.components.Component]:
    return [_component(operation, name, text) for name, text in parameter_lines(operation)]


def _component(operation: Operation, name: str, text: str) -> gr.components.Component:
    """What takes a parameter from a client where a file is among the inputs or outputs."""
    field, label = operation.fields[name], f"{name}: {text}"
    if name == operation.upload:
        many = typing.get_origin(field.annotation) is list
        return gr.File(label=label, file_count="multiple" if many else "single")
    value = None if field.is_required() else field.get_default(call_default_factory=True)
    kind = _hint(field)
    made: gr.components.Component
    if kind in (int, float):
        made = gr.Number(label=label, value=value, precision=0 if kind is int else None)
    elif kind is bool:
        made = gr.Checkbox(label=label, value=bool(value))
    elif kind is str:
        made = gr.Textbox(label=label, value=value or "")
    else:
        made = gr.JSON(label=label, value=value if value is not None else [] if kind is list else {})
    # The operation checks what arrives, and says in a sentence what is wrong; Gradio's own check says nothing.
    made.preprocess = lambda payload: payload  # type: ignore[method-assign]
    return made


def _outputs(operation: Operation) -> list[gr.components.Component]:
    if operation.file == "download":
        return [gr.File(label="file")]
    if operation.file == "image":
        image = gr.Image(label="image", type="filepath", format="png")
        return [image, gr.Textbox(label="recipe")] if operation.device else [image]
    says_text = operation.function.__annotations__.get("return") is str
    return [gr.Textbox(label="answer") if says_text else gr.JSON(label="answer")]
