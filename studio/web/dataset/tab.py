"""The Dataset tab: bring pictures in, look at them, check them, caption them, hand them on.

Its sub-tabs are files of their own. They follow `revision`, a text that changes with every change of the set that is
open, whoever made it.
"""

from contextlib import suppress
from dataclasses import dataclass

import gradio as gr

from studio.errors import StudioError
from studio.services import captioning, datasets
from studio.services.jobs import latest, running, stop_job
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import note, progress_bar
from studio.web.components.polling import Beat
from studio.web.dataset.bulk_edit import bulk_board
from studio.web.dataset.captioners import captioner_form, comparison
from studio.web.dataset.check import check_board
from studio.web.dataset.history import past_board, undo_bar
from studio.web.dataset.images import filter_of, picture_pages
from studio.web.errors import show_errors
from studio.workspace import Workspace

KINDS = {
    "Zip, captions as .txt": "zip",
    "Folder, captions as .txt": "sidecars",
    "Folder, captions in metadata.jsonl": "metadata.jsonl",
}

# This browser remembers which set was open.
RECALL_JS = "() => { try { return localStorage.studioDataset || null; } catch { return null; } }"
REMEMBER_JS = "name => { try { localStorage.studioDataset = name || ''; } catch {} }"

# What the watchers below last showed, set back when something starts: a job that is done before "Starting." arrives
# would otherwise count as shown.
NOT_YET = ()


@dataclass(frozen=True)
class DatasetTab:
    """What the other tabs need: the chooser, and the button that goes on to training."""

    choice: gr.Dropdown
    onward: gr.Button


def dataset_tab(workspace: Workspace, demo: gr.Blocks, timer: Beat, local: bool) -> DatasetTab:
    """Build the tab inside the caller's gr.Tab. local: only this machine sees the page, so folders may be typed."""
    revision, asked = gr.State(""), gr.State("")
    seen, came, gone = gr.State(None), gr.State(None), gr.State(None)
    recalled = gr.Textbox(visible=False)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            choice = gr.Dropdown(
                label="Dataset", info="Yours, or a sample to try things with.", choices=[], elem_id="dataset"
            )
            with gr.Accordion("Add your own pictures", open=False, elem_id="add-pictures"):
                name = gr.Textbox(label="Name", placeholder="my-pictures", max_lines=1, elem_id="dataset-name")
                drop = gr.File(
                    label="Pictures or a zip",
                    file_count="multiple",
                    height=140,
                    elem_id="drop-pictures",
                    elem_classes="drop",
                )
                folder = gr.Textbox(
                    label="Or a folder on this machine",
                    info="Also kohya's 10_name folders and Hugging Face's imagefolder. It is copied, not changed.",
                    max_lines=1,
                    visible=local,
                    elem_id="import-folder",
                )
                with gr.Row():
                    add = gr.Button("Add to this dataset", size="md", elem_id="add", min_width=140)
                    stop_add = gr.Button("Stop", size="md", visible=False, elem_id="stop-add", min_width=70)
                added = gr.HTML(elem_id="added")
            gr.Markdown("### Captions", elem_classes="heading")
            form = captioner_form()
            trigger = gr.Textbox(
                label="Trigger word",
                info="Optional. Put in front of every caption; use it in a prompt to call what was learned.",
                max_lines=1,
                elem_id="trigger",
            )
            word = gr.HTML(elem_id="trigger-report")
            with gr.Row():
                caption_all = gr.Button("Caption", variant="primary", elem_id="caption-all", min_width=120)
                stop = gr.Button("Stop", interactive=False, elem_id="stop-captions", min_width=80)
            progress = gr.HTML(elem_id="caption-progress")
            with gr.Accordion("Export", open=False, elem_id="export"):
                kind = gr.Dropdown(  # a folder lies where only this machine finds it
                    label="As", choices=list(KINDS), value=next(iter(KINDS)), visible=local, elem_id="export-kind"
                )
                background = gr.Textbox(
                    label="Background for transparent pictures",
                    info="A colour, like white or #808080; empty: they stay transparent.",
                    max_lines=1,
                    elem_id="export-background",
                )
                export = gr.Button("Export", elem_id="export-go")
                exported = gr.HTML(elem_id="exported")
                file = gr.File(label="The zip", visible=False, interactive=False, elem_id="export-file")
            onward = gr.Button("Train on this dataset →", size="md", elem_id="to-train")
        with gr.Column(scale=10, min_width=320):
            undo_bar(workspace, choice, revision)
            with gr.Tabs(elem_id="dataset-tabs") as tabs:
                with gr.Tab("Pictures", id="pictures", elem_id="tab-pictures"):
                    pages = picture_pages(workspace, demo, choice, revision, asked)
                with gr.Tab("Check", id="check", elem_id="tab-check", render_children=True):
                    check_board(workspace, choice, trigger, revision, asked, timer)
                with gr.Tab("Edit many", id="many", elem_id="tab-many", render_children=True):
                    bulk_board(workspace, choice, revision, pages.filters, filter_of, pages.has_tag)
                with gr.Tab("Compare captioners", id="compare", elem_id="tab-compare", render_children=True):
                    comparison(workspace, choice, pages.shown, form, timer)
                with gr.Tab("History", id="past", elem_id="tab-past", render_children=True):
                    past_board(workspace, choice, revision)

    def load_choices():
        return gr.update(choices=datasets.dataset_choices(workspace))  # no value: the person may be choosing one now

    @show_errors
    def open_dataset(dataset):
        if not dataset:
            return gr.skip(), gr.skip(), gr.skip()
        opened = datasets.view(workspace, dataset, again=True)
        datasets.make_thumbnails(workspace, opened)
        choices = gr.update(choices=datasets.dataset_choices(workspace), value=opened.name)
        return choices, datasets.stamp(workspace, opened.name), gr.Tabs(selected="pictures")

    @show_errors
    def reopen(last):
        if last in (name for _, name in datasets.dataset_choices(workspace)):
            return open_dataset(last)
        return load_choices(), gr.skip(), gr.skip()

    @show_errors
    def start_import(files, typed, wanted, current):
        datasets.start_import(workspace, wanted or current or "", files or [], (typed or "").strip())
        return note("Starting."), NOT_YET

    @show_errors
    def caption_everything(dataset, word, *chosen):
        captioning.caption_dataset(workspace, dataset, word or "", **form.chosen(*chosen))
        return gr.update(interactive=False), gr.update(interactive=True), note("Starting."), NOT_YET

    @show_errors
    def start_export(dataset, wanted, colour):
        datasets.export_dataset(workspace, dataset, colour or "", kind=KINDS.get(wanted, ""))
        return note("Starting."), NOT_YET

    def judge(candidate):
        if not (candidate or "").strip():
            return ""
        with suppress(StudioError):
            return note(captioning.trigger_report(workspace, candidate).message)
        return ""

    def halt_import():
        stop_job("import")

    def halt_captions():
        stop_job("caption")

    # What goes on, asked at each beat; they say nothing when nothing is new ----------------------------------------

    def watch(last, dataset):
        """Captioning, and whether the set changed, here or on another page."""
        newest, busy, active = (
            latest.get("caption"),
            running(),
            running("caption"),
        )
        now = datasets.stamp(workspace, dataset or "")
        if active and newest and newest.name == dataset and datasets.is_large(workspace, dataset):
            now = last[0] if last else now  # its grid follows at the end
        job = newest.job if newest else None
        state = now, busy and id(busy), job and (id(job), job.state, job.done, job.message)
        if state == last:
            return [gr.skip()] * 5
        return (
            state,
            gr.update(interactive=busy is None),
            gr.update(interactive=active is not None),
            _told(job) if job else gr.skip(),
            now,
        )

    def watch_import(last):
        job = latest["import"].job if "import" in latest else None
        state = ("none",) if job is None else (id(job), job.state, job.done)
        if state == last:
            return [gr.skip()] * 6
        if job is None:
            return state, *[gr.skip()] * 5
        told, halting = _told(job), gr.update(visible=job.state == "running")
        if last is None or job.state == "running" or not job.result:
            return state, told, halting, gr.skip(), gr.skip(), gr.skip()
        name = job.result[0]
        with suppress(StudioError):
            datasets.make_thumbnails(workspace, datasets.view(workspace, name))
        choices = gr.update(choices=datasets.dataset_choices(workspace), value=name)
        return state, told, halting, choices, None, datasets.stamp(workspace, name)

    def watch_export(last):
        job = latest["export"].job if "export" in latest else None
        state = job and (id(job), job.state, job.done)
        if state == last or job is None:
            return [gr.skip()] * 3
        zipped = str(job.result) if job.result and job.result.suffix == ".zip" else None
        return state, _told(job), gr.update(value=zipped, visible=zipped is not None)

    quiet = {**NO_PROGRESS, **PRIVATE}
    for event in (timer.tick, demo.load):
        event(watch, [seen, choice], [seen, caption_all, stop, progress, revision], concurrency_limit=None, **quiet)
        event(watch_import, came, [came, added, stop_add, choice, drop, revision], concurrency_limit=None, **quiet)
        event(watch_export, gone, [gone, exported, file], concurrency_limit=None, **quiet)
    demo.load(reopen, recalled, [choice, revision, tabs], js=RECALL_JS, **quiet)
    choice.change(None, choice, None, js=REMEMBER_JS, **quiet)
    choice.focus(load_choices, None, choice, **quiet)
    choice.input(open_dataset, choice, [choice, revision, tabs], **quiet)
    add.click(start_import, [drop, folder, name, choice], [added, came], **quiet)
    stop_add.click(halt_import, None, None, **quiet)
    caption_all.click(caption_everything, [choice, trigger, *form.inputs], [caption_all, stop, progress, seen],
                      **quiet)  # fmt: skip
    stop.click(halt_captions, None, None, **quiet)
    trigger.change(judge, trigger, word, trigger_mode="always_last", **quiet)
    export.click(start_export, [choice, kind, background], [exported, gone], **quiet)
    asked.change(lambda key: gr.Tabs(selected="pictures") if key else gr.skip(), asked, tabs, **quiet)
    return DatasetTab(choice, onward)


def _told(job) -> str:
    """A job of the tab in a bar and a line or two."""
    if job.state == "running":
        return progress_bar(job.done, job.total) + note(f"{job.title}: {job.done:,} of {job.total:,}\n{job.message}")
    if job.state == "failed":
        return note(job.error or "", bad=True)
    skipped = job.result[1] if job.kind == "import" and job.result else []
    return note("\n".join([job.message, *(f"Skipped {line}" for line in skipped)]))
