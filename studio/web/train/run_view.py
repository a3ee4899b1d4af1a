"""One run: how far it is, its loss, previews and warnings, and what can be done with it. A part of the Train tab."""

import time
from pathlib import Path
from typing import Any

import gradio as gr

from studio.services import run_library, runs, scorecards
from studio.services.thumbnails import LARGE, thumbnail
from studio.text import pluralize
from studio.training.difficulty import stamp_of
from studio.training.setting_groups import LABELS
from studio.web.components.clickable import clickable_html, clicked, image_link
from studio.web.components.fields import QUIET, gallery
from studio.web.components.html import empty, note
from studio.web.components.loss_chart import empty_chart, loss_chart
from studio.web.errors import show_errors
from studio.web.train import influence, run_details
from studio.web.train.context import TrainContext
from studio.web.train.controls import OFF
from studio.web.train.form import shown_in
from studio.web.train.run_html import (
    LARGE_JS,
    best_step,
    large_preview,
    preview_grid,
    run_card,
    run_notes,
    run_status,
    warnings_list,
)
from studio.web.train.scorecard_view import GO_JS

NO_RUN = empty("No run yet", "Choose a dataset and press Start. A first run of 200 steps takes minutes on a laptop.")
SHEET = 2048  # longest side of a contact sheet in pixels
CARDS = 3  # checkpoints that the button scores


class RunView:
    """The sub-tab. `outputs` are what `updates` answers for, beside the run's own drop-down.

    recipe   hidden: the preview whose recipe Generate is to take, see `run_library.preview_named`
    """

    def __init__(self, context: TrainContext):
        self.context, self.workspace, self.run = context, context.workspace, context.run
        with gr.Tab("This run", id="one", elem_id="tab-one") as context.run_tab:
            self.run.render()
            self.verdict = clickable_html("verdict", script=GO_JS, visible=False)
            self._tools()
            self.status = gr.HTML(NO_RUN, elem_id="status", padding=False)
            self.chart = gr.HTML(
                empty_chart("The loss is shown here during training."), elem_id="loss", visible=False, padding=False
            )
            self.heading = gr.Markdown("### Previews", elem_classes="heading", visible=False)
            self.previews = clickable_html("previews", visible=False)
            self.large = clickable_html("preview-large", script=LARGE_JS, padding=False)
            with gr.Accordion("Hardest images", open=False, visible=False, elem_id="hardest") as self.hardest:
                self.hardest_note = gr.HTML()
                self.hardest_images = gallery("hard-images")
                context.hardest = self.hardest, self.hardest_images
                influence.build(context)
            self.warnings = gr.HTML(elem_id="warnings", visible=False, padding=False)
            self.notes = gr.HTML(elem_id="run-notes", visible=False, padding=False)
            self.recipe = gr.Textbox(visible=False)
            with gr.Column(visible=False, elem_id="run-extras") as self.details:
                run_details.build(context)
        self.tools = [self.onward, self.download, self.resume, self.score, self.copy]
        shown = [self.verdict, self.chart, self.heading, self.previews, self.warnings, self.notes]
        self.below = [*shown, self.hardest, self.details]
        self.outputs = [self.status, *self.tools, self.extending, self.extend, *self.below]

    def _tools(self) -> None:
        with gr.Row(elem_classes="tools"):
            small: dict[str, Any] = {"size": "md", "visible": False, "scale": 0, "min_width": 100}
            self.onward = gr.Button("Try this adapter →", variant="primary", elem_id="to-generate", **small)
            self.download = gr.DownloadButton("Download adapter", elem_id="download", **small)
            self.resume = gr.Button("Resume this run", elem_id="resume", **small)
            self.score = gr.Button("Score checkpoints", elem_id="score-run", **small)
            self.copy = gr.Button("Copy settings", elem_id="copy-settings", **small)
            with gr.Row(visible=False, elem_classes="more", elem_id="extend") as self.extending:
                self.more = gr.Number(
                    100, precision=0, show_label=False, container=False, min_width=80, elem_id="more-steps"
                )
                self.extend = gr.Button("More steps", size="md", min_width=110, elem_id="go-on")

    def wire(self) -> None:
        form, message = self.context.form, self.context.message
        self.resume.click(self.resume_run, self.run, [self.resume, message], **QUIET)
        self.score.click(self.score_run, self.run, [self.score, message], **QUIET)
        self.extend.click(self.extend_run, [self.run, self.more], [self.extending, message], **QUIET)
        form.panel.mark_after(self.copy.click(self.copy_settings, self.run, [*form.inputs, message], **QUIET))
        self.previews.click(self.enlarge, self.run, self.large, **QUIET)
        self.large.click(self.take_recipe, self.run, self.recipe, **QUIET)
        self.hardest.expand(self.show_hardest, self.run, [self.hardest_note, self.hardest_images], **QUIET)

    @show_errors
    def resume_run(self, name):
        runs.resume_training(self.workspace, name or "")
        return {self.resume: OFF, self.context.message: note(f"{name}: resuming from its last checkpoint.")}

    @show_errors
    def score_run(self, name):
        scorecards.score_run(self.workspace, name or "", CARDS)
        message = note(f"{name}: its checkpoints are being scored; the verdict appears above.")
        return {self.score: OFF, self.context.message: message}

    @show_errors
    def extend_run(self, name, steps):
        runs.extend_training(self.workspace, name, steps)
        message = note(f"{name}: continuing from its last step.")
        return {self.extending: gr.update(visible=False), self.context.message: message}

    @show_errors
    def copy_settings(self, chosen):
        form, values = self.context.form, runs.run_settings(self.workspace, chosen)
        message = note(f"The settings of {chosen} are in the form.")
        return shown_in(form, self.workspace, values) | {form.name: chosen, self.context.message: message}

    def show_hardest(self, name):
        cells = [
            (str(thumbnail(self.workspace, item.path)), f"{hard:.1f} × the usual loss · {item.caption or 'no caption'}")
            for item, hard in runs.hardest_of(self.workspace, name or "", outlying=True)
        ]
        text = "Their loss against that of the others at the same timesteps: check their captions, and for odd images."
        return {
            self.hardest_note: note(text) if cells else "",
            self.hardest_images: gr.update(value=cells, visible=bool(cells)),
        }

    def nothing(self) -> dict[Any, Any]:
        """Updates for no run."""
        parts = [self.run, *self.tools, self.extending, *self.below]
        return dict.fromkeys(parts, gr.update(visible=False)) | {self.status: NO_RUN}

    def updates(self, view, idle: bool, last: dict) -> tuple[dict[Any, Any], dict]:
        """(updates that show the run, what was shown). last: what was shown before; idle: nothing holds the device."""
        ready = bool(view.adapter) and view.state not in ("running", "paused")
        copy = runs.download_copy(self.workspace, view.name) if ready else None
        chart = loss_chart(view.losses, view.validations, view.steps, best_step(view))
        notes = run_notes(view)
        updates = {
            self.status: run_status(view, docked=view.name == runs.current_run()),
            self.chart: gr.update(value=chart, visible=True),
            self.notes: gr.update(value=notes, visible=bool(notes)),
            self.onward: gr.update(visible=ready),
            self.download: gr.update(visible=ready, value=str(copy) if copy else None),
            self.resume: gr.update(visible=view.state in runs.UNFINISHED, interactive=idle),
            self.score: gr.update(visible=ready, interactive=idle),
            **dict.fromkeys((self.copy, self.details), gr.update(visible=True)),
            self.extending: gr.update(visible=view.state == "finished"),
            self.extend: gr.update(interactive=idle),
        }
        sentence = view.verdict.sentence if view.verdict else ""
        going = (view.preparing, bool(view.steps), len(view.validations))
        shown = {
            "previews": (view.name, len(view.previews), view.previews[-1][0] if view.previews else 0),
            "warnings": (view.name, len(view.warnings)),
            "verdict": (view.name, view.state, len(view.scores), sentence, *going),
            "hardest": (view.name, stamp_of(self.workspace.runs / view.name)),
        }
        if shown["previews"] != last.get("previews"):
            updates |= self._previews(view)
        if shown["verdict"] != last.get("verdict"):  # else its table would close itself each second
            html = run_card(view, LABELS, folder=self.workspace.runs / view.name, link=self._sheet)
            updates[self.verdict] = gr.update(value=html, visible=True)
        if shown["warnings"] != last.get("warnings"):  # else it would close itself each second
            html = warnings_list(view.warnings)
            updates[self.warnings] = gr.update(value=html, visible=bool(view.warnings))
        if shown["hardest"] != last.get("hardest"):
            updates |= self._hardest(view.name, bool(shown["hardest"][1]))
        return updates, shown

    def _hardest(self, name: str, known: bool) -> dict[Any, Any]:
        """Closed; its line says whether any image is unlike the rest."""
        odd = len(runs.hardest_of(self.workspace, name, outlying=True)) if known else 0
        title = f"{pluralize(odd, 'image')} much harder than the rest" if odd else "No image much harder than the rest"
        return {self.hardest: gr.update(visible=known, open=False, label=title)}

    def _sheet(self, file: Path) -> str:
        return image_link(thumbnail(self.workspace, file, SHEET))

    def _previews(self, view) -> dict[Any, Any]:
        rows = run_library.timeline(self.workspace, view.name, view)
        files = {(step, prompt): Path(file).stem for step, prompt, file in view.previews}
        html, there = preview_grid(rows, files), gr.update(visible=bool(rows))
        return {self.previews: gr.update(value=html, visible=bool(rows)), self.heading: there}

    @show_errors
    def enlarge(self, name, event: gr.EventData):
        """A preview was clicked: it is shown large over the page."""
        act, arg, _ = clicked(event)
        path = run_library.preview_file(self.workspace, name or "", arg) if act == "enlarge" else None
        if path is None:
            return gr.skip()
        known = {file.name: prompt for _, prompt, file in runs.view_of(self.workspace, name).previews}
        image = thumbnail(self.workspace, path, LARGE)
        return large_preview(image, path.stem, known.get(path.name, ""), time.monotonic())

    def take_recipe(self, name, event: gr.EventData):
        """Open in Generate."""
        act, arg, _ = clicked(event)
        return run_library.preview_name(name, arg) if act == "generate" and name else gr.skip()


def build(context: TrainContext) -> RunView:
    """The sub-tab. The form is built before it."""
    part = RunView(context)
    part.wire()
    return part
