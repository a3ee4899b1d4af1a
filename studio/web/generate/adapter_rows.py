"""The adapters of the Generate tab: a row each, with what the file is, its strength, and more when it is opened."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import adapter_files, adapter_strengths, base_offers, generation
from studio.web.components.clickable import button, clickable_html, clicked
from studio.web.components.fields import QUIET
from studio.web.components.html import note
from studio.web.errors import show_errors
from studio.web.generate.context import POOL, GenerateContext
from studio.workspace import Workspace

FRESH = (True, 1.0, None, 0.0, 1.0, "")  # the values of a new row
BLOCKS = ["", "up 0", "mid 0", "down 0", "up 0, mid 0", "down 0, mid 0", "up 0.5", "down 0.5"]


class Row:
    """The components of one row; `values` in the order of ROW_FIELDS."""

    def __init__(self, index: int):
        with (
            gr.Row(visible=False, elem_classes="adapter", elem_id=f"adapter-{index}") as self.box,
            gr.Column(min_width=200),
        ):
            with gr.Row(elem_classes="adapter-head"):
                on = gr.Checkbox(value=True, label="On", min_width=60, scale=0, elem_id=f"on-{index}")
                self.strength = gr.Slider(
                    -2,
                    2,
                    value=1.0,
                    step=0.05,
                    label="Strength",
                    interactive=True,
                    scale=6,
                    min_width=180,
                    elem_id=f"strength-{index}",
                )
                self.remove = gr.Button("Remove", size="sm", scale=0, min_width=76, elem_id=f"remove-{index}")
            self.about = clickable_html(f"about-{index}")
            with gr.Accordion("Text encoder, blocks, steps", open=False, elem_id=f"more-{index}"):
                with gr.Row():
                    text = gr.Number(
                        label="Strength on the text encoder",
                        info="Empty: the same strength.",
                        value=None,
                        step=0.05,
                        min_width=140,
                        elem_id=f"text-strength-{index}",
                    )
                    blocks = gr.Dropdown(
                        BLOCKS,
                        value="",
                        label="Blocks",
                        info="Such as: up 0.5, down.1 0",
                        allow_custom_value=True,
                        min_width=160,
                        elem_id=f"blocks-{index}",
                    )
                with gr.Row():
                    start = _share("From this share of the steps", f"start-{index}", 0)
                    end = _share("To this share", f"end-{index}", 1)
        self.on = on
        self.values: tuple[Any, ...] = (on, self.strength, text, start, end, blocks)


def _share(label: str, name: str, value: float) -> gr.Slider:
    return gr.Slider(
        minimum=0, maximum=1, step=0.05, value=value, label=label, interactive=True, min_width=140, elem_id=name
    )


class AdapterRows:
    """The rows, the list to add from, and what says that there is none. `outputs` is what `updates` answers for."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace, self.keys = context, context.workspace, context.keys
        gr.Markdown("### Adapters", elem_classes="heading")
        self.chooser = gr.Dropdown(
            label="Add an adapter", choices=[], value=None, elem_id="add-adapter", interactive=True
        )
        self.rows = [Row(index) for index in range(POOL)]
        self.none_yet = gr.HTML(note("None: images come from the base model alone."), elem_id="no-adapters")
        self.values = [part for row in self.rows for part in row.values]
        parts = [part for row in self.rows for part in (row.box, *row.values)]
        self.outputs = [self.keys, *parts, self.none_yet]

    def wire(self) -> None:
        context, chooser = self.context, self.chooser
        for index, row in enumerate(self.rows):
            row.remove.click(lambda keys, i=index: self.removed(i, keys), self.keys, self.outputs, **QUIET)
            form = context.form
            inputs, outputs = [form.prompt, self.keys, form.base], [form.prompt, context.to_sweep, *form.of_base]
            row.about.click(self.row_clicked(index), inputs, outputs, **QUIET)
        gr.on(
            [self.keys.change, context.form.base.change],
            self.describe,
            [self.keys, context.form.base],
            [row.about for row in self.rows],
            trigger_mode="always_last",
            **QUIET,
        )
        chooser.input(self.add_chosen, [chooser, self.keys], [*self.outputs, chooser], **QUIET)
        chooser.focus(self.choices, None, chooser, **QUIET)
        incoming = context.incoming
        incoming.change(self.add_incoming, [incoming, self.keys], [*self.outputs, incoming], **QUIET)
        context.demo.load(self.choices, None, chooser, **QUIET)

    def choices(self):
        return gr.update(choices=generation.available_adapters(self.workspace))

    @show_errors
    def add_chosen(self, key, keys):
        return self.added(key, keys) | {self.chooser: gr.update(value=None)} if key else gr.skip()

    @show_errors
    def add_incoming(self, key, keys):
        return self.added(key, keys) | {self.context.incoming: ""} if key else gr.skip()

    def added(self, key: str, keys: Sequence[str] | None) -> dict[Any, Any]:
        """Updates that give an adapter a row. Raises StudioError."""
        check(self.workspace, key)
        return self.with_added(keys, [key])

    def with_added(self, keys: Sequence[str] | None, wanted: Sequence[str]) -> dict[Any, Any]:
        held, new = add(keys or [], wanted)
        return self.updates(held, {row: self.fresh(held[row]) for row in new})

    def fresh(self, key: str) -> tuple[Any, ...]:
        """The values of a new row: its adapter at the strength at which it was drawn last."""
        return (FRESH[0], adapter_strengths.strength_of(self.workspace, key), *FRESH[2:])

    def removed(self, index: int, keys: Sequence[str] | None) -> dict[Any, Any]:
        return self.updates([("" if place == index else key) for place, key in enumerate(keys or [])])

    def updates(self, keys: Sequence[str], fresh: Mapping[int, Sequence[Any]] | None = None) -> dict[Any, Any]:
        """Of `outputs`. fresh: {row: values in the order of ROW_FIELDS} of the rows that get new ones."""
        names = {key: label for label, key in generation.available_adapters(self.workspace)}
        found: dict[Any, Any] = {self.keys: list(keys), self.none_yet: gr.update(visible=not any(keys))}
        for index, row in enumerate(self.rows):
            key = keys[index] if index < len(keys) else ""
            found[row.box] = gr.update(visible=bool(key))
            if not key:
                continue
            new = (fresh or {}).get(index)
            if new:
                found |= {part: gr.update(value=value) for part, value in zip(row.values, new)}
            label = names.get(key, key.partition(":")[2])
            found[row.strength] = gr.update(label=label, **({"value": new[1]} if new else {}))
        return found

    def row_clicked(self, index: int) -> Callable[..., Any]:
        """The handler of a click on what a row says: a trigger word, a strength sweep, or another base model."""

        @show_errors
        def act(prompt, keys, base, event: gr.EventData):
            kind, arg, _ = clicked(event)
            if kind == "word":
                return {self.context.form.prompt: word_in(prompt, arg)}
            if kind == "base":
                key = (keys or [])[index : index + 1]
                return self.other_base(key[0], base) if key else gr.skip()
            return {self.context.to_sweep: f"{index} {time.time()}"} if kind == "sweep" else gr.skip()

        return act

    def other_base(self, key: str, base: str) -> dict[Any, Any]:
        """The base that was offered for an adapter, chosen or on its way."""
        offer = base_offers.base_offer(self.workspace, key, base)
        if offer is None:
            raise StudioError("Nothing on this machine is known to fit it any more: choose a base model.")
        name = base_offers.take(self.workspace, offer)
        if not name:
            gr.Info(f"Fetching {escape(offer.place)}; the line on top shows how far it is. Then choose it here.")
            return gr.skip()
        return self.context.form.with_base(name)

    def describe(self, keys, base):
        """What each adapter is, and how it fits the base of this name."""
        held = [*(keys or []), *[""] * POOL][:POOL]
        return {row.about: about_html(self.workspace, key, base) if key else "" for row, key in zip(self.rows, held)}


def build(context: GenerateContext) -> AdapterRows:
    """The rows, inside the caller's column. The form is built before them."""
    part = AdapterRows(context)
    context.rows = part
    part.wire()
    return part


def about_html(workspace: Workspace, key: str, base: str) -> str:
    line, words, bad = generation.adapter_summary(workspace, key, base)
    chips = "".join(button("word", word, word, "chip word", f"Add {word} to the prompt") for word in words)
    sweep = "" if bad else button("sweep", "", "Strength sweep", "link", "Strength sweep of this adapter")
    if bad:
        with suppress(StudioError):  # the line says what is wrong with it
            offer = base_offers.base_offer(workspace, key, base)
            sweep = button("base", "", offer.text, "primary") if offer else ""
    return note(line, bad=bad) + f'<div class="words">{chips}{sweep}</div>'


def add(keys: Sequence[str], wanted: Sequence[str]) -> tuple[list[str], list[int]]:
    """(keys, the new rows): each wanted one in a free row; one that is there already stays as it is."""
    held, new = [*keys, *[""] * POOL][:POOL], []
    for key in wanted:
        if key in held:
            continue
        if "" not in held:
            raise StudioError(f"{POOL} adapters at once is the most: remove one first.")
        new.append(held.index(""))
        held[new[-1]] = key
    return held, new


def known_keys(workspace: Workspace, keys: Any) -> list[str]:
    """Of what a browser remembers, the adapters that are still here."""
    here = {key for _, key in generation.available_adapters(workspace)}
    found = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    return [key for key in found if key in here or _is_checkpoint(workspace, key)][:POOL]


def _is_checkpoint(workspace: Workspace, key: str) -> bool:
    return "@" in key and adapter_files.key_of(workspace, key.removeprefix("run:")) == key


def check(workspace: Workspace, key: str) -> None:
    """Raises StudioError when there is no such adapter."""
    if not key.startswith(generation.LIVE):
        adapter_files.adapter_path(workspace, key)


def word_in(prompt: str, word: str) -> str:
    """The prompt with a trigger word in front, once."""
    word = word.replace("(", r"\(").replace(")", r"\)")
    if word.lower() in (prompt or "").lower():
        return prompt
    return f"{word}, {prompt}" if (prompt or "").strip() else word
