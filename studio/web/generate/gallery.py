"""All generated images, newest first, with a search in their recipes. A part of the Generate tab."""

import time
from html import escape
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import gallery
from studio.services.thumbnails import LARGE, thumbnail
from studio.text import pluralize
from studio.web.components.clickable import button, clickable_html, clicked, image_link
from studio.web.components.fields import QUIET, UNQUEUED
from studio.web.components.html import empty, note
from studio.web.errors import show_errors
from studio.web.generate.context import GenerateContext
from studio.workspace import Workspace

NOTHING = empty("No image yet", "Every generated image is kept here, with its recipe inside.")
NOT_FOUND = empty("Nothing found", "An image must have all the words, in its prompt, its adapters' names or its seed.")
POLL_EVERY = 2  # seconds, while recipes are read


class Gallery:
    """The sub-tab. opened: the name of the image that is shown large."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Gallery", id="past", elem_id="tab-history") as self.tab:
            self.page, self.timer = gr.State(0), gr.Timer(POLL_EVERY, active=False)
            self.opened = gr.Textbox(visible=False)
            with gr.Row(elem_classes="low"):
                self.search = gr.Textbox(
                    label="Search",
                    placeholder="Words of the prompt, an adapter's name, a seed",
                    max_lines=1,
                    scale=4,
                    elem_id="history-search",
                    min_width=200,
                )
                self.undo = gr.Button(
                    "Restore the last deleted", size="sm", visible=False, elem_id="history-undo", min_width=170
                )
            self.large = clickable_html("history-large")
            self.line = gr.HTML(elem_id="history-line")
            self.grid = clickable_html("history", NOTHING)
            with gr.Row(visible=False, elem_classes="pager") as self.pager:
                self.newer = gr.Button("← Newer", size="sm", min_width=90, elem_id="history-newer")
                self.where = gr.HTML(elem_id="history-page")
                self.older = gr.Button("Older →", size="sm", min_width=90, elem_id="history-older")
        self.outputs = [
            self.page,
            self.line,
            self.grid,
            self.pager,
            self.where,
            self.newer,
            self.older,
            self.undo,
            self.timer,
        ]

    def wire(self) -> None:
        context, inputs, large = self.context, [self.search, self.page], [self.opened, self.large]
        self.tab.select(self.show, inputs, self.outputs, **UNQUEUED)
        self.search.change(
            lambda text: self.show(text, 0), self.search, self.outputs, trigger_mode="always_last", **UNQUEUED
        )
        self.newer.click(lambda text, number: self.show(text, number - 1), inputs, self.outputs, **UNQUEUED)
        self.older.click(lambda text, number: self.show(text, number + 1), inputs, self.outputs, **UNQUEUED)
        self.timer.tick(self.show, inputs, self.outputs, **UNQUEUED)
        self.grid.click(self.open, None, large, **QUIET)
        self.large.click(self.act, [*inputs, self.opened], [context.taken, *large, *self.outputs], **QUIET)
        self.undo.click(self.restore, inputs, [*large, *self.outputs], **QUIET)
        context.trash_emptied.change(lambda: gr.update(visible=False), None, self.undo, **QUIET)

    def show(self, text, number) -> dict[Any, Any]:
        """Updates for `outputs`."""
        found = gallery.find(self.workspace, text or "", number)
        first = found.page * gallery.PAGE + 1
        line = f"{found.count:,} of {pluralize(found.total, 'image')}" if found.count != found.total else ""
        if found.unread:
            many = pluralize(found.unread, "image")
            line = f"Reading the recipes of {many}; the search finds more as that goes on."
        cells = "".join(_cell(self.workspace, entry) for entry in found.entries)
        blank = NOT_FOUND if found.total else NOTHING
        return {
            self.page: found.page,
            self.line: note(line),
            self.grid: f'<ul class="cells images">{cells}</ul>' if cells else blank,
            self.pager: gr.update(visible=found.pages > 1),
            self.where: note(f"{first:,}–{first + len(found.entries) - 1:,} of {found.count:,}"),
            self.newer: gr.update(interactive=found.page > 0),
            self.older: gr.update(interactive=found.page < found.pages - 1),
            self.undo: gr.update(visible=bool(gallery.removed(self.workspace))),
            self.timer: gr.Timer(active=bool(found.unread)),
        }

    def enlarged(self, name: str) -> dict[Any, Any]:
        """Updates that show one image large; "" for none. Raises WorkspaceError."""
        return {self.opened: name, self.large: _large(self.workspace, name)}

    @show_errors
    def open(self, event: gr.EventData):
        act, name, _ = clicked(event)
        return self.enlarged(name) if act == "open" else gr.skip()

    @show_errors
    def act(self, text, number, name, event: gr.EventData):
        """A button of the image that is open."""
        kind, _, _ = clicked(event)
        if kind == "recipe":
            return {self.context.taken: name}
        if kind == "close":
            return self.enlarged("")
        if kind == "delete":
            following = gallery.beside(self.workspace, text or "", name, 1)
            gallery.remove(self.workspace, name)
            return self.enlarged(following) | self.show(text, number)
        step = {"newer": -1, "older": 1}.get(kind)
        other = gallery.beside(self.workspace, text or "", name, step) if step else ""
        return self.enlarged(other) if other else gr.skip()

    @show_errors
    def restore(self, text, number):
        return self.enlarged(gallery.put_back(self.workspace)) | self.show(text, number)


def build(context: GenerateContext) -> Gallery:
    """The sub-tab."""
    part = Gallery(context)
    part.wire()
    return part


def _cell(workspace: Workspace, entry: gallery.Entry) -> str:
    link = image_link(thumbnail(workspace, workspace.outputs / entry.name))
    words = " · ".join([*entry.adapters, entry.prompt]) if entry.has_recipe else entry.name
    return (
        f'<li class="cell"><button type="button" class="bare" data-act="open" data-arg="{escape(entry.name)}" '
        f'aria-label="Open {escape(entry.name)}"><img src="{escape(link)}" alt="" loading="lazy"></button>'
        f"<small>{escape(words[:120])}</small></li>"
    )


def _large(workspace: Workspace, name: str) -> str:
    """One image with its recipe and what can be done with it; "" for none. Raises WorkspaceError."""
    if not name:
        return ""
    from studio.generation import read_recipe

    path = gallery.image_file(workspace, name)
    recipe, facts = "", ""
    try:
        found = read_recipe(path)
        facts = _facts(found.values, found.adapters)
        recipe = button("recipe", "", "Use this recipe", "primary")
    except GenerationError as error:
        facts = note(str(error))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    link = escape(image_link(path))
    shown = link if path.suffix.lower() == ".png" else escape(image_link(thumbnail(workspace, path, LARGE)))
    return (
        f'<div class="opened"><img src="{shown}" alt="{escape(name)}"><div>'
        f'<header>{recipe}<a class="plain" href="{link}" download="{escape(name)}">Download</a>'
        f"{button('delete', '', 'Delete')}{button('newer', '', '←', '', 'Newer image')}"
        f"{button('older', '', '→', '', 'Older image')}"
        f"{button('close', '', '×', '', 'Close')}</header>"
        f'{facts}<p class="note small">{escape(name)} · {when}</p></div></div>'
    )


def _facts(values: dict[str, Any], adapters: list[dict[str, Any]]) -> str:
    """What a recipe says, as a list of names and values."""
    rows = [("Prompt", values.get("prompt")), ("Negative prompt", values.get("negative_prompt"))]
    for one in adapters:
        strength = one.get("strength", 1.0)
        rows.append(("Adapter", f"{one.get('file')} at {strength:g}"))
    size = f"{values['width']} × {values['height']}" if values.get("width") and values.get("height") else None
    rows += [("Seed", values.get("seed")), ("Steps", values.get("steps")), ("Guidance", values.get("guidance"))]
    rows += [("Size", size), ("Scheduler", values.get("scheduler")), ("Base model", values.get("base"))]
    if values.get("source"):
        rows.append(("Image to image", f"{values['source']}, denoising strength {values.get('denoising', 0):g}"))
    lines = "".join(
        f"<dt>{name}</dt><dd>{escape(f'{value:g}' if isinstance(value, float) else str(value))}</dd>"
        for name, value in rows
        if value not in (None, "")
    )
    return f'<dl class="recipe">{lines}</dl>'
