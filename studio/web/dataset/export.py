"""A dataset out of the studio. A part of the Dataset tab's left column."""

import gradio as gr

from studio.services import datasets
from studio.services.jobs import latest
from studio.web.components.fields import QUIET
from studio.web.components.html import job_report, note
from studio.web.dataset.captions import NOTHING_SHOWN
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors

FORMATS = {
    "Zip, captions as .txt": "zip",
    "Folder, captions as .txt": "sidecars",
    "Folder, captions in metadata.jsonl": "metadata.jsonl",
}


class Export:
    """Folded: the dataset as a zip, or as a folder where only this machine serves the page."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        self.seen = gr.State(None)
        with gr.Accordion("Export", open=False, elem_id="export"):
            self.kind = gr.Dropdown(
                label="Format",
                choices=list(FORMATS),
                value=next(iter(FORMATS)),
                visible=self.workspace.allows.folders,
                elem_id="export-kind",
            )
            self.background = gr.Textbox(
                label="Background for transparent images",
                info="A colour, such as white or #808080. Empty: they stay transparent.",
                max_lines=1,
                elem_id="export-background",
            )
            self.export = gr.Button("Export", elem_id="export-go")
            self.report = gr.HTML(elem_id="exported")
            self.file = gr.File(label="The zip", visible=False, interactive=False, elem_id="export-file")

    def wire(self) -> None:
        context, watched = self.context, [self.seen, self.report, self.file]
        context.poller.watch(self.watch, self.seen, watched)
        context.demo.load(self.watch, self.seen, watched, concurrency_limit=None, **QUIET)
        inputs = [context.choice, self.kind, self.background]
        self.export.click(self.start, inputs, [self.report, self.seen], **QUIET)

    @show_errors
    def start(self, dataset, wanted, colour):
        datasets.export_dataset(self.workspace, dataset, colour or "", kind=FORMATS.get(str(wanted), ""))
        return {self.report: note("Starting."), self.seen: NOTHING_SHOWN}

    def watch(self, last):
        job = latest["export"].job if "export" in latest else None
        state = job and (id(job), job.state, job.done)
        if state == last or job is None:
            return gr.skip()
        zipped = str(job.result) if job.result and job.result.suffix == ".zip" else None
        file = gr.update(value=zipped, visible=zipped is not None)
        return {self.seen: state, self.report: job_report(job), self.file: file}


def build(context: DatasetContext) -> Export:
    part = Export(context)
    part.wire()
    return part
