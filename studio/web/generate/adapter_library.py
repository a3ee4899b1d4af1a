"""The Adapters part of the Generate tab: the shelf, and below it the doctor and the export of the rows."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from studio.services import adapter_library
from studio.services.adapter_files import adapter_name
from studio.text import size
from studio.web.components.clickable import MOST, board, button, clicked, picture_link
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import empty
from studio.web.errors import show_errors
from studio.web.generate import adapter_inspector
from studio.web.generate.context import Bench
from studio.workspace import Workspace

NOTHING = empty("No adapter yet", "Drop .safetensors files on the left, or train one: each stands here with a picture.")
SCROLL_JS = "() => document.querySelector('#doctor')?.scrollIntoView({behavior: 'smooth', block: 'start'})"


def adapters_part(workspace: Workspace, demo: gr.Blocks, bench: Bench, part: gr.Tab) -> None:
    """Build it inside the caller's gr.Tab `part`."""
    search = gr.Textbox(
        label="Search", show_label=False, placeholder="Search by name, kind, family or trigger word", max_lines=1,
        container=False, elem_id="shelf-search",
    )  # fmt: skip
    gone = board("shelf-removed")
    shelf = board("shelf", NOTHING)
    changed = gr.Number(0, visible=False)  # counts what came onto the shelf from below
    doctor = adapter_inspector.doctor(workspace, demo, bench, changed)
    waiting = gr.Timer(1, active=False)  # while some headers were not read yet

    def show(query):
        found = adapter_library.cards(workspace, query or "")
        return shelf_html(found, bool(query)), gr.Timer(active=not all(card.known for card in found))

    @show_errors
    def act(query, event: gr.EventData):
        """Add, look inside or remove. Updates for shelf, waiting, gone, incoming and chosen."""
        kind, key, _ = clicked(event)
        if kind == "add":
            return [gr.skip()] * 3 + [key, gr.skip()]
        if kind == "look":
            return [gr.skip()] * 4 + [adapter_inspector.asked(key)]
        if kind == "remove":
            aside = adapter_library.remove(workspace, key)
            undo = button("back", aside, "Put it back", "link")
            said = f'<div class="note">{escape(adapter_name(key))} was taken off the shelf. {undo}</div>'
            return [*show(query), said, gr.skip(), gr.skip()]
        if kind == "back":
            adapter_library.put_back(workspace, key)
            return [*show(query), "", gr.skip(), gr.skip()]
        return [gr.skip()] * 5

    quiet = {**NO_PROGRESS, **PRIVATE}
    outputs = [shelf, waiting, gone, bench.incoming, doctor.chosen]
    shelf.click(act, search, outputs, **quiet)
    gone.click(act, search, outputs, **quiet)
    bench.emptied.change(lambda: "", None, gone, **quiet)
    search.change(show, search, [shelf, waiting], trigger_mode="always_last", **quiet)
    refresh = [part.select, bench.inputs[0].change, changed.change, waiting.tick]
    gr.on(refresh, show, search, [shelf, waiting], trigger_mode="always_last", **quiet)
    doctor.chosen.change(None, None, None, js=SCROLL_JS, **quiet)


def shelf_html(cards: Sequence[adapter_library.Card], searched: bool) -> str:
    if not cards:
        return empty("Nothing found", "No adapter has all of these words.") if searched else NOTHING
    more = len(cards) - MOST
    tail = f'<li class="more">and {more:,} more: search for them</li>' if more > 0 else ""
    return f'<ul class="shelf">{"".join(map(_card, cards[:MOST]))}{tail}</ul>'


def _card(card: adapter_library.Card) -> str:
    name = escape(card.name)
    picture = (
        f'<img src="{escape(picture_link(card.image))}" alt="" loading="lazy">'
        if card.image
        else f'<div class="tile" aria-hidden="true">{escape(card.name[:1].upper())}</div>'
    )
    rank = f"rank {card.rank}" if card.rank else ""
    facts = " · ".join(filter(None, [card.kind, rank, size(card.size)]))
    family = escape(card.family or ("" if card.problem or not card.known else "family not known"))
    words = f"<small>{escape(', '.join(card.words[:3]))}</small>" if card.words else ""
    problem = f'<small class="bad">{escape(card.problem)}</small>' if card.problem else ""
    cross = "" if card.is_run else button("remove", card.key, "×", "cross", f"Take {card.name} off the shelf")
    usable = button("add", card.key, "Add", "primary", f"Add {card.name}") + button(
        "look", card.key, "Look inside", "", f"Look inside {card.name}"
    )
    run = '<i class="pill quiet-pill">run</i>' if card.is_run else ""
    return (
        f'<li class="adapter-card" data-name="{name}">{picture}{cross}<b title="{name}">{name}</b>{run}'
        f"<small>{escape(facts)}</small><small>{family}</small>{words}{problem}"
        f'<div class="card-tools">{"" if card.problem else usable}</div></li>'
    )
