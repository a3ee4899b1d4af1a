"""The Dataset tab: images in, captions written and edited, the dataset checked. A file a part."""

import gradio as gr

from studio.services import datasets
from studio.web.components.clickable import clicked
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.dataset import (
    bulk_edit,
    captioners,
    captions,
    check,
    export,
    history,
    image_editor,
    images,
    imports,
    mask_editor,
    masks,
    start,
)
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors

# This browser remembers which dataset was open. Its place is held from the first moment on: see start.py.
RECALL_JS = "() => { try { return localStorage.studioDataset || null; } catch { return null; } }"
RECALLED_JS = "() => { document.body.classList.remove('reopening'); }"
REMEMBER_JS = "name => { try { localStorage.studioDataset = name || ''; } catch {} }"


class DatasetTab:
    """choice: the dataset that is open; onward: the button that goes on to training; start: the cards.

    While no dataset is open, there are the cards and the choice alone: the style sheet hides what has the class
    once-open for as long as the cards are there.
    """

    def __init__(self, page: PageContext):
        self.workspace, self.demo = page.workspace, page.demo
        self.choice = gr.Dropdown(label="Dataset", choices=[], elem_id="dataset", render=False, scale=0, min_width=340)
        self.onward = gr.Button(
            "Train on this dataset →",
            variant="primary",
            size="md",
            elem_id="to-train",
            elem_classes="once-open",
            render=False,
            scale=0,
            min_width=220,
        )
        with gr.Tab("Dataset", id="dataset", elem_id="tab-dataset"):
            self.revision, self.requested = gr.State(""), gr.State("")
            self.recalled = gr.Textbox(visible=False)
            context = DatasetContext(
                **vars(page),
                choice=self.choice,
                revision=self.revision,
                requested=self.requested,
                onward=self.onward,
            )
            self.start = start.build(context)
            imports.build(context)
            with gr.Row(elem_id="dataset-bar", equal_height=False):
                self.choice.render()
                self.close = gr.Button(
                    "New dataset", size="md", elem_id="new-dataset", elem_classes="once-open", scale=0, min_width=130
                )
                history.undo_bar(context)
                self.onward.render()
            with gr.Row(equal_height=False, elem_classes="once-open"):
                with gr.Column(scale=3, min_width=280):
                    context.captions = captions.build(context)
                    imports.more_images(context)
                    export.build(context)
                with gr.Column(scale=10, min_width=320), gr.Tabs(elem_id="dataset-tabs") as self.tabs:
                    self._sub_tabs(context)

    def _sub_tabs(self, context: DatasetContext) -> None:
        context.images = images.build(context)
        context.editor = image_editor.build(context)
        mask_editor.build(context)
        check.build(context)
        bulk_edit.build(context)
        masks.build(context)
        captioners.build(context)
        history.build(context)

    def wire(self) -> None:
        choice, outputs = self.choice, [self.choice, self.revision, self.tabs]
        self.start.wire()
        recalled = self.demo.load(self.reopen, self.recalled, outputs, js=RECALL_JS, **QUIET)
        recalled.then(None, None, None, js=RECALLED_JS, **QUIET)
        choice.change(None, choice, None, js=REMEMBER_JS, **QUIET)
        choice.focus(self.list_choices, None, choice, **QUIET)
        choice.input(self.open, choice, outputs, **QUIET)
        gr.on(self.start.clicks, self.begin, None, outputs, **QUIET)
        self.close.click(self.closed, None, outputs, **QUIET)
        self.revision.change(lambda name: gr.update(visible=not name), choice, self.start.part, **QUIET)
        self.requested.change(show_images, self.requested, self.tabs, **QUIET)

    def list_choices(self):
        return gr.update(
            choices=datasets.dataset_choices(self.workspace)
        )  # no value: the person may be choosing one now

    @show_errors
    def open(self, name):
        if not name:
            return gr.skip()
        dataset = datasets.view(self.workspace, name, again=True)
        datasets.make_thumbnails(self.workspace, dataset)
        return {
            self.choice: gr.update(choices=datasets.dataset_choices(self.workspace), value=dataset.name),
            self.revision: datasets.stamp(self.workspace, dataset.name),
            self.tabs: gr.Tabs(selected="images"),
        }

    def closed(self):
        """No dataset is open: the cards are back."""
        return {
            self.choice: gr.update(choices=datasets.dataset_choices(self.workspace), value=None),
            self.revision: "",
            self.tabs: gr.Tabs(selected="images"),
        }

    @show_errors
    def begin(self, event: gr.EventData):
        """One of the cards was clicked."""
        act, name, _ = clicked(event)
        return self.open(name) if act == start.SAMPLE else gr.skip()

    @show_errors
    def reopen(self, last):
        if last in (name for _, name in datasets.dataset_choices(self.workspace)):
            return self.open(last)
        return {self.choice: self.list_choices()}


def build(context: PageContext) -> DatasetTab:
    """The tab, inside the caller's gr.Tabs."""
    part = DatasetTab(context)
    part.wire()
    return part


def show_images(key):
    return gr.Tabs(selected="images") if key else gr.skip()
