"""One named endpoint, and what several of them answer or are given."""

import functools
import json
from collections.abc import Callable

import gradio as gr

from studio.errors import GenerationError, user_message
from studio.web.errors import one_line


def endpoint(action: Callable, inputs: list, outputs, **options) -> None:
    """`action` under its own name. An error that `user_message` has a sentence for reaches the caller as that."""

    @functools.wraps(action)
    def wrapped(*args):
        try:
            return action(*args)
        except Exception as error:
            if user_message(error) is None:
                raise
            raise gr.Error(one_line(error), print_exception=False) from None

    gr.Button(visible=False).click(wrapped, inputs, outputs, api_name=action.__name__, **options)


def job_facts(job) -> dict:
    fields = ("kind", "title", "state", "done", "total", "message", "error")
    return {name: getattr(job, name) for name in fields}


def json_of(value, kind: type, name: str):
    """JSON as text or as itself; GenerationError when it is something else."""
    if isinstance(value, str):
        try:
            value = json.loads(value or ("[]" if kind is list else "{}"))
        except (ValueError, RecursionError):
            raise GenerationError(f"{name} is not JSON: see the example under Use via API.") from None
    if value is None:
        return kind()
    if not isinstance(value, kind):
        raise GenerationError(f"{name} must be a {'list' if kind is list else 'table of settings'}.")
    return value
