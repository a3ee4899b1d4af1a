"""Undo, redo, the history of a dataset and its removed images. A part of the Dataset tab."""

from html import escape

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import datasets
from studio.services.thumbnails import thumbnail
from studio.web.components.clickable import MOST, clickable_html, clicked, image_link
from studio.web.components.fields import QUIET
from studio.web.components.html import empty
from studio.web.dataset import views
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

NOTHING = empty("No change yet", "Every edit, captioning and removal is listed here and can be undone.")


class UndoBar:
    """Two buttons that name what they would undo or redo; there is none where there is nothing."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        with gr.Row(elem_classes="undo once-open"):
            self.undo = gr.Button("Undo", size="sm", visible=False, elem_id="undo", min_width=80)
            self.redo = gr.Button("Redo", size="sm", visible=False, elem_id="redo", min_width=80)

    def wire(self) -> None:
        choice, revision = self.context.choice, self.context.revision
        revision.change(self.show, choice, [self.undo, self.redo], **QUIET)
        self.undo.click(self.undo_last, choice, revision, **QUIET)
        self.redo.click(self.redo_last, choice, revision, **QUIET)

    def show(self, dataset):
        from studio.datasets import can_undo

        try:
            labels = can_undo(datasets.view(self.workspace, dataset)) if dataset else ("", "")
        except StudioError:
            labels = "", ""
        return {
            button: gr.update(value=f"{word}: {_short(label)}" if label else word, visible=bool(label))
            for button, word, label in zip((self.undo, self.redo), ("Undo", "Redo"), labels)
        }

    @show_errors
    def undo_last(self, dataset):
        return turn(self.workspace, dataset, "undo")

    @show_errors
    def redo_last(self, dataset):
        return turn(self.workspace, dataset, "redo")


def undo_bar(context: DatasetContext) -> UndoBar:
    """The buttons, where the caller stands."""
    part = UndoBar(context)
    part.wire()
    return part


class History:
    """The sub-tab: every change, newest first, and the removed images."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("History", id="past", elem_id="tab-past", render_children=True):
            self.listed = clickable_html("past", NOTHING)

    def wire(self) -> None:
        self.context.revision.change(self.show, self.context.choice, self.listed, **QUIET)
        self.listed.click(self.restore, self.context.choice, self.context.revision, **QUIET)

    def show(self, dataset):
        from studio.datasets import history, removed_images

        try:
            opened = datasets.view(self.workspace, dataset) if dataset else None
        except StudioError:
            opened = None
        if opened is None:
            return NOTHING
        steps, gone = history(opened), removed_images(opened)
        removed = [
            (file, _link(self.workspace, path) if place < MOST else None) for place, (file, path) in enumerate(gone)
        ]
        return views.history(steps, removed) if steps else NOTHING

    @show_errors
    def restore(self, dataset, event: gr.EventData):
        kind, _, selected = clicked(event)
        if kind != "restore":
            return gr.skip()
        datasets.restore_images(self.workspace, dataset, selected)
        return datasets.stamp(self.workspace, dataset)


def build(context: DatasetContext) -> History:
    part = History(context)
    part.wire()
    return part


def turn(workspace: Workspace, dataset: str, kind: str) -> str:
    """Undo or redo. Returns the dataset's new stamp."""
    change = datasets.turn_back(workspace, dataset, kind)
    if change.left:
        show_warning(DatasetError(f"{change.label}: {change.left[0]}"))
    return datasets.stamp(workspace, dataset)


def _link(workspace: Workspace, path) -> str | None:
    from studio.datasets.images import SUFFIXES

    return image_link(thumbnail(workspace, path)) if path.suffix.lower() in SUFFIXES else None


def _short(label: str) -> str:
    return escape(label if len(label) <= 34 else f"{label[:33]}…", quote=False)
