"""The About tab: what works on this machine, what takes room, which versions, whose licences."""

import time
from collections.abc import Mapping
from html import escape

import gradio as gr

from studio import __version__
from studio.server.settings import Settings
from studio.server.visitors import LIFE
from studio.services import system
from studio.services.jobs import jobs
from studio.text import pluralize, size
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import note
from studio.web.components.polling import Beat
from studio.web.errors import show_errors
from studio.workspace import Workspace

FOLDERS = {
    "datasets": "pictures and captions, with their history",
    "runs": "what was trained, with previews and checkpoints",
    "outputs": "pictures that were drawn",
    "adapters": "adapter files that were dropped",
    "exports": "zips and folders that were written",
    "cache": "encoded pictures and thumbnails, made again when needed",
    system.ASIDE: "deleted pictures, adapters and runs, which can be taken back",
}
LICENCES = (
    "The studio's code and its starter model are under the Apache License 2.0. The art in the samples keeps its own "
    "open licences, listed in `assets/NOTICE`. Base models, captioners and adapters from elsewhere have licences of "
    "their own: they decide what you may do with what you make. `README.md` says how everything works."
)
SWITCH_JS = """() => {
  const dark = document.body.classList.toggle('dark');
  try { localStorage.studioLook = dark ? 'dark' : 'light'; } catch {}
}"""
LOOK_JS = """() => {
  try {
    if (localStorage.studioLook) document.body.classList.toggle('dark', localStorage.studioLook === 'dark');
  } catch {}
}"""
# The clipboard proper is kept from pages that come over plain http.
COPY_JS = """() => {
  const range = document.createRange(), selection = getSelection();
  range.selectNodeContents(document.querySelector('#machine pre'));
  selection.removeAllRanges();
  selection.addRange(range);
  document.execCommand('copy');
}"""


def about_tab(
    workspace: Workspace, settings: Settings, tab: gr.Tab, demo: gr.Blocks, timer: Beat, emptied: gr.Number
) -> None:
    """Build the tab inside the caller's gr.Tab. The machine is looked at when the tab is opened, not before.

    emptied: hidden, given another number when what was deleted is gone for good
    """
    seen = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320):
            gr.Markdown("### This machine", elem_classes="heading")
            report = gr.HTML(_lines("Looking at this machine …"), padding=False, elem_id="machine")
            with gr.Row(elem_classes="tools"):
                copy = gr.Button("Copy", size="md", elem_id="machine-copy", min_width=90, scale=0)
                again = gr.Button("Look again", size="md", elem_id="machine-again", min_width=120, scale=0)
        with gr.Column(scale=5, min_width=320):
            gr.Markdown("### Workspace", elem_classes="heading")
            gr.HTML(note(_where(workspace, settings)), padding=False, elem_id="workspace")
            sizes = gr.HTML(_table(dict.fromkeys(FOLDERS)), padding=False, elem_id="sizes")
            with gr.Row(elem_classes="tools"):
                clear = gr.Button("Clear the cache", size="md", elem_id="clear-cache", min_width=140, scale=0)
                empty = gr.Button(
                    "Empty the bin", size="md", interactive=False, elem_id="empty-bin", min_width=140, scale=0
                )
            cleared = gr.HTML(
                note("Nothing you made is in the cache: the next look and the next run take a little longer."),
                padding=False, elem_id="cleared",
            )  # fmt: skip
            with gr.Column(visible=False) as sure:
                question = gr.HTML(padding=False, elem_id="sure")
                with gr.Row(elem_classes="tools"):
                    really = gr.Button("Delete", variant="primary", size="md", elem_id="really", min_width=140, scale=0)
                    keep = gr.Button("Keep them", size="md", elem_id="keep-them", min_width=120, scale=0)
            gr.Markdown("### Light and dark", elem_classes="heading")
            look = gr.Button("Switch", size="md", elem_id="look", min_width=120, scale=0)
            gr.Markdown("### Licences", elem_classes="heading")
            gr.Markdown(f"LoRA Studio {__version__}. {LICENCES}", elem_classes="about-text")

    def begin():
        system.start_report(workspace)

    def watch(last):
        job = jobs.beside.get("about")
        state = job and (id(job), job.state)
        if job is None or state == last or job.state == "running":
            return [gr.skip()] * 4
        if job.result is None:
            return state, note(job.error or "", bad=True), gr.skip(), gr.skip()
        sizes = job.result.sizes
        return state, _lines(job.result.lines), _table(sizes), gr.update(interactive=sizes[system.ASIDE] > 0)

    @show_errors
    def wipe():
        freed = system.clear_cache(workspace)
        begin()
        return note(f"{size(freed)} freed, {time.strftime('%H:%M')}.")

    def ask():
        """Updates for question, sure, really, empty: nothing is deleted before it is said how much that is."""
        found = system.set_aside(workspace)
        parts = [pluralize(count, what) for what, count in found.counts.items() if count]
        if not parts:
            return gr.skip(), gr.update(visible=False), gr.skip(), gr.update(interactive=False)
        words = f"Delete {' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))} for good?"
        return note(words), gr.update(visible=True), f"Delete {size(found.size)}", gr.update(interactive=False)

    def spare():
        return gr.update(visible=False), gr.update(interactive=True)

    @show_errors
    def empty_it():
        """Updates for cleared, sure, emptied."""
        freed = system.empty_trash(workspace)
        begin()
        return note(f"{size(freed)} freed, {time.strftime('%H:%M')}."), gr.update(visible=False), time.time()

    quiet = {**NO_PROGRESS, **PRIVATE}
    tab.select(begin, None, None, **quiet)
    again.click(begin, None, None, **quiet)
    timer.tick(watch, seen, [seen, report, sizes, empty])
    clear.click(wipe, None, cleared, **quiet)
    empty.click(ask, None, [question, sure, really, empty], **quiet)
    keep.click(spare, None, [sure, empty], **quiet)
    really.click(empty_it, None, [cleared, sure, emptied], **quiet)
    copy.click(None, None, None, js=COPY_JS, **quiet)
    look.click(None, None, None, js=SWITCH_JS, **quiet)
    demo.load(None, None, None, js=LOOK_JS, **quiet)


def _where(workspace: Workspace, settings: Settings) -> str:
    if settings.public:
        hours = LIFE // 3600
        return f"Yours alone, and deleted {hours} hours after you last used it: download what you want to keep."
    if not workspace.allows.folders:
        return "On the machine that serves this page."
    return str(workspace.root)


def _lines(text: str) -> str:
    return f'<pre class="lines" tabindex="0">{escape(text)}</pre>'


def _table(sizes: Mapping[str, int | None]) -> str:
    """Bytes of each folder; None, a dash, while they aren't known."""
    rows = "".join(
        f"<tr><th>{name}</th><td>{FOLDERS[name]}</td><td>{'–' if count is None else size(count)}</td></tr>"
        for name, count in sizes.items()
    )
    return f'<table class="sizes">{rows}</table>'
