"""All pictures that were drawn, newest first, with a search in what is written inside. A part of the Generate tab."""

import time
from html import escape
from typing import Any

import gradio as gr

from studio.errors import GenerationError
from studio.services import gallery
from studio.services.thumbnails import LARGE, thumbnail
from studio.text import pluralize
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import empty, note
from studio.web.errors import show_errors
from studio.web.generate.context import Bench
from studio.workspace import Workspace

NOTHING = empty("No picture yet", "Every picture that is drawn here is kept, with its recipe inside.")
NOT_FOUND = empty("Nothing found", "A picture must have all the words, in its prompt, its adapters' names or its seed.")
LOOK_EVERY = 2  # seconds, while pictures are read


def history_part(workspace: Workspace, bench: Bench, tab: gr.Tab) -> None:
    """Build it inside the caller's `tab`."""
    page, timer = gr.State(0), gr.Timer(LOOK_EVERY, active=False)
    opened = gr.Textbox(visible=False)  # the name of the picture that is shown large
    with gr.Row(elem_classes="low"):
        words = gr.Textbox(
            label="Search", placeholder="Words of the prompt, an adapter's name, a seed", max_lines=1, scale=4,
            elem_id="history-search", min_width=200,
        )  # fmt: skip
        back = gr.Button("Put back the last deleted", size="sm", visible=False, elem_id="history-undo", min_width=170)
    large = clickable.board("history-large")
    told = gr.HTML(elem_id="history-told")
    grid = clickable.board("history", NOTHING)
    with gr.Row(visible=False, elem_classes="pager") as pager:
        newer = gr.Button("← Newer", size="sm", min_width=90, elem_id="history-newer")
        where = gr.HTML(elem_id="history-page")
        older = gr.Button("Older →", size="sm", min_width=90, elem_id="history-older")

    shown = [page, told, grid, pager, where, newer, older, back, timer]

    def show(text, number) -> list[Any]:
        """Updates for `shown`."""
        found = gallery.find(workspace, text or "", number)
        first = found.page * gallery.PAGE + 1
        line = f"{found.count:,} of {pluralize(found.total, 'picture')}" if found.count != found.total else ""
        if found.unread:
            many = pluralize(found.unread, "picture")
            line = f"Reading what is written inside {many}; the search finds more as that goes on."
        cells = "".join(_cell(workspace, entry) for entry in found.entries)
        blank = NOT_FOUND if found.total else NOTHING
        return [
            found.page, note(line),
            f'<ul class="cells pictures">{cells}</ul>' if cells else blank,
            gr.update(visible=found.pages > 1),
            note(f"{first:,}–{first + len(found.entries) - 1:,} of {found.count:,}"),
            gr.update(interactive=found.page > 0), gr.update(interactive=found.page < found.pages - 1),
            gr.update(visible=bool(gallery.removed(workspace))), gr.Timer(active=bool(found.unread)),
        ]  # fmt: skip

    @show_errors
    def open_one(event: gr.EventData):
        act, name, _ = clickable.clicked(event)
        return [name, _large(workspace, name)] if act == "open" else [gr.skip()] * 2

    @show_errors
    def act(text, number, name, event: gr.EventData):
        """A button of the picture that is open: updates for taken, opened, large and `shown`."""
        kind, _, _ = clickable.clicked(event)
        same = [gr.skip()] * (3 + len(shown))
        if kind == "recipe":
            return [name, *same[1:]]
        if kind == "close":
            return [gr.skip(), "", "", *same[3:]]
        if kind == "delete":
            following = gallery.beside(workspace, text or "", name, 1)
            gallery.remove(workspace, name)
            return [gr.skip(), following, _large(workspace, following), *show(text, number)]
        step = {"newer": -1, "older": 1}.get(kind)
        other = gallery.beside(workspace, text or "", name, step) if step else ""
        return [gr.skip(), other, _large(workspace, other), *same[3:]] if other else same

    @show_errors
    def put_back(text, number):
        name = gallery.put_back(workspace)
        return [name, _large(workspace, name), *show(text, number)]

    quiet = {**NO_PROGRESS, **PRIVATE}
    swift = {**quiet, "queue": False}  # answered at once, not in the queue's turn; it can't show a message
    tab.select(show, [words, page], shown, **swift)
    words.change(lambda text: show(text, 0), words, shown, trigger_mode="always_last", **swift)
    newer.click(lambda text, number: show(text, number - 1), [words, page], shown, **swift)
    older.click(lambda text, number: show(text, number + 1), [words, page], shown, **swift)
    grid.click(open_one, None, [opened, large], **quiet)
    large.click(act, [words, page, opened], [bench.taken, opened, large, *shown], **quiet)
    back.click(put_back, [words, page], [opened, large, *shown], **quiet)
    timer.tick(show, [words, page], shown, **swift)
    bench.emptied.change(lambda: gr.update(visible=False), None, back, **quiet)


def _cell(workspace: Workspace, entry: gallery.Entry) -> str:
    link = clickable.picture_link(thumbnail(workspace, workspace.outputs / entry.name))
    words = " · ".join([*entry.adapters, entry.prompt]) if entry.told else entry.name
    return (
        f'<li class="cell"><button type="button" class="bare" data-act="open" data-arg="{escape(entry.name)}" '
        f'aria-label="Open {escape(entry.name)}"><img src="{escape(link)}" alt="" loading="lazy"></button>'
        f"<small>{escape(words[:120])}</small></li>"
    )


def _large(workspace: Workspace, name: str) -> str:
    """One picture with its recipe and what can be done with it; "" for none. Raises WorkspaceError."""
    if not name:
        return ""
    from studio.generation import read_recipe

    path = gallery.picture(workspace, name)
    recipe, facts = "", ""
    try:
        found = read_recipe(path)
        facts = _facts(found.values, found.adapters)
        recipe = clickable.button("recipe", "", "Use this recipe", "primary")
    except GenerationError as error:
        facts = note(str(error))
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    link = escape(clickable.picture_link(path))
    shown = link if path.suffix.lower() == ".png" else escape(clickable.picture_link(thumbnail(workspace, path, LARGE)))
    return (
        f'<div class="opened"><img src="{shown}" alt="{escape(name)}"><div>'
        f'<header>{recipe}<a class="plain" href="{link}" download="{escape(name)}">Download</a>'
        f"{clickable.button('delete', '', 'Delete')}{clickable.button('newer', '', '←', '', 'Newer picture')}"
        f"{clickable.button('older', '', '→', '', 'Older picture')}"
        f"{clickable.button('close', '', '×', '', 'Close')}</header>"
        f'{facts}<p class="note small">{escape(name)} · {when}</p></div></div>'
    )


def _facts(values: dict[str, Any], adapters: list[dict[str, Any]]) -> str:
    """What a recipe says, as a list of names and values."""
    rows = [("Prompt", values.get("prompt")), ("Negative", values.get("negative_prompt"))]
    for one in adapters:
        strength = one.get("strength", 1.0)
        rows.append(("Adapter", f"{one.get('file')} at {strength:g}"))
    size = f"{values['width']} × {values['height']}" if values.get("width") and values.get("height") else None
    rows += [("Seed", values.get("seed")), ("Steps", values.get("steps")), ("Guidance", values.get("guidance"))]
    rows += [("Size", size), ("Scheduler", values.get("scheduler")), ("Base", values.get("base"))]
    if values.get("source"):
        rows.append(("From a picture", f"{values['source']}, {100 * values.get('denoising', 0):.0f} % drawn anew"))
    lines = "".join(
        f"<dt>{name}</dt><dd>{escape(f'{value:g}' if isinstance(value, float) else str(value))}</dd>"
        for name, value in rows
        if value not in (None, "")
    )
    return f'<dl class="recipe">{lines}</dl>'
