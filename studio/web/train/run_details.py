"""What belongs to the run that is shown: its timeline of previews, a note, its files, and publishing it."""

from html import escape

import gradio as gr

from studio.services import publishing, run_library, runs
from studio.services.jobs import stop_job
from studio.text import size
from studio.web.components.clickable import clickable_html
from studio.web.components.fields import QUIET
from studio.web.components.html import note, progress_bar
from studio.web.errors import show_errors
from studio.web.train import reproduce, views, words
from studio.web.train.context import TrainContext
from studio.web.train.views import TIMELINE_JS
from studio.workspace import Workspace

NOTHING = {"run": "", "note": ""}


class Timeline:
    """A closed slider through the run's previews, filled when it is opened."""

    def __init__(self, context: TrainContext):
        self.workspace, self.run = context.workspace, context.run
        with gr.Accordion("Timeline of previews", open=False, elem_id="through-time") as self.part:
            self.timeline = clickable_html("run-timeline", script=TIMELINE_JS)

    def wire(self) -> None:
        self.part.expand(self.fill, self.run, self.timeline, **QUIET)
        self.run.change(lambda: gr.update(open=False), None, self.part, **QUIET)

    def fill(self, name):
        courses = run_library.courses(self.workspace, [name or ""])
        return views.timeline([(one, run_library.timeline(self.workspace, one, how)) for one, how in courses])


class NoteAndFiles:
    """Closed: a note that is saved when the field is left, run.toml, the folder, and delete.

    loaded   the run whose note is in the field, and that note
    """

    def __init__(self, context: TrainContext):
        self.workspace, self.run = context.workspace, context.run
        self.loaded = gr.State(NOTHING)
        with gr.Accordion("Note and files", open=False, elem_id="note-and-files"):
            self.note = gr.Textbox(
                label="Note",
                info="Saved when you leave the field.",
                lines=2,
                max_lines=8,
                elem_id="run-note",
                interactive=True,
            )
            self.folder = gr.Textbox(
                label="Folder",
                interactive=False,
                buttons=["copy"],
                visible=self.workspace.allows.folders,
                elem_id="run-folder",
            )
            with gr.Row(elem_classes="tools"):
                self.export = gr.DownloadButton(
                    "Download run.toml", size="md", elem_id="run-toml", scale=0, min_width=160
                )
                self.delete = gr.Button("Delete this run", size="md", elem_id="delete-run", scale=0, min_width=150)

    def wire(self) -> None:
        self.run.change(self.load, self.run, [self.loaded, self.note, self.folder, self.export], **QUIET)
        self.note.blur(self.save, [self.note, self.loaded], self.loaded, **QUIET)
        self.delete.click(self.move_to_trash, self.run, None, **QUIET)

    @show_errors
    def load(self, name):
        if not name:
            return {self.loaded: NOTHING, self.note: "", self.folder: ""}
        text = run_library.note_of(self.workspace, name)
        folder = run_library.folder_of(self.workspace, name) if self.workspace.allows.folders else ""
        return {
            self.loaded: {"run": name, "note": text},
            self.note: text,
            self.folder: folder,
            self.export: str(run_library.settings_file(self.workspace, name)),
        }

    @show_errors
    def save(self, text, before):
        if not before["run"] or text == before["note"]:
            return gr.skip()
        run_library.note_run(self.workspace, before["run"], text)
        return before | {"note": text}

    @show_errors
    def move_to_trash(self, name):
        run_library.move_to_trash(self.workspace, [name] if name else [])
        gr.Info(escape(f"{name} is in the trash: restore it under All runs."), title="Deleted", duration=8)


class Publish:
    """Closed: the run as a model on the Hugging Face Hub. Prepare makes the folder, Publish also uploads it."""

    def __init__(self, context: TrainContext):
        self.context, self.workspace, self.run = context, context.workspace, context.run
        self.seen, self.timer = gr.State(None), gr.Timer(1, active=False)  # it ticks while something is published
        with gr.Accordion("Publish to the Hugging Face Hub", open=False, elem_id="publish"):
            self._fields()
            with gr.Row(elem_classes="tools"):
                self.prepare = gr.Button("Prepare", size="md", elem_id="prepare", scale=0, min_width=110)
                self.send = gr.Button("Publish", size="md", variant="primary", elem_id="send", scale=0, min_width=110)
                self.stop = gr.Button(
                    "Stop", size="md", visible=False, elem_id="stop-publishing", scale=0, min_width=80
                )
            self.report = gr.HTML(elem_id="published")

    def _fields(self) -> None:
        with gr.Row():
            self.repo = gr.Textbox(
                label="Model", placeholder="owner/name", max_lines=1, elem_id="publish-repo", min_width=180
            )
            self.licence = gr.Dropdown(
                ["", *_licences()],
                value="",
                label="Licence",
                info="Empty: none is named.",
                allow_custom_value=True,
                elem_id="publish-licence",
                min_width=160,
            )
        self.triggers = gr.Textbox(
            label="Trigger words", info="Separated by commas.", max_lines=1, elem_id="publish-triggers"
        )
        self.about = gr.Textbox(
            label="Description", info="Markdown, on top of the model card.", lines=2, elem_id="publish-about"
        )
        own = " Empty: HF_TOKEN." if self.workspace.allows.folders else ""
        self.token = gr.Textbox(
            label="Token",
            info=f"With write access. It is used once and not stored.{own}",
            type="password",
            max_lines=1,
            elem_id="publish-token",
        )
        self.private = gr.Checkbox(True, label="Private", info="Only you see it until you open it.", elem_id="private")

    def wire(self) -> None:
        fields = [self.run, self.repo, self.licence, self.triggers, self.about, self.private]
        begun = [self.stop, self.report, self.seen, self.token, self.timer]
        self.prepare.click(self.start_preparing, fields, begun, **QUIET)
        self.send.click(self.start_publishing, [*fields, self.token], begun, **QUIET)
        self.stop.click(halt, None, None, **QUIET)
        self.run.change(self.trigger_words, self.run, self.triggers, **QUIET)
        for event in (self.timer.tick, self.context.demo.load):
            watched = [self.seen, self.stop, self.report, self.timer]
            event(self.watch, self.seen, watched, concurrency_limit=None, **QUIET)

    @show_errors
    def start_preparing(self, *values):
        return self._started(*values, send=False)

    @show_errors
    def start_publishing(self, *values):
        return self._started(*values[:-1], send=True, token=values[-1])

    def _started(self, run, repo, licence, triggers, about, private, *, send: bool, token: str | None = ""):
        publishing.publish_run(self.workspace, run, repo, licence, triggers, about, private, send, token or "")
        return {
            self.stop: gr.update(visible=True),
            self.report: note("Starting."),
            self.seen: None,
            self.token: "",
            self.timer: gr.Timer(active=True),
        }

    def watch(self, last):
        job, name = publishing.newest_publishing()
        now = job and (id(job), job.state, job.done, job.message)
        if now == last or job is None:
            return gr.skip()
        active = job.state == "running"
        return {
            self.seen: now,
            self.stop: gr.update(visible=active),
            self.timer: gr.Timer(active=active),
            self.report: published(self.workspace, job, name),
        }

    @show_errors
    def trigger_words(self, name):
        return ", ".join(runs.trigger_words(self.workspace, name)) if name else ""


def build(context: TrainContext) -> None:
    """The closed parts below a run."""
    words.build(context)
    reproduce.build(context)
    parts: list[Timeline | NoteAndFiles | Publish] = [Timeline(context), NoteAndFiles(context)]
    if context.workspace.allows.publish:
        parts.append(Publish(context))
    for part in parts:
        part.wire()


def halt():
    stop_job("publish")


def _licences() -> tuple[str, ...]:
    from studio.training.publishing import LICENCES

    return LICENCES


def published(workspace: Workspace, job, name: str) -> str:
    """How far a publishing job is, and at its end what it made."""
    if job.state == "running":
        return progress_bar(job.done, job.total) + note(job.message)
    if job.state == "failed":
        line = note(job.error or "", bad=True)
    else:
        line = note(job.message)
    made = job.result
    if not made:
        return line
    if made.address:
        line += f'<div class="note"><a href="{escape(made.address)}" target="_blank">{escape(made.address)}</a></div>'
    where = note(f"In {made.folder}") if workspace.allows.folders else ""
    rows = "".join(f"<li>{escape(file)} <small>{size(count)}</small></li>" for file, count in made.files)
    return (
        f'{line}<details class="card-of" open><summary>What is published of {escape(name)}</summary>{where}'
        f'<ul class="message-list">{rows}</ul><pre class="mono">{escape(made.card)}</pre></details>'
    )
