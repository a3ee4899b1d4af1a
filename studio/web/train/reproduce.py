"""Reproduce a run: its file, another one's file to train again, and whether the two are the same. A closed part."""

import gradio as gr

from studio.errors import StudioError
from studio.services import datasets, reruns, runs
from studio.web.components.fields import QUIET
from studio.web.components.html import first_lines, note
from studio.web.errors import show_errors
from studio.web.train.context import TrainContext

ABOUT = (
    "One file holds the settings of this run, hashes of its images, captions and base, versions, losses and scores. "
    "Trained again from it, here or elsewhere, a run is compared bit for bit."
)


class Reproduce:
    """seen: what this page has shown of the comparison."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace, self.run = context, context.workspace, context.run
        self.seen, self.timer = gr.State(""), gr.Timer(3, active=False)  # while a run that repeats another one goes on
        with gr.Accordion("Reproduce", open=False, elem_id="reproduce") as self.part:
            gr.HTML(note(ABOUT))
            self.comparison = gr.HTML(elem_id="rerun-comparison")
            self.download = gr.DownloadButton(
                "Download rerun file", size="md", elem_id="rerun-file", scale=0, min_width=190
            )
            self.file = gr.File(
                label="A rerun file to train again", file_types=[".json"], elem_id="rerun-upload", height=110
            )
            self.dataset = gr.Dropdown(
                label="Its images",
                info="Empty: the dataset of that name.",
                choices=[],
                allow_custom_value=True,
                elem_id="rerun-dataset",
            )
            with gr.Row(elem_classes="tools"):
                small = {"size": "md", "scale": 0, "min_width": 150}
                self.check = gr.Button("What differs?", elem_id="rerun-check", **small)
                self.begin = gr.Button("Train again", elem_id="rerun-begin", **small)
                self.anyway = gr.Checkbox(False, label="Even if it can't be the same", elem_id="rerun-anyway")
            self.report = gr.HTML(elem_id="rerun-report")

    def wire(self) -> None:
        compared = [self.comparison, self.seen, self.timer]
        given = [self.file, self.dataset]
        self.part.expand(self.fill, self.run, [self.download, self.dataset, self.report, *compared], **QUIET)
        self.run.change(lambda: gr.update(open=False), None, self.part, **QUIET)
        self.check.click(self.say_what_differs, given, self.report, **QUIET)
        self.begin.click(self.start, [*given, self.anyway], [self.report, self.timer], **QUIET)
        self.timer.tick(self.watch, [self.run, self.seen], compared, concurrency_limit=None, **QUIET)

    def fill(self, name):
        """The part was opened."""
        names = ["", *(value for _, value in datasets.dataset_choices(self.workspace))]
        updates = {self.dataset: gr.update(choices=names, value=""), self.report: ""}
        try:
            file = str(reruns.export_rerun(self.workspace, name or ""))
            updates[self.download] = gr.update(value=file, interactive=True)
        except StudioError as error:
            updates[self.download] = gr.update(value=None, interactive=False)
            updates[self.report] = note(str(error))
        return updates | self.watch(name, None)

    @show_errors
    def say_what_differs(self, file, dataset):
        found = reruns.check_rerun(self.workspace, file, dataset or "")
        if not found["differences"]:
            return note("Images, captions, base, versions and device are those of the run.")
        end = "" if found["can_be_the_same"] else "\nSo it can't be the same run."
        return first_lines(found["differences"], bad=bool(end)) + note(end.strip())

    @show_errors
    def start(self, file, dataset, anyway):
        name = reruns.reproduce_run(self.workspace, file, dataset or "", anyway=bool(anyway))
        return {self.report: note(f"{name} is being trained."), self.timer: gr.Timer(active=True)}

    def watch(self, name, last):
        """The comparison of the run that is shown, if it repeats another one."""
        html, going = self.compared(name or "")
        if html == last and going:
            return gr.skip()
        return {self.comparison: html, self.seen: html, self.timer: gr.Timer(active=going)}

    def compared(self, name: str) -> tuple[str, bool]:
        """(the comparison, whether the run goes on)."""
        try:
            found = reruns.comparison_of(self.workspace, name) if name else None
            going = name == runs.current_run()
        except StudioError as error:
            return note(str(error), bad=True), False
        return (note(found.sentence, bad=not found.is_same), going) if found else ("", False)


def build(context: TrainContext) -> None:
    Reproduce(context).wire()
