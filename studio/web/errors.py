"""Errors on the page: one line that goes away by itself, and every field stays as it was."""

import functools
import inspect
from collections.abc import Callable
from html import escape

import gradio as gr

from studio.errors import user_message


def show_errors(handler: Callable) -> Callable:
    """For the page: show an error that `user_message` has a sentence for as one line and leave every field as it was.

    Other errors are bugs and keep their traceback. (Raising would cover the outputs with the word "Error".)
    """

    @functools.wraps(handler)
    def wrapped(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except Exception as error:
            if user_message(error) is None:
                raise
            show_warning(error)
            return gr.skip()

    @functools.wraps(handler)
    def streamed(*args, **kwargs):
        try:
            yield from handler(*args, **kwargs)
        except Exception as error:
            if user_message(error) is None:
                raise
            show_warning(error)
            yield gr.skip()

    return streamed if inspect.isgeneratorfunction(handler) else wrapped


def show_warning(error: Exception) -> None:
    """Show an error as a small message that goes away by itself."""
    gr.Warning(one_line(error), title="Please check", duration=12)


def one_line(error: Exception) -> str:
    """The message on one line. Gradio shows messages as HTML, so what a person typed in it is escaped."""
    return escape(" ".join((user_message(error) or str(error)).split()), quote=False)
