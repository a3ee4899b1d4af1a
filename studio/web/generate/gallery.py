"""All generated images, newest first, with a search in their recipes. A part of the Generate tab."""

import time
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import gallery, image_groups
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
    """The sub-tab. opened: the name of the image that is shown large; group: the group that is open, "" for none."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Gallery", id="past", elem_id="tab-history") as self.tab:
            self.page, self.timer = gr.State(0), gr.Timer(POLL_EVERY, active=False)
            self.opened, self.group = gr.Textbox(visible=False), gr.State("")
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
            self.line = clickable_html("history-line")
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
        context, large = self.context, [self.opened, self.large]
        inputs, outputs = [self.search, self.page, self.group], [*self.outputs, self.group]
        self.tab.select(self.show, inputs, self.outputs, **UNQUEUED)
        self.search.change(
            lambda text: self.show(text, 0) | {self.group: ""},
            self.search,
            outputs,
            trigger_mode="always_last",
            **UNQUEUED,
        )
        self.newer.click(
            lambda text, number, group: self.show(text, number - 1, group), inputs, self.outputs, **UNQUEUED
        )
        self.older.click(
            lambda text, number, group: self.show(text, number + 1, group), inputs, self.outputs, **UNQUEUED
        )
        self.timer.tick(self.show, inputs, self.outputs, **UNQUEUED)
        self.grid.click(self.open, self.search, [*large, *outputs], **QUIET)
        self.line.click(self.leave, self.search, [*large, *outputs], **QUIET)
        self.large.click(self.act, [*inputs, self.opened], [context.taken, *large, *self.outputs], **QUIET)
        self.undo.click(self.restore, inputs, [*large, *self.outputs], **QUIET)
        context.trash_emptied.change(lambda: gr.update(visible=False), None, self.undo, **QUIET)

    def show(self, text, number, group="") -> dict[Any, Any]:
        """Updates for `outputs`."""
        found = image_groups.find_cells(self.workspace, text or "", number, group or "")
        first = found.page * gallery.PAGE + 1
        line = ""
        if group:
            line = f"{image_groups.title_of(group)}, {pluralize(found.count, 'image')}"
        elif found.images != found.total:
            line = f"{found.images:,} of {pluralize(found.total, 'image')}"
        if found.unread:
            many = pluralize(found.unread, "image")
            line = f"Reading the recipes of {many}; the search finds more as that goes on."
        back = button("leave", "", "← All images", "link") if group else ""
        cells = "".join(_cell(self.workspace, cell) for cell in found.cells)
        blank = NOT_FOUND if found.total else NOTHING
        return {
            self.page: found.page,
            self.line: f'<div class="group-line">{back}{note(line)}</div>' if line else "",
            self.grid: f'<ul class="cells images">{cells}</ul>' if cells else blank,
            self.pager: gr.update(visible=found.pages > 1),
            self.where: note(f"{first:,}–{first + len(found.cells) - 1:,} of {found.count:,}"),
            self.newer: gr.update(interactive=found.page > 0),
            self.older: gr.update(interactive=found.page < found.pages - 1),
            self.undo: gr.update(visible=bool(gallery.removed(self.workspace))),
            self.timer: gr.Timer(active=bool(found.unread)),
        }

    def enlarged(self, name: str) -> dict[Any, Any]:
        """Updates that show one image large; "" for none. Raises WorkspaceError."""
        return {self.opened: name, self.large: _large(self.workspace, name)}

    @show_errors
    def open(self, text, event: gr.EventData):
        """A cell was clicked: its image large, or the images of its group."""
        act, name, _ = clicked(event)
        if act == "group" and image_groups.is_group(name):
            return self.enlarged("") | self.show(text, 0, name) | {self.group: name}
        return self.enlarged(name) if act == "open" else gr.skip()

    def leave(self, text, event: gr.EventData):
        """Back from a group to all images."""
        return self.enlarged("") | self.show(text, 0) | {self.group: ""} if clicked(event)[0] == "leave" else gr.skip()

    @show_errors
    def act(self, text, number, group, name, event: gr.EventData):
        """A button of the image that is open."""
        kind, _, _ = clicked(event)
        if kind == "recipe":
            return {self.context.taken: name}
        if kind == "close":
            return self.enlarged("")
        if kind == "delete":
            following = image_groups.neighbour(self.workspace, text or "", group or "", name, 1)
            gallery.remove(self.workspace, name)
            return self.enlarged(following) | self.show(text, number, group)
        step = {"newer": -1, "older": 1}.get(kind)
        other = image_groups.neighbour(self.workspace, text or "", group or "", name, step) if step else ""
        return self.enlarged(other) if other else gr.skip()

    @show_errors
    def restore(self, text, number, group):
        return self.enlarged(gallery.put_back(self.workspace)) | self.show(text, number, group)


def build(context: GenerateContext) -> Gallery:
    """The sub-tab."""
    part = Gallery(context)
    part.wire()
    return part


def _cell(workspace: Workspace, cell: image_groups.Cell) -> str:
    """An image, or a group with how many images it has."""
    entry = cell.entry
    link = image_link(thumbnail(workspace, workspace.outputs / entry.name))
    words = " · ".join([*entry.adapters, entry.prompt]) if entry.has_recipe else Path(entry.name).name
    image = f'<img src="{escape(link)}" alt="" loading="lazy">'
    if cell.group:
        title = f"{image_groups.title_of(cell.group)}, {pluralize(cell.count, 'image')}"
        words = f"{image_groups.title_of(cell.group)} · {entry.prompt or entry.name}"
        inner = f'data-act="group" data-arg="{escape(cell.group)}" aria-label="Open: {escape(title)}">{image}'
        inner += f'<i class="pill quiet-pill">{cell.count:,}</i>'
    else:
        inner = f'data-act="open" data-arg="{escape(entry.name)}" aria-label="Open {escape(entry.name)}">{image}'
    kind = " group" if cell.group else ""
    return (
        f'<li class="cell{kind}"><button type="button" class="bare" {inner}</button>'
        f"<small>{escape(words[:120])}</small></li>"
    )


def _large(workspace: Workspace, name: str) -> str:
    """One image with its recipe and what can be done with it; "" for none. Raises WorkspaceError."""
    if not name:
        return ""
    from studio.generation import read_recipe

    path = image_groups.file_of(workspace, name)
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
        f'<header>{recipe}<a class="plain" href="{link}" download="{escape(path.name)}">Download</a>'
        f"{'' if '/' in name else button('delete', '', 'Delete')}{button('newer', '', '←', '', 'Newer image')}"
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
