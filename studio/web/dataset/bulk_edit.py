"""Many captions at once: an edit is proposed, and only what is selected is written. A part of the Dataset tab."""

import gradio as gr

from studio.services import captions, datasets
from studio.text import pluralize
from studio.web.components.clickable import clickable_html, clicked
from studio.web.components.fields import QUIET
from studio.web.components.html import empty, note
from studio.web.dataset import views
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.images import filter_of
from studio.web.errors import show_errors

NOTHING = empty("No edit proposed", "Choose an action to see each caption before and after it.")


class BulkEdit:
    """Its edits are about the images that the filter under Images lets through."""

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        with (
            gr.Tab("Bulk edit", id="many", elem_id="tab-many", render_children=True),
            gr.Row(equal_height=False),
        ):
            self.proposed = gr.State([])
            with gr.Column(scale=2, min_width=260):
                self.operation = gr.Dropdown(
                    label="Action",
                    info="For the images that the filter under Images lets through.",
                    choices=[(words[0], name) for name, words in captions.OPERATIONS.items()],
                    value="add tag",
                    elem_id="operation",
                )
                self.first = gr.Textbox(label="Tag", max_lines=1, elem_id="bulk-first")
                self.second = gr.Textbox(label="New name", max_lines=1, visible=False, elem_id="bulk-second")
                self.pattern = gr.Checkbox(label="Regular expression", visible=False, elem_id="bulk-pattern")
                self.ignore_case = gr.Checkbox(label="Ignore case", visible=False, elem_id="bulk-case")
                self.preview = gr.Button("Preview changes", variant="primary", elem_id="propose")
                gr.Markdown("### Tags", elem_classes="heading")
                self.tags = clickable_html("tags")
            with gr.Column(scale=5, min_width=320):
                self.proposals = clickable_html("proposals", NOTHING)

    def wire(self) -> None:
        context, images = self.context, self.context.images
        fields = [self.first, self.second, self.pattern, self.ignore_case]
        self.operation.change(self.show_fields, self.operation, fields, **QUIET)
        gr.on(
            [self.preview.click, self.first.submit, self.second.submit],
            self.propose,
            [context.choice, self.operation, *fields, *images.filter.inputs],
            [self.proposed, self.proposals],
            **QUIET,
        )
        self.proposals.click(
            self.apply,
            [context.choice, self.proposed, self.operation],
            [self.proposed, self.proposals, context.revision],
            **QUIET,
        )
        context.revision.change(self.list_tags, context.choice, self.tags, **QUIET)
        self.tags.click(self.choose_tag, None, [self.first, images.filter.has], **QUIET)

    def show_fields(self, name):
        _, one, two = captions.OPERATIONS.get(str(name), ("", "", ""))
        searches = gr.update(visible=name == "replace")
        return {
            self.first: gr.update(label=one or "Tag", visible=bool(one)),
            self.second: gr.update(label=two or "New name", visible=bool(two)),
            self.pattern: searches,
            self.ignore_case: searches,
        }

    @show_errors
    def propose(self, dataset, name, one, two, is_pattern, any_case, *filtered):
        from studio.datasets.bulk import word_diff

        wanted = filter_of(*filtered)
        found = captions.propose(self.workspace, dataset, wanted, name, one, two, bool(is_pattern), bool(any_case))
        html = views.proposals(found, word_diff) if found else note("Nothing would change.")
        return {self.proposed: found or [], self.proposals: html}

    @show_errors
    def apply(self, dataset, found, name, event: gr.EventData):
        act, _, selected = clicked(event)
        if act not in ("apply", "apply all"):
            return gr.skip()
        wanted = found if act == "apply all" else [one for one in found if one.file in set(selected)]
        change = captions.accept(self.workspace, dataset, wanted, name)
        lines = [f"{pluralize(len(change.files), 'caption')} changed; Undo reverts all of it.", *change.left]
        return {
            self.proposed: [],
            self.proposals: note("\n".join(lines)),
            self.context.revision: datasets.stamp(self.workspace, dataset),
        }

    @show_errors
    def list_tags(self, dataset):
        from studio.datasets.bulk import tag_counts

        if not dataset:
            return ""
        opened = datasets.view(self.workspace, dataset)
        return views.tag_table(tag_counts(opened), len(opened.items))

    def choose_tag(self, event: gr.EventData):
        act, tag, _ = clicked(event)
        return {self.first: tag, self.context.images.filter.has: tag} if act == "tag" else gr.skip()


def build(context: DatasetContext) -> BulkEdit:
    """The sub-tab. Images is built before it."""
    part = BulkEdit(context)
    part.wire()
    return part
