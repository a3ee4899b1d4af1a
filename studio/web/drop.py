"""Drop anything anywhere: adapters, an image with its recipe, a run.toml, a zip or images of a dataset.

The page knows what each file is (`services.drops`), takes it where it belongs and says so in one line above the tabs.
What it can't know, such as what an image without a recipe is for, is asked there.
"""

import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, datasets, drops
from studio.text import pluralize
from studio.web.components.clickable import button, clickable_html, clicked
from studio.web.components.context import PageContext
from studio.web.components.fields import QUIET
from studio.web.components.html import MOST_LINES
from studio.web.dataset.tab import DatasetTab
from studio.web.errors import show_errors, show_warning
from studio.web.generate.context import POOL
from studio.web.generate.tab import GenerateTab
from studio.web.train.form import shown_in
from studio.web.train.tab import TrainTab

OVERLAY = (
    '<div class="drop-overlay" aria-hidden="true" hidden><div><b>Drop to use it</b>'
    "<span>Adapters, an image with its recipe, a run.toml, a zip or images of a dataset</span></div></div>"
)
OVERLAY_JS = (Path(__file__).parent / "drop.js").read_text("utf-8")
FEW = 3  # problems that are also shown as small messages
ADD, NEW, FROM, CLOSE = "add", "new", "from", "close"  # what a click on the line sends


class Drop:
    """The line above the tabs, and the field that files are handed to. `wire` once the tabs are built.

    held      files of the last drop that wait for an answer; on the server alone
    settings  (when, run.toml, arguments of `line_html` on the rest of the drop) to fill the Train form from; on the
              server alone
    """

    def __init__(self, context: PageContext):
        self.workspace = context.workspace
        self.held, self.settings = gr.State([]), gr.State(None)
        gr.HTML(OVERLAY, elem_id="drop-overlay", html_template="${value}", js_on_load=OVERLAY_JS)
        self.files = gr.File(label="Files", file_count="multiple", elem_id="drop-anywhere", height=40)
        self.line = clickable_html("dropped")

    def wire(self, tabs: gr.Tabs, data: DatasetTab, train: TrainTab, generate: GenerateTab) -> None:
        self.tabs, self.taken, self.form = tabs, generate.dropped, train.form
        outputs = [self.line, self.held, tabs, self.taken, self.settings]
        for field in (self.files, generate.drop):
            field.upload(self.take_from(field), [field, data.choice], [*outputs, field], **QUIET)
        self.line.click(self.act, [self.held, data.choice], outputs, **QUIET)
        filled = [*self.form.fields.values(), self.form.dataset]
        event = self.settings.change(self.fill, self.settings, [*filled, self.line], **QUIET)
        self.form.panel.mark_after(event)

    def take_from(self, field: gr.File) -> Any:
        @show_errors
        def take(files, choice):
            return self.take(files or [], choice) | {field: None}

        return take

    def take(self, files: Sequence[str], choice: str | None) -> dict[Any, Any]:
        """Updates for the line, the tabs and what they take. choice: the dataset that is open."""
        found = drops.sort_files(self.workspace, files)
        for problem in found.problems[:FEW]:  # the line has them all
            show_warning(StudioError(problem))
        updates: dict[Any, Any] = {self.held: []}
        said, offers = [], ""
        if found.adapters:
            said.append(_adapters_text(found.adapters))
        if found.recipe:
            said.append(f"{found.recipe.name} goes into the Generate form.")
        if found.adapters or found.recipe:
            updates[self.taken] = {"when": time.time(), "keys": found.adapters, "recipe": str(found.recipe or "")}
            updates[self.tabs] = gr.Tabs(selected="generate")
        if found.settings:
            updates[self.tabs] = gr.Tabs(selected="train")
        waiting = found.for_dataset
        if waiting and (found.archives or len(found.images) > 1) and not choice:
            updates |= self.into_dataset(datasets.new_name(self.workspace, paths=waiting), waiting)
            said.append(_dataset_text(found))
        elif waiting:
            updates[self.held] = [str(path) for path in waiting]
            said.append(_images_text(found))
            offers = _offers(choice, len(waiting) == 1 and len(found.images) == 1)
        if found.settings:
            updates[self.settings] = (time.time(), str(found.settings), (said, offers, found.problems))
        return updates | {self.line: line_html(said, offers, found.problems)}

    @show_errors
    def act(self, held, choice, event: gr.EventData):
        """An answer to what was asked, or the line is closed."""
        kind, _, _ = clicked(event)
        updates: dict[Any, Any] = {self.line: "", self.held: []}
        paths = [Path(path) for path in held or [] if Path(path).is_file()]
        if kind == CLOSE or kind not in (ADD, NEW, FROM):
            return updates
        if not paths:
            raise StudioError("The files that were dropped are not here any more: drop them again.")
        if kind == FROM:
            taken = {"when": time.time(), "keys": [], "recipe": "", "source": str(paths[0])}
            return updates | {self.taken: taken, self.tabs: gr.Tabs(selected="generate")}
        name = choice if kind == ADD and choice else datasets.new_name(self.workspace, paths=paths)
        return updates | self.into_dataset(name, paths)

    def into_dataset(self, name: str, paths: Sequence[Path]) -> dict[Any, Any]:
        """Updates after the import has begun: the Dataset tab shows it, and opens the dataset when it is done."""
        datasets.start_import(self.workspace, name, list(paths))
        return {self.tabs: gr.Tabs(selected="dataset")}

    @show_errors
    def fill(self, settings):
        """A run.toml was dropped: its settings into the Train form, and a line on it behind what the line says."""
        if not settings:
            return gr.skip()
        _, file, (said, offers, problems) = settings
        path = Path(file)
        try:
            values, notes = drops.dropped_settings(self.workspace, path)
        except StudioError as error:
            show_warning(error)
            return {self.line: line_html(said, offers, [*problems, str(error)])}
        own = f"The Train form has the settings of {path.name}: {pluralize(len(values), 'setting')}."
        line = line_html([*said, own, *notes], offers, problems)
        return shown_in(self.form, self.workspace, values) | {self.line: line}


def build(context: PageContext) -> Drop:
    """The line, above the caller's tabs."""
    return Drop(context)


def line_html(said: Sequence[str], offers: str = "", problems: Sequence[str] = ()) -> str:
    """What was done with a drop, what is asked, and what was left out. offers: buttons, as HTML."""
    lines = [f"<span>{escape(text)}</span>" for text in said]
    more = [f"and {len(problems) - MOST_LINES:,} more"] if len(problems) > MOST_LINES else []
    lines += [f'<span class="bad">{escape(" ".join(text.split()))}</span>' for text in [*problems[:MOST_LINES], *more]]
    close = button(CLOSE, "", "×", "cross", "Close this message")
    inner = f'<div class="said">{"".join(lines)}</div><div class="offers">{offers}</div>{close}'
    return f'<div class="dropped" role="status">{inner}</div>' if lines else ""


def _adapters_text(keys: Sequence[str]) -> str:
    names = ", ".join(map(adapter_files.adapter_name, keys[:POOL]))
    more = len(keys) - POOL
    rest = f" and {more:,} more: Generate holds {POOL} at once, all are in the adapter library" if more > 0 else ""
    return f"{pluralize(len(keys), 'adapter')} for Generate: {names}{rest}."


def _images_text(found: drops.Dropped) -> str:
    if len(found.for_dataset) == 1:
        name = found.for_dataset[0].name
        return f"{name}: {'for a dataset?' if found.archives else 'an image without a recipe inside. What is it for?'}"
    return f"{pluralize(len(found.for_dataset), 'file')} for a dataset."


def _dataset_text(found: drops.Dropped) -> str:
    many = pluralize(len(found.for_dataset), "file")
    return f"A new dataset is made of {many}; the Dataset tab opens it when it is read."


def _offers(choice: str | None, one: bool) -> str:
    add = button(ADD, "", f"Add to {choice}", "primary") if choice else ""
    start = button(FROM, "", "Image to image") if one else ""
    return add + button(NEW, "", "New dataset", "" if choice else "primary") + start
