"""What belongs to the run that is shown: its previews through time, a note, its files, and publishing it."""

from collections.abc import Callable
from html import escape

import gradio as gr

from studio.services import publishing, run_library, runs
from studio.services.jobs import stop_job
from studio.text import size
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import note, progress_bar
from studio.web.errors import show_errors
from studio.web.train import views
from studio.web.train.views import FILM_JS
from studio.workspace import Workspace

NOTHING = {"run": "", "note": ""}


def previews_through_time(workspace: Workspace, run: gr.Dropdown) -> None:
    """A folded slider through the run's previews, filled when it is opened."""
    with gr.Accordion("Previews through training time", open=False, elem_id="through-time") as part:
        film = gr.HTML(elem_id="film-of-run", elem_classes="board", html_template="${value}", js_on_load=FILM_JS)

    def fill(name):
        courses = run_library.courses(workspace, [name or ""])
        return views.film([(one, run_library.film(workspace, one, how)) for one, how in courses])

    quiet = {**NO_PROGRESS, **PRIVATE}
    part.expand(fill, run, film, **quiet)
    run.change(lambda: gr.update(open=False), None, part, **quiet)


def note_and_files(workspace: Workspace, run: gr.Dropdown) -> None:
    """Folded: a note that is saved when the field is left, run.toml, the folder, and delete."""
    loaded = gr.State(NOTHING)  # the run whose note stands in the field, and what it was
    with gr.Accordion("Note and files", open=False, elem_id="note-and-files"):
        words = gr.Textbox(
            label="Note", info="Saved when you leave the field.", lines=2, max_lines=8, elem_id="run-note",
            interactive=True,
        )  # fmt: skip
        place = gr.Textbox(
            label="Folder", interactive=False, buttons=["copy"], visible=workspace.allows.folders, elem_id="run-folder"
        )
        with gr.Row(elem_classes="tools"):
            export = gr.DownloadButton("Download run.toml", size="md", elem_id="run-toml", scale=0, min_width=160)
            delete = gr.Button("Delete this run", size="md", elem_id="delete-run", scale=0, min_width=150)

    @show_errors
    def load(name):
        if not name:
            return NOTHING, "", "", gr.skip()
        text = run_library.note_of(workspace, name)
        where = run_library.folder_of(workspace, name) if workspace.allows.folders else ""
        return {"run": name, "note": text}, text, where, str(run_library.settings_file(workspace, name))

    @show_errors
    def save(text, before):
        if not before["run"] or text == before["note"]:
            return gr.skip()
        run_library.note_run(workspace, before["run"], text)
        return before | {"note": text}

    @show_errors
    def move_to_trash(name):
        run_library.move_to_trash(workspace, [name] if name else [])
        gr.Info(escape(f"{name} is in the bin: All runs has it, with Undo."), title="Deleted", duration=8)

    quiet = {**NO_PROGRESS, **PRIVATE}
    run.change(load, run, [loaded, words, place, export], **quiet)
    words.blur(save, [words, loaded], loaded, **quiet)
    delete.click(move_to_trash, run, None, **quiet)


def publish_form(workspace: Workspace, run: gr.Dropdown, demo: gr.Blocks) -> None:
    """Folded: the run as a model on the Hugging Face Hub. Prepare makes the folder, Publish also sends it."""
    if not workspace.allows.publish:
        return
    seen, timer = gr.State(None), gr.Timer(1, active=False)  # it ticks while something is being published
    with gr.Accordion("Publish to the Hugging Face Hub", open=False, elem_id="publish"):
        with gr.Row():
            repo = gr.Textbox(
                label="Model", placeholder="owner/name", max_lines=1, elem_id="publish-repo", min_width=180
            )
            licence = gr.Dropdown(
                ["", *_licences()], value="", label="Licence", info="Empty: none is said.", allow_custom_value=True,
                elem_id="publish-licence", min_width=160,
            )  # fmt: skip
        triggers = gr.Textbox(
            label="Trigger words", info="With commas between them.", max_lines=1, elem_id="publish-triggers"
        )
        about = gr.Textbox(label="About it", info="Markdown, on top of the card.", lines=2, elem_id="publish-about")
        own = " Empty: HF_TOKEN." if workspace.allows.folders else ""
        token = gr.Textbox(
            label="Token", info=f"One that may write. It is used once and kept nowhere.{own}", type="password",
            max_lines=1, elem_id="publish-token",
        )  # fmt: skip
        private = gr.Checkbox(True, label="Private", info="Only you see it until you open it.", elem_id="private")
        with gr.Row(elem_classes="tools"):
            prepare = gr.Button("Prepare", size="md", elem_id="prepare", scale=0, min_width=110)
            send = gr.Button("Publish", size="md", variant="primary", elem_id="send", scale=0, min_width=110)
            stop = gr.Button("Stop", size="md", visible=False, elem_id="stop-publishing", scale=0, min_width=80)
        told = gr.HTML(elem_id="published")

    fields = [run, repo, licence, triggers, about, private]

    def begin(with_upload: bool) -> Callable:
        @show_errors
        def handler(name, model, licensed, words, text, closed, secret=""):
            publishing.publish_run(workspace, name, model, licensed, words, text, closed, with_upload, secret or "")
            return gr.update(visible=True), note("Starting."), None, "", gr.Timer(active=True)

        return handler

    def watch(last):
        job, name = publishing.newest_publishing()
        now = job and (id(job), job.state, job.done, job.message)
        if now == last or job is None:
            return [gr.skip()] * 4
        going = job.state == "running"
        return now, gr.update(visible=going), _told(workspace, job, name), gr.Timer(active=going)

    @show_errors
    def trigger_of(name):
        return runs.run_settings(workspace, name)["data.trigger"] if name else ""

    def halt():
        stop_job("publish")

    quiet = {**NO_PROGRESS, **PRIVATE}
    prepare.click(begin(False), fields, [stop, told, seen, token, timer], **quiet)
    send.click(begin(True), [*fields, token], [stop, told, seen, token, timer], **quiet)
    stop.click(halt, None, None, **quiet)
    run.change(trigger_of, run, triggers, **quiet)
    for event in (timer.tick, demo.load):
        event(watch, seen, [seen, stop, told, timer], concurrency_limit=None, **quiet)


def _licences() -> tuple[str, ...]:
    from studio.training.publishing import LICENCES

    return LICENCES


def _told(workspace: Workspace, job, name: str) -> str:
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
        f'<ul class="told">{rows}</ul><pre class="mono">{escape(made.card)}</pre></details>'
    )
