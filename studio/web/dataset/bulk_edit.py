"""Many captions at once: an edit is proposed, and only what is ticked is written. A part of the Dataset tab."""

from collections.abc import Callable

import gradio as gr

from studio.services import captions, datasets
from studio.text import pluralize
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE
from studio.web.components.html import empty, note
from studio.web.errors import show_errors
from studio.workspace import Workspace

NOTHING = empty("No edit proposed", "Choose what to do; you see each caption before and after.")


def bulk_board(
    workspace: Workspace,
    choice: gr.Dropdown,
    revision: gr.State,
    filters: list[gr.components.Component],
    filter_of: Callable,
    has_tag: gr.Dropdown,
) -> None:
    """The sub-tab. filters: of the pictures that the edit is about, as fields; filter_of makes a Filter of them."""
    proposed = gr.State([])
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            operation = gr.Dropdown(
                label="Do this",
                info="To the pictures that the filter under Pictures lets through.",
                choices=[(words[0], name) for name, words in captions.OPERATIONS.items()],
                value="add tag",
                elem_id="operation",
            )
            first = gr.Textbox(label="Tag", max_lines=1, elem_id="bulk-first")
            second = gr.Textbox(label="New name", max_lines=1, visible=False, elem_id="bulk-second")
            pattern = gr.Checkbox(label="Regular expression", visible=False, elem_id="bulk-pattern")
            any_case = gr.Checkbox(label="In any case", visible=False, elem_id="bulk-case")
            go = gr.Button("Show what would change", variant="primary", elem_id="propose")
            gr.Markdown("### Tags", elem_classes="heading")
            tags = clickable.board("tags")
        with gr.Column(scale=5, min_width=320):
            board = clickable.board("proposals", NOTHING)

    def show_fields(name):
        _, one, two = captions.OPERATIONS.get(name, ("", "", ""))
        words = name == "replace"
        return (
            gr.update(label=one or "Tag", visible=bool(one)),
            gr.update(label=two or "New name", visible=bool(two)),
            gr.update(visible=words),
            gr.update(visible=words),
        )

    @show_errors
    def propose(dataset, name, one, two, is_pattern, any_letters, *wanted):
        from studio.datasets.bulk import word_diff

        found = captions.propose(
            workspace, dataset, filter_of(*wanted), name, one, two, bool(is_pattern), bool(any_letters)
        )
        if not found:
            return [], note("Nothing would change.")
        return found, clickable.proposals(found, word_diff)

    @show_errors
    def apply(dataset, found, name, event: gr.EventData):
        act, _, ticked = clickable.clicked(event)
        if act not in ("apply", "apply all"):
            return [gr.skip()] * 3
        wanted = found if act == "apply all" else [one for one in found if one.file in set(ticked)]
        change = captions.accept(workspace, dataset, wanted, name)
        lines = [f"{pluralize(len(change.files), 'caption')} changed; Undo takes all of it back.", *change.left]
        return [], note("\n".join(lines)), datasets.stamp(workspace, dataset)

    def table(dataset):
        from studio.datasets.bulk import tag_counts

        if not dataset:
            return ""
        opened = datasets.view(workspace, dataset)
        return clickable.tag_table(tag_counts(opened), len(opened.items))

    def choose(event: gr.EventData):
        act, tag, _ = clickable.clicked(event)
        return (tag, tag) if act == "tag" else (gr.skip(), gr.skip())

    inputs = [operation, first, second, pattern, any_case]
    operation.change(show_fields, operation, [first, second, pattern, any_case], **NO_PROGRESS, **PRIVATE)
    gr.on(
        [go.click, first.submit, second.submit],
        propose,
        [choice, *inputs, *filters],
        [proposed, board],
        **NO_PROGRESS,
        **PRIVATE,
    )
    board.click(apply, [choice, proposed, operation], [proposed, board, revision], **NO_PROGRESS, **PRIVATE)
    revision.change(show_errors(table), choice, tags, **NO_PROGRESS, **PRIVATE)
    tags.click(choose, None, [first, has_tag], **NO_PROGRESS, **PRIVATE)
