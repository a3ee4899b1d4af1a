"""The images of a dataset, page by page, and the filter over them. A part of the Dataset tab."""

import re
from html import escape
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.services import datasets
from studio.services.thumbnails import thumbnail
from studio.web.components.fields import QUIET, UNQUEUED, gallery
from studio.web.components.html import first_lines, note
from studio.web.dataset.context import DatasetContext

PAGE = 48  # images on one page of the grid
SORTS = {
    "Name": "name",
    "Caption": "caption",
    "Length of caption": "words",
    "Size": "pixels",
    "Aspect ratio": "aspect",
}
SHOWN = ["All", "Without caption", "With caption"]
SKELETON = f'<div class="cells-to-come" aria-hidden="true">{"<i></i>" * 12}</div>'  # where the images will stand
TAGS = 500  # offered to choose from; any other can be typed


class ImageFilter:
    """The fields of the filter, in two rows; `filter_of` takes the values of `inputs`."""

    def __init__(self) -> None:
        with gr.Row(equal_height=False):
            self.find = gr.Textbox(label="Find in captions", max_lines=1, elem_id="find", min_width=150, scale=2)
            self.has = _tag_field("Has tag", "has-tag")
            self.lacks = _tag_field("Lacks tag", "lacks-tag")
            self.captioned = gr.Dropdown(label="Show", choices=SHOWN, value="All", elem_id="show", min_width=130)
            self.sort = gr.Dropdown(label="Sort by", choices=list(SORTS), value="Name", elem_id="sort", min_width=130)
        with gr.Accordion("More filters", open=False, elem_id="more-filters"):
            with gr.Row(equal_height=True):
                self.pattern = gr.Checkbox(label="Find by regular expression", elem_id="find-pattern", min_width=160)
                self.descending = gr.Checkbox(label="Descending", elem_id="sort-down", min_width=140)
            with gr.Row(equal_height=True):
                self.fewest = _number("Fewest words", "fewest", minimum=0)
                self.most = _number("Most words", "most")
                self.smaller = _number("Shorter side below", "smaller")
                self.larger = _number("Shorter side from", "larger")
                self.name = gr.Textbox(label="File name has", max_lines=1, elem_id="name-part", min_width=110)

    @property
    def inputs(self) -> list[Any]:
        return [
            self.find,
            self.has,
            self.lacks,
            self.captioned,
            self.pattern,
            self.fewest,
            self.most,
            self.smaller,
            self.larger,
            self.name,
        ]


def _tag_field(label: str, name: str) -> gr.Dropdown:
    return gr.Dropdown(label=label, choices=[], value=None, allow_custom_value=True, elem_id=name, min_width=130)


def _number(label: str, name: str, **options) -> gr.Number:
    return gr.Number(label=label, value=None, precision=0, elem_id=name, min_width=110, **options)


def filter_of(find, has, lacks, captioned, pattern, fewest, most, smaller, larger, name):
    """A `datasets.bulk.Filter`, from the values of `ImageFilter.inputs`."""
    from studio.datasets.bulk import Filter

    find, most = find or "", most or 0
    return Filter(
        has=_tag(has),
        lacks=_tag(lacks),
        pattern=find if pattern else re.escape(find),
        words=(int(fewest or 0), int(most) or 10**6) if fewest or most else None,
        smaller_than=int(smaller or 0),
        at_least=int(larger or 0),
        captioned={"Without caption": False, "With caption": True}.get(captioned),
        name=name or "",
    )


def _tag(value) -> str:
    return (value or "").strip() if isinstance(value, str) else ""


class Images:
    """The sub-tab. image_editor.py fills `side`, the column beside the grid.

    picked    "dataset/file" of the image that is open beside the grid, which is marked in it
    shown     [file, caption] of each image on the page that is open, so that a click names an image, not a position
    listing   the fields that decide which images are listed, in which order: what `listed` takes the values of
    """

    def __init__(self, context: DatasetContext):
        self.context, self.workspace = context, context.workspace
        with gr.Tab("Images", id="images", elem_id="tab-images"):
            self.page, self.shown = gr.State(0), gr.State([])
            self.picked = gr.Textbox(visible=False)
            self.filter = ImageFilter()
            with gr.Row(equal_height=False):
                with gr.Column(scale=6, min_width=320, elem_classes="middle"):
                    self.summary = gr.HTML(elem_id="dataset-summary")
                    gr.HTML(SKELETON, elem_id="skeleton", padding=False)
                    self.grid = gallery("images", allow_preview=False)
                    with gr.Row(visible=False) as self.pager:
                        self.back = gr.Button("← Previous page", size="sm", min_width=90, elem_id="previous-page")
                        self.where = gr.HTML(elem_id="page")
                        self.forth = gr.Button("Next page →", size="sm", min_width=90, elem_id="next-page")
                self.side = gr.Column(scale=4, min_width=280, elem_classes="side")
        self.listing = [context.choice, self.filter.sort, self.filter.descending, *self.filter.inputs]
        self.outputs = [
            self.summary,
            self.grid,
            self.page,
            self.shown,
            self.pager,
            self.where,
            self.back,
            self.forth,
        ]

    def wire(self) -> None:
        choice, revision, fields = self.context.choice, self.context.revision, self.filter
        for field in self.listing[1:]:
            field.change(
                self.show_first, [self.picked, *self.listing], self.outputs, trigger_mode="always_last", **UNQUEUED
            )
        placed = [self.page, self.picked, *self.listing]
        revision.change(self.show, placed, self.outputs, **QUIET)
        revision.change(self.offer_tags, choice, [fields.has, fields.lacks], **QUIET)
        self.back.click(self.show_previous, placed, self.outputs, **UNQUEUED)
        self.forth.click(self.show_next, placed, self.outputs, **UNQUEUED)

    def listed(self, dataset, by, descending, *filtered) -> tuple[Any, list[Any]]:
        """(the dataset, the items that the filter lets through, in their order). Raises StudioError."""
        from studio.datasets.bulk import select, sort_items

        opened = datasets.view(self.workspace, dataset)
        return opened, sort_items(select(opened, filter_of(*filtered)), SORTS.get(by, "name"), bool(descending))

    def show(self, number, picked, dataset, *rest):
        if not dataset:
            return {self.summary: "", self.grid: gr.update(value=[], visible=False), self.shown: [], self.page: 0}
        try:
            return self.updates(*self.listed(dataset, *rest), number, picked)
        except StudioError as error:  # a pattern that is half typed, or a dataset that was deleted
            return {self.summary: note(str(error), bad=True)}

    def show_first(self, *given):
        return self.show(0, *given)

    def show_previous(self, number, *given):
        return self.show(number - 1, *given)

    def show_next(self, number, *given):
        return self.show(number + 1, *given)

    def updates(self, opened, items: list[Any], number: int, picked: str | None = "") -> dict[Any, Any]:
        """Of all `outputs`, for this page of these items. picked: as `picked` will be."""
        last = max(0, (len(items) - 1) // PAGE)
        number = min(max(0, number), last)
        here = items[number * PAGE : (number + 1) * PAGE]
        cells = [(str(thumbnail(self.workspace, item.path)), item.caption or "no caption") for item in here]
        first, shown = number * PAGE + 1, [[opened.file_of(item), item.caption] for item in here]
        return {
            self.summary: _summary(opened, len(items)),
            self.grid: gr.update(value=cells, visible=bool(cells), selected_index=place_in(shown, opened.name, picked)),
            self.page: number,
            self.shown: shown,
            self.pager: gr.update(visible=last > 0),
            self.where: note(f"{first:,}–{first + len(here) - 1:,} of {len(items):,}"),
            self.back: gr.update(interactive=number > 0),
            self.forth: gr.update(interactive=number < last),
        }

    def offer_tags(self, dataset):
        from studio.datasets.bulk import tag_counts

        try:
            counts = tag_counts(datasets.view(self.workspace, dataset)) if dataset else {}
        except StudioError:
            counts = {}
        offered = gr.update(choices=[(f"{tag}  ({count:,})", tag) for tag, count in list(counts.items())[:TAGS]])
        return {self.filter.has: offered, self.filter.lacks: offered}


def build(context: DatasetContext) -> Images:
    """The sub-tab, without the editor."""
    part = Images(context)
    part.wire()
    return part


def place_in(shown: list[list[str]], dataset: str, picked: str | None) -> int | None:
    """Where the image that is open stands on a page of the grid; None when it isn't on it."""
    return next((place for place, (file, _) in enumerate(shown) if f"{dataset}/{file}" == picked), None)


def _summary(opened, listed: int) -> str:
    """How many images there are, how many are captioned and listed; what became of every other file, and why."""
    captioned, total = sum(bool(item.caption) for item in opened.items), len(opened.items)
    facts = f"<b>{total:,}</b> image{'s' * (total != 1)} · <b>{captioned:,}</b> with a caption"
    if listed < total:
        facts += f" · <b>{listed:,}</b> found"
    if opened.problems or opened.unrelated:
        facts += f" · {escape(opened.account_of_others())}"
    problems = first_lines([f"Left out: {line}" for line in opened.problems], bad=True)
    return f'<div class="note">{facts}</div>{problems}{first_lines(opened.warnings)}'
