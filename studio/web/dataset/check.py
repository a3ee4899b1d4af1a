"""The check of a dataset, fixed by one click, and how well captions fit. A part of the Dataset tab."""

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import base_models, captioning, datasets
from studio.services.base_models import DEFAULT_SIZE
from studio.services.jobs import latest, stop_job
from studio.services.thumbnails import thumbnail
from studio.web.components.clickable import clickable_html, clicked, image_link
from studio.web.components.fields import QUIET, encoder_fields
from studio.web.components.html import empty, note, progress_bar
from studio.web.dataset import views
from studio.web.dataset.context import DatasetContext
from studio.web.errors import show_errors, show_warning
from studio.workspace import Workspace

NOTHING = empty("Not checked yet", "The check reads every image and caption; it changes nothing by itself.")
WELL = empty("No problem found", "No broken, duplicate, small or blurred image, and no caption is missing.")
REMEDIES = {
    "remove the images": "Remove them",
    "keep the largest of each": "Keep the largest of each",
    "put the trigger in front": "Put the trigger in front",
    "clear the captions": "Clear these captions",
    "cut the captions at the limit": "Cut them at the limit",
    "remove the tag everywhere": "Remove the tag",
    "move the files to the trash": "Move the files to the trash",
}


class Check:
    """The sub-tab."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Check", id="check", elem_id="tab-check", render_children=True):
            self.seen = gr.State(None)
            self.suggested = gr.State((base_models.STARTER, DEFAULT_SIZE))  # a base and its size
            with gr.Row(equal_height=False, elem_classes="low"):
                self.resolution = gr.Number(
                    label="Training resolution",
                    info="In pixels; smaller images are reported.",
                    value=DEFAULT_SIZE,
                    precision=0,
                    minimum=64,
                    maximum=4096,
                    elem_id="check-size",
                    min_width=160,
                )
                self.check = gr.Button("Check this dataset", variant="primary", elem_id="check-dataset", min_width=180)
                self.score = gr.Button("Find captions that don't fit", elem_id="score", min_width=240)
                self.stop = gr.Button("Stop", interactive=False, elem_id="stop-check-dataset", min_width=80, scale=0)
            self.encoder, self.download = encoder_fields(
                self.workspace, "score", "Image encoder that finds captions that don't fit"
            )
            self.progress = gr.HTML(elem_id="check-progress")
            self.findings = clickable_html("findings", NOTHING)
            self.worst = clickable_html("worst")

    def wire(self) -> None:
        choice, trigger = self.context.choice, self.context.captions.trigger
        self.check.click(self.start, [choice, self.resolution, trigger], self.progress, **QUIET)
        self.score.click(self.start_score, [choice, trigger, self.encoder, self.download], self.progress, **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        watched = [self.seen, self.progress, self.findings, self.worst, self.stop]
        self.context.poller.watch(self.watch, [self.seen, choice], watched)
        sized = [self.suggested, self.resolution]
        self.context.poller.watch(self.follow_base, sized, sized)
        self.findings.click(self.fix, choice, [self.context.revision, self.findings], **QUIET)
        self.worst.click(open_image, choice, self.context.requested, **QUIET)

    @show_errors
    def start(self, dataset, side, word):
        datasets.check_dataset(self.workspace, dataset, int(side or DEFAULT_SIZE), word or "")
        return note("Starting.")

    @show_errors
    def start_score(self, dataset, word, clip, fetch):
        captioning.score_captions(self.workspace, dataset, word or "", clip or "", bool(fetch))
        return note("Starting.")

    def watch(self, last, dataset):
        """Progress, and what was found once it is known."""
        health, score = latest.get("health"), latest.get("score")
        state = (dataset, *((id(one.job), one.job.state, one.job.done) for one in (health, score) if one))
        if state == last:
            return gr.skip()
        running = next((one.job for one in (health, score) if one and one.job.state == "running"), None)
        line, rows = "", ""
        if running:
            progress = running.message if running.kind == "score" else f"{running.done:,} of {running.total:,}"
            line = progress_bar(running.done, running.total) + note(f"{running.title}: {progress}")
        elif failed := next((one.job.error for one in (health, score) if one and one.job.error), None):
            line = note(failed, bad=True)
        if score and score.name == dataset and score.job.state == "done":
            title = "The captions that fit their images least, by the image encoder; click one to edit it."
            try:
                link = links(self.workspace, datasets.view(self.workspace, dataset))
                rows = note(title) + views.worst_captions(score.job.result.rows, link)
            except StudioError as error:
                line = line or note(str(error), bad=True)
        return {
            self.seen: state,
            self.progress: line,
            self.findings: findings_html(self.workspace, dataset),
            self.worst: rows,
            self.stop: gr.update(interactive=running is not None),
        }

    def follow_base(self, last, side):
        """The size of the base that is chosen for training, unless a person typed another one."""
        base = base_models.chosen(self.workspace)
        if base == last[0]:
            return gr.skip()
        size = base_models.size_of(base)
        return {self.suggested: (base, size)} | ({self.resolution: size} if side == last[1] else {})

    @show_errors
    def fix(self, dataset, event: gr.EventData):
        kind, arg, selected = clicked(event)
        number, _, name = arg.partition(" ")
        if kind != "fix" or not number.isdigit():
            return gr.skip()
        found = datasets.findings_of(dataset) or []
        finding = found[int(number)] if int(number) < len(found) else None
        groups = finding.groups or (finding.files,) if finding else ()
        listed = [file for group in groups for file in group][: views.FEW]
        spared = [file for file in listed if f"{number} {file}" not in selected]
        change = datasets.mend(self.workspace, dataset, int(number), name, spared)
        if change.left:
            show_warning(DatasetError(change.left[0]))
        return {
            self.context.revision: datasets.stamp(self.workspace, dataset),
            self.findings: findings_html(self.workspace, dataset),
        }


def build(context: DatasetContext) -> Check:
    part = Check(context)
    part.wire()
    return part


def halt():
    stop_job("health")
    stop_job("score")


@show_errors
def open_image(dataset, event: gr.EventData):
    kind, arg, _ = clicked(event)
    return f"{dataset}/{arg}" if kind == "open" else gr.skip()


def links(workspace: Workspace, dataset):
    """A function that gives the address of an image's thumbnail, or None."""
    known = dataset.by_file()

    def link(file: str) -> str | None:
        return image_link(thumbnail(workspace, known[file].path)) if file in known else None

    return link


def findings_html(workspace: Workspace, dataset: str | None) -> str:
    """The findings of the dataset that is open; a note when another one was checked."""
    found = datasets.findings_of(dataset or "")
    if found is None:
        return NOTHING
    if not found:
        return WELL
    try:
        return views.findings(found, REMEDIES, links(workspace, datasets.view(workspace, dataset or "")))
    except StudioError as error:
        return note(str(error), bad=True)
