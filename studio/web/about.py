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
from studio.web import i18n
from studio.web.components import clickable
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.workspace import Workspace

FOLDERS = {
    "datasets": "images and captions, with their history",
    "runs": "trained adapters, with previews and checkpoints",
    "outputs": "generated images",
    "adapters": "adapter files that were added",
    "exports": "exported zips and folders",
    "cache": "encoded images and thumbnails, made again when needed",
    system.TRASH: "deleted images, adapters and runs, which can be restored",
}
LICENCES = (
    "The studio's code and its starter model are under the Apache License 2.0. The art in the samples keeps its own "
    "open licences, listed in `assets/NOTICE`. Base models, captioners and adapters from elsewhere have licences of "
    "their own: they decide what you may do with what you make. The pages in `docs/` say how everything works."
)
SWITCH_JS = """() => {
  const dark = document.body.classList.toggle('dark');
  try { localStorage.studioTheme = dark ? 'dark' : 'light'; } catch {}
}"""
THEME_JS = """() => {
  try {
    const theme = localStorage.studioTheme || localStorage.studioLook;  // the latter by version 0.1
    if (theme) document.body.classList.toggle('dark', theme === 'dark');
  } catch {}
}"""
# Kept for the next page as well; in a Space's frame of another site only a partitioned cookie is.
LANGUAGE_JS = """
element.addEventListener('click', event => {
  const chosen = event.target.closest('button[lang]');
  if (!chosen) return;
  const framed = location.protocol === 'https:' ? 'SameSite=None; Secure; Partitioned' : 'SameSite=Lax';
  document.cookie = `studio_language=${chosen.lang}; path=/; max-age=31536000; ${framed}`;
  location.reload();
});
for (const one of element.querySelectorAll('button[lang]'))
  one.setAttribute('aria-pressed', String(one.lang === (document.documentElement.lang || 'en')));
"""
# The clipboard proper is kept from pages that come over plain http.
COPY_JS = """() => {
  const range = document.createRange(), selection = getSelection();
  range.selectNodeContents(document.querySelector('#machine pre'));
  selection.removeAllRanges();
  selection.addRange(range);
  document.execCommand('copy');
}"""


class About:
    """The tab. The machine is examined when the tab is opened, not before."""

    def __init__(self, context: PageContext):
        self.context, self.workspace = context, context.workspace
        with (
            gr.Tab("About", id="about", elem_id="tab-about", render_children=True) as self.tab,
            gr.Row(equal_height=False),
        ):
            self.seen = gr.State(None)
            with gr.Column(scale=6, min_width=320):
                gr.Markdown("### This machine", elem_classes="heading")
                self.report = gr.HTML(_lines("Checking this machine …"), padding=False, elem_id="machine")
                with gr.Row(elem_classes="tools"):
                    self.copy = _button("Copy", "machine-copy", 90)
                    self.again = _button("Check again", "machine-again", 120)
            with gr.Column(scale=5, min_width=320):
                self._workspace_part()
                gr.Markdown("### Theme", elem_classes="heading")
                self.theme = _button("Light or dark", "theme", 140)
                gr.Markdown("### Language", elem_classes="heading")
                clickable.clickable_html("languages", _languages(), LANGUAGE_JS, padding=False)
                if context.settings.auth:
                    _button("Sign out", "sign-out", 140, link="/logout")
                gr.Markdown("### Licences", elem_classes="heading")
                gr.Markdown(f"LoRA Studio {__version__}\n\n{LICENCES}", elem_classes="about-text")

    def _workspace_part(self) -> None:
        gr.Markdown("### Workspace", elem_classes="heading")
        gr.HTML(note(_where(self.workspace, self.context.settings)), padding=False, elem_id="workspace")
        self.sizes = gr.HTML(_table(dict.fromkeys(FOLDERS)), padding=False, elem_id="sizes")
        with gr.Row(elem_classes="tools"):
            self.clear = _button("Clear cache", "clear-cache", 140)
            self.empty = _button("Empty trash", "empty-trash", 140, interactive=False)
        self.cleared = gr.HTML(
            note("The cache holds nothing you made: without it the next page and the next run take a little longer."),
            padding=False,
            elem_id="cleared",
        )
        with gr.Column(visible=False) as self.sure:
            self.question = gr.HTML(padding=False, elem_id="sure")
            with gr.Row(elem_classes="tools"):
                self.really = _button("Delete", "really", 140, variant="primary")
                self.keep = _button("Keep them", "keep-them", 120)

    def wire(self) -> None:
        context = self.context
        self.tab.select(self.begin, None, None, **QUIET)
        self.again.click(self.begin, None, None, **QUIET)
        context.poller.watch(self.watch, self.seen, [self.seen, self.report, self.sizes, self.empty])
        self.clear.click(self.clear_cache, None, self.cleared, **QUIET)
        self.empty.click(self.ask, None, [self.question, self.sure, self.really, self.empty], **QUIET)
        self.keep.click(self.spare, None, [self.sure, self.empty], **QUIET)
        self.really.click(self.empty_trash, None, [self.cleared, self.sure, context.trash_emptied], **QUIET)
        self.copy.click(None, None, None, js=COPY_JS, **QUIET)
        self.theme.click(None, None, None, js=SWITCH_JS, **QUIET)
        context.demo.load(None, None, None, js=THEME_JS, **QUIET)

    def begin(self):
        system.start_report(self.workspace)

    def watch(self, last):
        job = jobs.beside.get("about")
        state = job and (id(job), job.state)
        if job is None or state == last or job.state == "running":
            return gr.skip()
        if job.result is None:
            return {self.seen: state, self.report: note(job.error or "", bad=True)}
        sizes = job.result.sizes
        return {
            self.seen: state,
            self.report: _lines(job.result.lines),
            self.sizes: _table(sizes),
            self.empty: gr.update(interactive=sizes[system.TRASH] > 0),
        }

    @show_errors
    def clear_cache(self):
        freed = system.clear_cache(self.workspace)
        self.begin()
        return _freed(freed)

    def ask(self):
        """Nothing is deleted before its size is shown."""
        found = system.trash_contents(self.workspace)
        parts = [pluralize(count, what) for what, count in found.counts.items() if count]
        if not parts:
            return {self.sure: gr.update(visible=False), self.empty: gr.update(interactive=False)}
        words = f"Delete {' and '.join(filter(None, [', '.join(parts[:-1]), parts[-1]]))} for good?"
        return {
            self.question: note(words),
            self.sure: gr.update(visible=True),
            self.really: f"Delete {size(found.size)}",
            self.empty: gr.update(interactive=False),
        }

    def spare(self):
        return {self.sure: gr.update(visible=False), self.empty: gr.update(interactive=True)}

    @show_errors
    def empty_trash(self):
        freed = system.empty_trash(self.workspace)
        self.begin()
        return {
            self.cleared: _freed(freed),
            self.sure: gr.update(visible=False),
            self.context.trash_emptied: time.time(),
        }


def build(context: PageContext) -> About:
    """The tab, inside the caller's gr.Tabs."""
    part = About(context)
    part.wire()
    return part


def _button(text: str, name: str, width: int, **options) -> gr.Button:
    return gr.Button(text, size="md", elem_id=name, min_width=width, scale=0, **options)


def _languages() -> str:
    """A button for each, with its name in itself."""
    names = {i18n.ENGLISH: "English"} | {code: one.name for code, one in i18n.languages().items()}
    return " ".join(f'<button type="button" lang="{code}">{escape(name)}</button>' for code, name in names.items())


def _freed(count: int) -> str:
    return note(f"{size(count)} freed, {time.strftime('%H:%M')}.")


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
