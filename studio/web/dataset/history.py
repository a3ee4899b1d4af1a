"""Undo, redo, the history of a set and what was taken out of it. A part of the Dataset tab."""

from html import escape

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import datasets
from studio.services.thumbnails import thumbnail
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import empty
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

NOTHING = empty("Nothing was changed yet", "Every edit, captioning and removal is kept here and can be taken back.")


def undo_bar(workspace: Workspace, choice: gr.Dropdown, revision: gr.State) -> None:
    """Two buttons that say what they would take back."""
    with gr.Row(elem_classes="undo"):
        back = gr.Button("Undo", size="sm", interactive=False, elem_id="undo", min_width=80)
        forth = gr.Button("Redo", size="sm", interactive=False, elem_id="redo", min_width=80)

    def show(dataset):
        from studio.datasets import can_undo

        try:
            labels = can_undo(datasets.view(workspace, dataset)) if dataset else ("", "")
        except StudioError:
            labels = "", ""
        return [
            gr.update(value=f"{word}: {_short(label)}" if label else word, interactive=bool(label))
            for word, label in zip(("Undo", "Redo"), labels)
        ]

    def turn(dataset, kind):
        change = datasets.turn_back(workspace, dataset, kind)
        if change.left:
            show_warning(DatasetError(f"{change.label}: {change.left[0]}"))
        return datasets.stamp(workspace, dataset)

    revision.change(show, choice, [back, forth], **NO_PROGRESS, **PRIVATE)
    back.click(show_errors(lambda dataset: turn(dataset, "undo")), choice, revision, **NO_PROGRESS, **PRIVATE)
    forth.click(show_errors(lambda dataset: turn(dataset, "redo")), choice, revision, **NO_PROGRESS, **PRIVATE)


def past_board(workspace: Workspace, choice: gr.Dropdown, revision: gr.State) -> None:
    """The sub-tab: every change, newest first, and the removed pictures."""
    board = clickable.board("past", NOTHING)

    def show(dataset):
        from studio.datasets import history, removed_images

        try:
            opened = datasets.view(workspace, dataset) if dataset else None
        except StudioError:
            opened = None
        if opened is None:
            return NOTHING
        steps, gone = history(opened), removed_images(opened)
        pictures = [(file, _link(workspace, path)) for file, path in gone[: clickable.MOST]]
        return (
            clickable.past(steps, pictures + [(file, None) for file, _ in gone[clickable.MOST :]]) if steps else NOTHING
        )

    @show_errors
    def act(dataset, event: gr.EventData):
        kind, _, ticked = clickable.clicked(event)
        if kind != "restore":
            return gr.skip()
        datasets.restore_images(workspace, dataset, ticked)
        return datasets.stamp(workspace, dataset)

    revision.change(show, choice, board, **NO_PROGRESS, **PRIVATE)
    board.click(act, choice, revision, **NO_PROGRESS, **PRIVATE)


def _link(workspace: Workspace, path) -> str | None:
    from studio.datasets.images import SUFFIXES

    return clickable.picture_link(thumbnail(workspace, path)) if path.suffix.lower() in SUFFIXES else None


def _short(label: str) -> str:
    return escape(label if len(label) <= 34 else f"{label[:33]}…", quote=False)
