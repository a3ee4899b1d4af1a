"""Images into a dataset. A part of the Dataset tab's left column."""

from contextlib import suppress

import gradio as gr

from studio.errors import StudioError
from studio.services import datasets
from studio.services.jobs import latest, stop_job
from studio.web.components.fields import QUIET
from studio.web.components.html import job_report, note
from studio.web.dataset.captions import NOTHING_SHOWN
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors


class Import:
    """Folded: files or a folder that are added to a dataset."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        self.seen = gr.State(None)
        with gr.Accordion("Add your own images", open=False, elem_id="add-images") as self.part:
            self.name = gr.Textbox(label="Name", placeholder="my-images", max_lines=1, elem_id="dataset-name")
            self.files = gr.File(
                label="Images or a zip",
                file_count="multiple",
                height=140,
                elem_id="drop-images",
                elem_classes="drop",
            )
            self.folder = gr.Textbox(
                label="Or a folder on this machine",
                info="Also kohya's 10_name folders and Hugging Face's imagefolder. It is copied, not changed.",
                max_lines=1,
                visible=self.workspace.allows.folders,
                elem_id="import-folder",
            )
            with gr.Row():
                self.add = gr.Button("Add to this dataset", size="md", elem_id="add", min_width=140)
                self.stop = gr.Button("Stop", size="md", visible=False, elem_id="stop-add", min_width=70)
            self.report = gr.HTML(elem_id="added")

    def wire(self) -> None:
        context = self.context
        watched = [self.seen, self.report, self.stop, context.choice, self.files, context.revision]
        context.poller.watch(self.watch, self.seen, watched)
        context.demo.load(self.watch, self.seen, watched, concurrency_limit=None, **QUIET)
        inputs = [self.files, self.folder, self.name, context.choice]
        self.add.click(self.start, inputs, [self.report, self.seen], **QUIET)
        self.stop.click(halt, None, None, **QUIET)

    @show_errors
    def start(self, files, typed, wanted, current):
        datasets.start_import(self.workspace, wanted or current or "", files or [], (typed or "").strip())
        return {self.report: note("Starting."), self.seen: NOTHING_SHOWN}

    def watch(self, last):
        job = latest["import"].job if "import" in latest else None
        state = ("none",) if job is None else (id(job), job.state, job.done)
        if state == last:
            return gr.skip()
        if job is None:
            return {self.seen: state}
        running = job.state == "running"
        updates = {self.seen: state, self.report: job_report(job), self.stop: gr.update(visible=running)}
        if last is None or running or not job.result:
            return updates
        name = job.result[0]
        with suppress(StudioError):
            datasets.make_thumbnails(self.workspace, datasets.view(self.workspace, name))
        return updates | {
            self.context.choice: gr.update(choices=datasets.dataset_choices(self.workspace), value=name),
            self.files: None,
            self.context.revision: datasets.stamp(self.workspace, name),
        }


def build(context: DatasetContext) -> Import:
    part = Import(context)
    part.wire()
    return part


def halt():
    stop_job("import")
