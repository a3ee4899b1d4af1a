"""The Adapters part of the Generate tab: the adapter library, and below it the inspector and merging."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from studio.services import adapter_library
from studio.services.adapter_files import adapter_name
from studio.text import size
from studio.web.components.clickable import MOST, button, clickable_html, clicked, image_link
from studio.web.components.fields import QUIET
from studio.web.components.html import empty
from studio.web.errors import show_errors
from studio.web.generate import adapter_inspector, checkpoints
from studio.web.generate.adapter_rows import word_in
from studio.web.generate.context import GenerateContext

NOTHING = empty(
    "No adapter yet", "Drop .safetensors files on the left, or train one: each is listed here with an image."
)
SCROLL_JS = "() => document.querySelector('#inspector')?.scrollIntoView({behavior: 'smooth', block: 'start'})"


class AdapterLibrary:
    """The sub-tab. timer: ticks while some headers were not read yet."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Adapters", id="library", elem_id="tab-library") as self.tab:
            self.search = gr.Textbox(
                label="Search",
                show_label=False,
                placeholder="Search by name, type, base model or trigger word",
                max_lines=1,
                container=False,
                elem_id="library-search",
            )
            self.deleted = clickable_html("library-removed")
            self.cards = clickable_html("library", NOTHING)
            self.inspector = adapter_inspector.build(context)
            checkpoints.build(context)
            self.timer = gr.Timer(1, active=False)

    def wire(self) -> None:
        context, listed = self.context, [self.cards, self.timer]
        outputs = [*listed, self.deleted, context.incoming, self.inspector.chosen]
        prompt = context.form.prompt
        self.cards.click(self.act, [self.search, prompt], [*outputs, prompt], **QUIET)
        self.deleted.click(self.act, [self.search, prompt], [*outputs, prompt], **QUIET)
        context.trash_emptied.change(lambda: "", None, self.deleted, **QUIET)
        self.search.change(self.show, self.search, listed, trigger_mode="always_last", **QUIET)
        refresh = [self.tab.select, context.keys.change, self.inspector.changed.change, self.timer.tick]
        gr.on(refresh, self.show, self.search, listed, trigger_mode="always_last", **QUIET)
        self.inspector.chosen.change(None, None, None, js=SCROLL_JS, **QUIET)

    def show(self, query):
        found = adapter_library.cards(self.workspace, query or "")
        pending = not all(card.known for card in found)
        return {self.cards: library_html(found, bool(query)), self.timer: gr.Timer(active=pending)}

    @show_errors
    def act(self, query, prompt, event: gr.EventData):
        """Add, inspect, remove or restore an adapter, or a trigger word of one into the prompt."""
        kind, key, _ = clicked(event)
        if kind == "word":
            return {self.context.form.prompt: word_in(prompt, key)}
        if kind == "add":
            return {self.context.incoming: key}
        if kind == "inspect":
            return {self.inspector.chosen: adapter_inspector.request(key)}
        if kind == "remove":
            deleted = adapter_library.remove(self.workspace, key)
            undo = button("restore", deleted, "Restore it", "link")
            line = f'<div class="note">{escape(adapter_name(key))} is in the trash. {undo}</div>'
            return self.show(query) | {self.deleted: line}
        if kind == "restore":
            adapter_library.put_back(self.workspace, key)
            return self.show(query) | {self.deleted: ""}
        return gr.skip()


def build(context: GenerateContext) -> AdapterLibrary:
    """The sub-tab. Form and rows are built before it."""
    part = AdapterLibrary(context)
    part.wire()
    return part


def library_html(cards: Sequence[adapter_library.Card], searched: bool) -> str:
    if not cards:
        return empty("Nothing found", "No adapter has all of these words.") if searched else NOTHING
    more = len(cards) - MOST
    tail = f'<li class="more">and {more:,} more: search for them</li>' if more > 0 else ""
    return f'<ul class="library">{"".join(map(_card, cards[:MOST]))}{tail}</ul>'


def _card(card: adapter_library.Card) -> str:
    name = escape(card.name)
    image = (
        f'<img src="{escape(image_link(card.image))}" alt="" loading="lazy">'
        if card.image
        else f'<div class="tile" aria-hidden="true">{escape(card.name[:1].upper())}</div>'
    )
    rank = f"rank {card.rank}" if card.rank else ""
    facts = " · ".join(filter(None, [card.kind, rank, size(card.size)]))
    family = escape(card.family or ("" if card.problem or not card.known else "base model not known"))
    chips = "".join(button("word", word, word, "chip word", f"Add {word} to the prompt") for word in card.words)
    words = f'<div class="words" title="Trigger words">{chips}</div>' if chips else ""
    problem = f'<small class="bad">{escape(card.problem)}</small>' if card.problem else ""
    cross = "" if card.is_run else button("remove", card.key, "×", "cross", f"Remove {card.name} from the library")
    usable = button("add", card.key, "Add", "primary", f"Add {card.name}") + button(
        "inspect", card.key, "Inspect", "", f"Inspect {card.name}"
    )
    run = '<i class="pill quiet-pill">run</i>' if card.is_run else ""
    return (
        f'<li class="adapter-card" data-name="{name}">{image}{cross}<b title="{name}">{name}</b>{run}'
        f"<small>{escape(facts)}</small><small>{family}</small>{words}{problem}"
        f'<div class="card-tools">{"" if card.problem else usable}</div></li>'
    )
