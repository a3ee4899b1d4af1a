"""What the chosen base knows by name: words that it will ignore, under the prompt, and a list to choose from."""

from contextlib import suppress
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import vocabulary
from studio.services.evaluation import trigger_words
from studio.text import pluralize
from studio.web.components.clickable import button, clickable_html, clicked
from studio.web.components.fields import QUIET
from studio.web.components.html import empty, html_list, note
from studio.web.generate.context import GenerateContext
from studio.workspace import Workspace

MOST = 8  # unknown words that are named


class Words:
    """Both are empty for a base without a list of its words."""

    def __init__(self, context: GenerateContext):
        self.context, self.workspace = context, context.workspace
        self.unknown = gr.HTML(elem_id="unknown-words")
        with gr.Accordion("What this base knows", open=False, visible=False, elem_id="known-words") as self.box:
            self.names = gr.Dropdown(
                [],
                label="Names",
                info="Type to search. A choice is put into the prompt.",
                value=None,
                filterable=True,
                interactive=True,
                elem_id="known-names",
            )
            self.others = gr.HTML(elem_id="known-styles")

    def wire(self, prompt: gr.Textbox, base: gr.Dropdown) -> None:
        changes = [prompt.change, base.change, self.context.keys.change]
        gr.on(changes, self.mark, [prompt, base, self.context.keys], self.unknown, trigger_mode="always_last", **QUIET)
        gr.on([self.context.demo.load, base.change], self.show, base, [self.box, self.names, self.others], **QUIET)
        self.names.input(self.add, [self.names, prompt], [self.names, prompt], **QUIET)

    def mark(self, prompt, base, keys):
        """The words that the base and the adapters in use do not know."""
        triggers: list[str] = []
        for key in filter(None, keys or []):
            with suppress(StudioError):  # an adapter that is gone is said in its row
                triggers += trigger_words(self.workspace, key)
        found = vocabulary.unknown_words(self.workspace, (prompt or "")[:4000], triggers, base)
        lines = [escape(one.message) for one in found[:MOST]]
        if len(found) > MOST:
            lines.append(f"and {pluralize(len(found) - MOST, 'more word')}")
        return html_list(lines, "quiet")

    def show(self, base):
        known = vocabulary.vocabulary(self.workspace, base)
        if known is None:
            return {self.box: gr.update(visible=False)}
        names = [
            (name + (f" ({', '.join(other)})" if (other := known.synonyms.get(name)) else ""), name)
            for name in known.names
        ]
        styles = ", ".join(f"{style} style" for style in known.styles)
        return {
            self.box: gr.update(visible=True, label=f"What this base knows: {pluralize(len(names), 'name')}"),
            self.names: gr.update(choices=names, value=None),
            self.others: note(f"Styles: {styles}\nBackgrounds: {', '.join(known.colours)}"),
        }

    def add(self, name, prompt):
        """A name was chosen."""
        return {self.names: None, self.context.form.prompt: added(prompt, name)} if name else gr.skip()


def build(context: GenerateContext) -> Words:
    """Under the prompt. The caller wires it."""
    return Words(context)


class Examples:
    """What stands where the image will be: what to do, and prompts to begin with. HTML is `box`."""

    def __init__(self, context: GenerateContext, title: str, text: str):
        self.workspace, self.start = context.workspace, empty(title, text)
        self.box = clickable_html("examples", self.start)

    def wire(self, context: GenerateContext) -> None:
        form = context.form
        gr.on([context.demo.load, form.base.change], self.show, form.base, self.box, **QUIET)
        self.box.click(self.take, None, form.prompt, **QUIET)

    def show(self, base):
        return self.start + examples_html(self.workspace, base)

    def take(self, event: gr.EventData):
        act, prompt, _ = clicked(event)
        return prompt if act == "prompt" else gr.skip()


def examples_html(workspace: Workspace, base: Any) -> str:
    """Six prompts of things that the base knows, a button each; "" for a base without a list of its words."""
    known = vocabulary.vocabulary(workspace, base)
    prompts = known.examples() if known else []
    buttons = "".join(button("prompt", one, one, "chip word", f"Write {one}") for one in prompts)
    return f'<div class="words">{buttons}</div>' if buttons else ""


def added(prompt: str | None, word: str) -> str:
    """The prompt with a word behind what stands there."""
    before = (prompt or "").rstrip().rstrip(",")
    return f"{before}, {word}" if before else word
