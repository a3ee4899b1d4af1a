"""Images into a dataset: from the card into a new one, from the left column into the one that is open."""

from contextlib import suppress
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import datasets
from studio.services.jobs import latest, stop_job
from studio.web.components.fields import QUIET
from studio.web.components.html import job_report, note
from studio.web.dataset.captions import NOTHING_SHOWN
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors


class AddFiles:
    """Files, a zip or a folder, added as soon as they are chosen or dropped.

    new: into a new dataset, with a name that may be typed; else into the one that is open
    """

    def __init__(self, context: DatasetContext, new: bool):
        self.context, self.workspace, self.new = context, context.workspace, new
        prefix, folders = "" if new else "more-", self.workspace.allows.folders
        self.files = gr.File(
            label="Images or a zip",
            file_count="multiple",
            height=116,
            elem_id=f"{prefix}drop-images",
            elem_classes="drop",
        )
        self.choose = gr.UploadButton(
            "Choose a folder", file_count="directory", size="sm", elem_id=f"{prefix}choose-folder"
        )
        closed: dict[str, Any] = {"open": False, "visible": new or folders, "elem_id": f"{prefix}more-ways"}
        ways = [*(["name"] if new else []), *(["a folder of this machine"] if folders else [])]
        title = ", or ".join(ways).capitalize()
        with gr.Accordion(title, **closed):
            self.name = gr.Textbox(
                label="Name",
                info="Of the new dataset; to be typed first.",
                placeholder="my-images",
                max_lines=1,
                visible=new,
                elem_id=f"{prefix}dataset-name",
            )
            with gr.Column(visible=folders):
                self.folder = gr.Textbox(
                    label="A folder of this machine",
                    info="Also kohya's 10_name folders and Hugging Face's imagefolder. It is copied, not changed.",
                    max_lines=1,
                    visible=folders,
                    elem_id=f"{prefix}import-folder",
                )
                self.add = gr.Button("Add this folder", size="sm", elem_id=f"{prefix}add", visible=folders)

    def wire(self) -> None:
        imports, choice = self.context.imports, self.context.choice
        outputs = [imports.report, imports.seen, self.files, self.choose]
        self.files.upload(self.start, [self.files, self.name, choice], outputs, **QUIET)
        self.choose.upload(self.start, [self.choose, self.name, choice], outputs, **QUIET)
        gr.on(
            [self.add.click, self.folder.submit],
            self.start_folder,
            [self.folder, self.name, choice],
            [imports.report, imports.seen],
            **QUIET,
        )

    @show_errors
    def start(self, files, name, current):
        """Files were chosen. The list of them goes, whatever comes of it: what was refused is said."""
        try:
            started = self._start(files or [], "", name, current)
        except StudioError as error:
            started = {self.context.imports.report: note(str(error), bad=True)}
        return started | {self.files: None, self.choose: None}

    @show_errors
    def start_folder(self, folder, name, current):
        return self._start([], (folder or "").strip(), name, current)

    def _start(self, files: list[str], folder: str, name: str | None, current: str | None) -> dict[Any, Any]:
        if self.new:
            target = datasets.new_name(self.workspace, name or "", [*files, *filter(None, [folder])])
        else:
            target = current or ""
        datasets.start_import(self.workspace, target, files, folder)
        return {self.context.imports.report: note("Starting."), self.context.imports.seen: NOTHING_SHOWN}


class Import:
    """The report of the newest import, and Stop. A dataset that was made is opened."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        self.seen = gr.State(None)
        with gr.Row(elem_id="import-report", equal_height=False):
            self.report = gr.HTML(elem_id="added")
            self.stop = gr.Button("Stop", size="sm", visible=False, elem_id="stop-add", min_width=70, scale=0)

    def wire(self) -> None:
        context = self.context
        watched = [self.seen, self.report, self.stop, context.choice, context.revision]
        context.poller.watch(self.watch, [self.seen, context.choice], watched)
        context.demo.load(self.watch, [self.seen, context.choice], watched, concurrency_limit=None, **QUIET)
        context.choice.input(lambda: "", None, self.report, **QUIET)  # it was about another dataset
        self.stop.click(halt, None, None, **QUIET)

    def watch(self, last, current):
        job = latest["import"].job if "import" in latest else None
        state = ("none",) if job is None else (id(job), job.state, job.done)
        if state == last:
            return gr.skip()
        if job is None:
            return {self.seen: state}
        running, name = job.state == "running", latest["import"].name
        if last is None and not running and name != current:  # of a dataset that is not open
            return {self.seen: state}
        updates = {self.seen: state, self.report: job_report(job), self.stop: gr.update(visible=running)}
        if last is None or running or not job.result:
            return updates
        name = job.result[0]
        with suppress(StudioError):
            datasets.make_thumbnails(self.workspace, datasets.view(self.workspace, name))
        return updates | {
            self.context.choice: gr.update(choices=datasets.dataset_choices(self.workspace), value=name),
            self.context.revision: datasets.stamp(self.workspace, name),
        }


def build(context: DatasetContext) -> Import:
    """The line of the newest import, above the dataset."""
    part = Import(context)
    context.imports = part
    part.wire()
    return part


def more_images(context: DatasetContext) -> AddFiles:
    """Folded: more images for the dataset that is open."""
    with gr.Accordion("Add images to this dataset", open=False, elem_id="add-images"):
        part = AddFiles(context, new=False)
    part.wire()
    return part


def halt():
    stop_job("import")
