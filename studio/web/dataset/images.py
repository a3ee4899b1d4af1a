"""The pictures of a set, page by page, and one of them large with its caption. A part of the Dataset tab."""

import re
from dataclasses import dataclass

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import base_models, captions, datasets
from studio.services.thumbnails import LARGE, thumbnail
from studio.web.components import clickable
from studio.web.components.fields import NO_PROGRESS, PRIVATE, gallery
from studio.web.components.html import empty, note
from studio.web.errors import show_errors
from studio.workspace import Workspace

PAGE = 48  # pictures on one page of the grid
NOTHING = empty("No dataset open", "Choose a sample on the left, or drop about twenty pictures of your own.")
UNPICKED = empty("No picture selected", "Click one to see it large and to edit its caption.")
SORTS = {
    "Name": "name",
    "Caption": "caption",
    "Length of caption": "words",
    "Size": "pixels",
    "Longest shape": "aspect",
}
SHOWN = ["All", "Without caption", "With caption"]
TAGS = 500  # offered to choose from; any other can be typed

# ← → and Page Up, Page Down go to the next picture, unless something is being typed where the arrows have a meaning.
KEYS = """() => {
  if (window.studioKeys) return;
  window.studioKeys = true;
  document.addEventListener('keydown', event => {
    const typing = event.target.closest('input, textarea, [role=listbox], [role=tab], [data-place]');
    const mine = event.target.closest('#caption');
    const side = {PageUp: 'previous', PageDown: 'next'}[event.key]
      || (!typing && !event.altKey && {ArrowLeft: 'previous', ArrowRight: 'next'}[event.key]);
    const button = side && (mine || !typing) && document.querySelector(`#${side}`);
    if (!button || !button.offsetParent) return;
    event.preventDefault();
    button.click();
  });
}"""


@dataclass(frozen=True)
class Pictures:
    """shown: [file, caption] pairs of the page that is open; filters: what `filter_of` reads."""

    shown: gr.State
    filters: list[gr.components.Component]
    has_tag: gr.Dropdown


def filter_of(find, has, lacks, shown, pattern, fewest, most, smaller, larger, name):
    """A Filter of what stands in the filter's fields."""
    from studio.datasets.bulk import Filter

    find, most = find or "", most or 0
    return Filter(
        has=_tag(has),
        lacks=_tag(lacks),
        pattern=find if pattern else re.escape(find),
        words=(int(fewest or 0), int(most) or 10**6) if fewest or most else None,
        smaller_than=int(smaller or 0),
        at_least=int(larger or 0),
        captioned={"Without caption": False, "With caption": True}.get(shown),
        name=name or "",
    )


def _tag(value) -> str:
    return (value or "").strip() if isinstance(value, str) else ""


def picture_pages(
    workspace: Workspace, demo: gr.Blocks, choice: gr.Dropdown, revision: gr.State, asked: gr.State
) -> Pictures:
    """The sub-tab. asked: "dataset/file" of a picture to open, from elsewhere."""
    page, batch = gr.State(0), gr.State("")
    shown = gr.State([])  # [file, caption] on this page, so that a click means a picture and not a position
    picked = gr.Textbox(visible=False)  # "dataset/file": held by the page, so that it and its caption travel together
    loaded = gr.Textbox(visible=False)  # what was put into the editor: only an edited caption is written
    with gr.Row(equal_height=False):
        find = gr.Textbox(label="Find in captions", max_lines=1, elem_id="find", min_width=150, scale=2)
        has = gr.Dropdown(
            label="Has tag", choices=[], value=None, allow_custom_value=True, elem_id="has-tag", min_width=130
        )
        lacks = gr.Dropdown(
            label="Lacks tag", choices=[], value=None, allow_custom_value=True, elem_id="lacks-tag", min_width=130
        )
        which = gr.Dropdown(label="Show", choices=SHOWN, value="All", elem_id="show", min_width=130)
        sort = gr.Dropdown(label="Sort by", choices=list(SORTS), value="Name", elem_id="sort", min_width=130)
    with gr.Accordion("More filters", open=False, elem_id="more-filters"):
        with gr.Row(equal_height=True):
            pattern = gr.Checkbox(label="Find by regular expression", elem_id="find-pattern", min_width=160)
            down = gr.Checkbox(label="Sort downwards", elem_id="sort-down", min_width=140)
        with gr.Row(equal_height=True):
            fewest = gr.Number(
                label="Fewest words", value=None, precision=0, minimum=0, elem_id="fewest", min_width=110
            )
            most = gr.Number(label="Most words", value=None, precision=0, elem_id="most", min_width=110)
            smaller = gr.Number(label="Shorter side below", value=None, precision=0, elem_id="smaller", min_width=110)
            larger = gr.Number(label="Shorter side from", value=None, precision=0, elem_id="larger", min_width=110)
            part = gr.Textbox(label="File name has", max_lines=1, elem_id="name-part", min_width=110)
    with gr.Row(equal_height=False):
        with gr.Column(scale=6, min_width=320, elem_classes="middle"):
            summary = gr.HTML(NOTHING, elem_id="dataset-summary")
            grid = gallery("pictures", allow_preview=False)
            with gr.Row(visible=False) as pager:
                back = gr.Button("← Previous page", size="sm", min_width=90, elem_id="previous-page")
                where = gr.HTML(elem_id="page")
                forth = gr.Button("Next page →", size="sm", min_width=90, elem_id="next-page")
        with gr.Column(scale=4, min_width=280, visible=False, elem_classes="side") as side:
            blank = gr.HTML(UNPICKED)
            with gr.Column(visible=False) as editor:
                large = gr.Image(
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="large",
                    type="filepath",
                    elem_classes="picture",
                )
                caption = gr.Textbox(
                    label="Caption", lines=3, max_lines=8, submit_btn=False, elem_id="caption", interactive=True
                )
                tokens = gr.HTML(elem_id="tokens")
                chips = clickable.board("chips")
                with gr.Row():
                    previous = gr.Button("← Previous", size="md", min_width=90, elem_id="previous")
                    remove = gr.Button("Remove", size="md", min_width=80, elem_id="remove-picture")
                    following = gr.Button("Next →", size="md", min_width=90, elem_id="next")
                saved = gr.HTML(elem_id="saved")

    filters = [find, has, lacks, which, pattern, fewest, most, smaller, larger, part]
    looking = [choice, sort, down, *filters]

    # The grid ----------------------------------------------------------------------------------------------------

    def chosen(dataset, by, downwards, *wanted):
        """(the set, the items that the filter lets through, in their order)."""
        from studio.datasets.bulk import select, sort_items

        opened = datasets.view(workspace, dataset)
        return opened, sort_items(select(opened, filter_of(*wanted)), SORTS.get(by, "name"), bool(downwards))

    def grid_of(found, number: int):
        """Updates for summary, grid, page, shown, pager, where, back, forth, side."""
        opened, items = found
        last = max(0, (len(items) - 1) // PAGE)
        number = min(max(0, number), last)
        here = items[number * PAGE : (number + 1) * PAGE]
        cells = [(str(thumbnail(workspace, item.path)), item.caption or "no caption") for item in here]
        captioned = sum(bool(item.caption) for item in opened.items)
        total = len(opened.items)
        facts = f"<b>{total:,}</b> picture{'s' * (total != 1)} · <b>{captioned:,}</b> with a caption"
        if len(items) < total:
            facts += f" · <b>{len(items):,}</b> found"
        problems = note("\n".join(f"Left out: {line}" for line in opened.problems[:20]), bad=True)
        first = number * PAGE + 1
        return (
            f'<div class="note">{facts}</div>{problems}',
            gr.update(value=cells, visible=bool(cells), selected_index=None),
            number,
            [[opened.file_of(item), item.caption] for item in here],
            gr.update(visible=last > 0),
            note(f"{first:,}–{first + len(here) - 1:,} of {len(items):,}"),
            gr.update(interactive=number > 0),
            gr.update(interactive=number < last),
            gr.update(visible=True),
        )

    view = [summary, grid, page, shown, pager, where, back, forth, side]
    skip_view = [gr.skip()] * len(view)

    def show(number, dataset, *rest):
        if not dataset:
            return skip_view
        try:
            return grid_of(chosen(dataset, *rest), number)
        except StudioError as error:  # a pattern that is half typed, or a set that is gone: said where one looks
            return [note(str(error), bad=True), *skip_view[1:]]

    def turn(number, by, *rest):
        return show(number + by, *rest)

    def tag_choices(dataset):
        from studio.datasets.bulk import tag_counts

        try:
            counts = tag_counts(datasets.view(workspace, dataset)) if dataset else {}
        except StudioError:
            counts = {}
        offered = [(f"{tag}  ({count:,})", tag) for tag, count in list(counts.items())[:TAGS]]
        return gr.update(choices=offered), gr.update(choices=offered)

    # One picture -------------------------------------------------------------------------------------------------

    def as_shown(key: str, text: str) -> str:
        """With its picture's name, since the answer to a save may come when the next picture is open already."""
        return f"{key}\n{text or ''}"

    def beside(dataset, file: str, text: str) -> tuple[str, str]:
        """Updates for tokens and chips of a caption as it stands on the disk."""
        from studio.datasets import authors
        from studio.datasets.phrases import is_prose

        counter = base_models.counter(workspace)
        count, cut = counter(text)
        return clickable.tokens_line(count, counter.room, cut), clickable.chips(authors(dataset, file), is_prose(text))

    def editor_of(dataset, item, place: str):
        """Updates for large, caption, saved, picked, editor, blank, loaded, tokens, chips, batch."""
        name, text = dataset.file_of(item), datasets.caption_now(item)
        copy = thumbnail(workspace, item.path, LARGE)
        return (
            str(copy),
            gr.update(value=text, label=f"Caption of {name}{place}"),
            "",
            f"{dataset.name}/{name}",
            gr.update(visible=True),
            gr.update(visible=False),
            as_shown(f"{dataset.name}/{name}", text),
            *beside(dataset, name, text),
            datasets.new_batch(),
        )

    one = [large, caption, saved, picked, editor, blank, loaded, tokens, chips, batch]
    skip_one = [gr.skip()] * len(one)

    def closed():
        """Nothing is picked."""
        return ["", "", "", "", gr.update(visible=False), gr.update(visible=True), "", "", "", ""]

    def place_of(items, item) -> str:
        return f"  ({items.index(item) + 1:,} of {len(items):,})" if item in items else ""

    def open_at(files, index: int, dataset, *rest):
        if not 0 <= index < len(files):
            return skip_one
        opened, items = chosen(dataset, *rest)
        item = datasets.find_item(opened, files[index][0])
        return editor_of(opened, item, place_of(items, item))

    def keep(key: str, text: str, was: str, step: str) -> bool:
        """Save what a person edited; True when the file changed. What was only looked at never replaces newer words."""
        dataset, _, file = (key or "").partition("/")
        if not file or as_shown(key, text) == was:
            return False
        before = datasets.caption_now(datasets.find_item(datasets.view(workspace, dataset), file))
        return captions.save_caption(workspace, dataset, file, text or "", batch=step) != before

    @show_errors
    def typed(key, text, was, step):
        """While a person types: written at once; tokens and chips follow."""
        dataset, _, file = (key or "").partition("/")
        if not file or as_shown(key, text) == was:
            return [gr.skip()] * 4
        keep(key, text, was, step)
        opened = datasets.view(workspace, dataset)
        now = datasets.caption_now(datasets.find_item(opened, file))
        return note("Saved."), as_shown(key, text), *beside(opened, file, now)

    @show_errors
    def left(key, text, was, step, number, files, *looking_at):
        """The field was left: the grid shows the new words too."""
        keep(key, text, was, step)
        dataset, _, file = (key or "").partition("/")
        if dataset != looking_at[0] or [file, " ".join((text or "").split())] in files:
            return [*skip_view, as_shown(key, text)]
        return [*grid_of(chosen(*looking_at), number), as_shown(key, text)]

    @show_errors
    def go(by, key, text, was, step, number, files, *looking_at):
        """To the next picture that the filter lets through, or the one before."""
        dataset, _, file = (key or "").partition("/")
        changed = keep(key, text, was, step)
        opened, items = chosen(*looking_at)
        names = [opened.file_of(item) for item in items]
        if file in names:
            index = names.index(file) + by
        else:  # its new caption no longer passes the filter: the one that stands in its place now
            index = min(len(items) - 1, number * PAGE + next((n for n, one in enumerate(files) if one[0] == file), 0))
        if not 0 <= index < len(items):
            return [*skip_view, *skip_one]
        moved = changed or index // PAGE != number or [file, " ".join((text or "").split())] not in files
        updates = grid_of((opened, items), index // PAGE) if moved else skip_view
        return [*updates, *editor_of(opened, items[index], f"  ({index + 1:,} of {len(items):,})")]

    @show_errors
    def chip(key, text, step, event: gr.EventData):
        """A tag dropped, moved or added by its chip."""
        from studio.datasets.phrases import join, split

        act, arg, _ = clickable.clicked(event)
        dataset, _, file = (key or "").partition("/")
        tags, places = list(split(text or "")), [int(word) for word in arg.split() if word.isdigit()]
        if act == "add":
            tags += [tag.strip() for tag in arg.split(",") if tag.strip()]
        elif act == "drop" and len(places) == 1 and places[0] < len(tags):
            tags.pop(places[0])
        elif act == "move" and len(places) == 2 and max(places) < len(tags):
            tags.insert(places[1], tags.pop(places[0]))
        else:
            return [gr.skip()] * 6
        now = captions.save_caption(workspace, dataset, file, join(tags), batch=step)
        tokens_now, chips_now = beside(datasets.view(workspace, dataset), file, now)
        return now, as_shown(key, now), note("Saved."), tokens_now, chips_now, datasets.stamp(workspace, dataset)

    @show_errors
    def take_out(key):
        dataset, _, file = (key or "").partition("/")
        if not file:
            raise DatasetError("Choose a picture first.")
        datasets.remove_images(workspace, dataset, [file])
        return [*closed(), datasets.stamp(workspace, dataset)]

    @show_errors
    def renew(key, text, was, dataset):
        """Undo, captioning and other pages change captions too: an unedited field follows, an edited one stays."""
        owner, _, file = (key or "").partition("/")
        if not file:
            return skip_one
        if owner != dataset:
            return closed()
        opened = datasets.view(workspace, dataset)
        item = opened.by_file().get(file)
        if item is None:
            return closed()
        now = datasets.caption_now(item)
        if as_shown(key, text) != was or now == text:
            return skip_one
        updates: list = list(skip_one)
        updates[1], updates[6] = now, as_shown(key, now)
        updates[7:9] = beside(opened, file, now)
        return updates

    @show_errors
    def open_asked(key):
        dataset, _, file = (key or "").partition("/")
        if not file:
            return skip_one
        opened = datasets.view(workspace, dataset)
        return editor_of(opened, datasets.find_item(opened, file), "")

    def select_picture(event: gr.SelectData, files, *looking_at):
        index = event.index if isinstance(event.index, int) else -1
        return open_at(files, index, *looking_at)

    editing = [picked, caption, loaded, batch]
    quiet = {**NO_PROGRESS, **PRIVATE}
    swift = {**quiet, "queue": False}  # answered at once, not in the queue's turn; it can't show a message
    for field in (sort, down, *filters):
        field.change(lambda *given: show(0, *given), looking, view, trigger_mode="always_last", **swift)
    revision.change(show, [page, *looking], view, **quiet)
    revision.change(tag_choices, choice, [has, lacks], **quiet)
    revision.change(renew, [picked, caption, loaded, choice], one, **quiet)
    back.click(lambda number, *given: turn(number, -1, *given), [page, *looking], view, **swift)
    forth.click(lambda number, *given: turn(number, 1, *given), [page, *looking], view, **swift)
    grid.select(show_errors(select_picture), [shown, *looking], one, **quiet)
    # `change` and not `input`, which Gradio does not send for text that is pasted with the mouse.
    caption.change(typed, editing, [saved, loaded, tokens, chips], trigger_mode="always_last", **quiet)
    for event in (caption.blur, caption.submit):
        # Every one of them counts, also while the one before is still being written.
        event(left, [*editing, page, shown, *looking], [*view, loaded], trigger_mode="multiple", **quiet)
    state = [*editing, page, shown, *looking]
    previous.click(lambda *given: go(-1, *given), state, [*view, *one], **quiet)
    following.click(lambda *given: go(1, *given), state, [*view, *one], **quiet)
    chips.click(chip, [picked, caption, batch], [caption, loaded, saved, tokens, chips, revision], **quiet)
    remove.click(take_out, picked, [*one, revision], **quiet)
    asked.change(open_asked, asked, one, **quiet)
    demo.load(None, None, None, js=KEYS)
    return Pictures(shown, filters, has)
