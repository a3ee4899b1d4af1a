"""Undo, redo, the history of a set and what was taken out of it. A part of the Dataset tab."""

from html import escape

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.ui import actions_datasets as doing
from studio.ui import boards
from studio.ui.thumbnails import thumbnail
from studio.ui.widgets import HIDDEN, QUIET, empty, plainly, tell
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
            labels = can_undo(doing.view(workspace, dataset)) if dataset else ("", "")
        except StudioError:
            labels = "", ""
        return [
            gr.update(value=f"{word}: {_short(label)}" if label else word, interactive=bool(label))
            for word, label in zip(("Undo", "Redo"), labels)
        ]

    def turn(dataset, kind):
        change = doing.turn_back(workspace, dataset, kind)
        if change.left:
            tell(DatasetError(f"{change.label}: {change.left[0]}"))
        return doing.stamp(workspace, dataset)

    revision.change(show, choice, [back, forth], **QUIET, **HIDDEN)
    back.click(plainly(lambda dataset: turn(dataset, "undo")), choice, revision, **QUIET, **HIDDEN)
    forth.click(plainly(lambda dataset: turn(dataset, "redo")), choice, revision, **QUIET, **HIDDEN)


def past_board(workspace: Workspace, choice: gr.Dropdown, revision: gr.State) -> None:
    """The sub-tab: every change, newest first, and the removed pictures."""
    board = boards.board("past", NOTHING)

    def show(dataset):
        from studio.datasets import history, removed_pictures

        try:
            opened = doing.view(workspace, dataset) if dataset else None
        except StudioError:
            opened = None
        if opened is None:
            return NOTHING
        steps, gone = history(opened), removed_pictures(opened)
        pictures = [(file, _link(workspace, path)) for file, path in gone[: boards.MOST]]
        return boards.past(steps, pictures + [(file, None) for file, _ in gone[boards.MOST :]]) if steps else NOTHING

    @plainly
    def act(dataset, event: gr.EventData):
        kind, _, ticked = boards.clicked(event)
        if kind != "restore":
            return gr.skip()
        doing.restore(workspace, dataset, ticked)
        return doing.stamp(workspace, dataset)

    revision.change(show, choice, board, **QUIET, **HIDDEN)
    board.click(act, choice, revision, **QUIET, **HIDDEN)


def _link(workspace: Workspace, path) -> str | None:
    from studio.datasets.pictures import SUFFIXES

    return boards.picture_link(thumbnail(workspace, path)) if path.suffix.lower() in SUFFIXES else None


def _short(label: str) -> str:
    return escape(label if len(label) <= 34 else f"{label[:33]}…", quote=False)
