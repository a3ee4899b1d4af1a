"""The Dataset tab: choose or drop pictures, look at them page by page, caption them all or one by one."""

from contextlib import suppress
from dataclasses import dataclass

import gradio as gr

from studio.errors import StudioError
from studio.ui import actions
from studio.ui.thumbnails import LARGE, thumbnail
from studio.ui.widgets import HIDDEN, QUIET, bar, empty, note, plainly
from studio.workspace import Workspace

PAGE = 48  # pictures on one page of the grid
NOTHING = empty("No dataset open", "Choose a sample on the left, or drop about twenty pictures of your own.")
UNPICKED = empty("No picture selected", "Click one to see it large and to edit its caption.")


@dataclass(frozen=True)
class DatasetTab:
    """What the other tabs need: the chooser, and the button that goes on to training."""

    choice: gr.Dropdown
    onward: gr.Button


def dataset_tab(workspace: Workspace, demo: gr.Blocks, timer: gr.Timer) -> DatasetTab:
    """Build the tab inside the caller's gr.Tab."""
    page = gr.State(0)
    shown = gr.State([])  # file names on this page, so that a click means a picture and not a position
    picked = gr.Textbox(visible=False)  # "dataset/file": held by the page, so that it and its caption travel together
    loaded = gr.Textbox(visible=False)  # what was put into the editor: only an edited caption is written
    seen = gr.State(None)
    with gr.Row(equal_height=False):
        with gr.Column(scale=3, min_width=280):
            choice = gr.Dropdown(
                label="Dataset", info="Yours, or a sample to try things with.", choices=[], elem_id="dataset"
            )
            with gr.Accordion("Add your own pictures", open=False, elem_id="add-pictures"):
                name = gr.Textbox(label="Name", placeholder="my-pictures", max_lines=1, elem_id="dataset-name")
                drop = gr.File(
                    label="Pictures or a zip",
                    file_count="multiple",
                    height=140,
                    elem_id="drop-pictures",
                    elem_classes="drop",
                )
                add = gr.Button("Add to this dataset", size="md", elem_id="add")
                added = gr.HTML(elem_id="added")
            gr.Markdown("### Captions", elem_classes="heading")
            trigger = gr.Textbox(
                label="Trigger word",
                info="Optional. Put in front of every caption; use it in a prompt to call what was learned.",
                max_lines=1,
                elem_id="trigger",
            )
            overwrite = gr.Checkbox(label="Overwrite existing captions", value=False, elem_id="overwrite")
            with gr.Row():
                caption_all = gr.Button("Caption all", variant="primary", elem_id="caption-all", min_width=120)
                stop = gr.Button("Stop", interactive=False, elem_id="stop-captions", min_width=80)
            progress = gr.HTML(elem_id="caption-progress")
        with gr.Column(scale=6, min_width=320, elem_classes="middle"):
            summary = gr.HTML(NOTHING, elem_id="dataset-summary")
            grid = gr.Gallery(
                columns=6,
                height="auto",
                allow_preview=False,
                show_label=False,
                buttons=[],
                object_fit="contain",
                interactive=False,
                visible=False,
                elem_id="pictures",
                elem_classes="gallery",
            )
            with gr.Row(visible=False) as pager:
                back = gr.Button("← Earlier", size="sm", min_width=90)
                where = gr.HTML(elem_id="page")
                forth = gr.Button("Later →", size="sm", min_width=90)
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
                    label="Caption", lines=3, max_lines=6, submit_btn=False, elem_id="caption", interactive=True
                )
                with gr.Row():
                    previous = gr.Button("← Previous", size="md", min_width=90, elem_id="previous")
                    save = gr.Button("Save", size="md", min_width=80, elem_id="save-caption")
                    following = gr.Button("Next →", size="md", min_width=90, elem_id="next")
                saved = gr.HTML(elem_id="saved")
            onward = gr.Button("Train on this dataset →", size="md", elem_id="to-train")

    # What is shown -----------------------------------------------------------------------------------------------

    def grid_of(dataset, number: int):
        """Updates for summary, grid, page, shown, pager, where, back, forth, blank."""
        items = dataset.items
        last = max(0, (len(items) - 1) // PAGE)
        number = min(max(0, number), last)
        here = items[number * PAGE : (number + 1) * PAGE]
        cells = [(str(thumbnail(workspace, item.path)), item.caption or "no caption") for item in here]
        captioned = sum(bool(item.caption) for item in items)
        facts = f"<b>{len(items)}</b> pictures · <b>{captioned}</b> with a caption"
        text = f'<div class="note">{facts}</div>' + note(
            "\n".join(f"Left out: {p}" for p in dataset.problems), bad=True
        )
        first = number * PAGE + 1
        return (
            text,
            gr.update(value=cells, visible=True, selected_index=None),
            number,
            [actions.item_name(dataset, item) for item in here],
            gr.update(visible=last > 0),
            note(f"{first}–{first + len(here) - 1} of {len(items)}"),
            gr.update(interactive=number > 0),
            gr.update(interactive=number < last),
        )

    view = [summary, grid, page, shown, pager, where, back, forth]

    def close_editor():
        """Updates for picked, editor, blank, side."""
        return "", gr.update(visible=False), gr.update(visible=True), gr.update(visible=True)

    beside = [picked, editor, blank, side]

    def choices_update(value: str):
        return gr.update(choices=actions.list_datasets(workspace), value=value)

    def load_choices():
        return gr.update(choices=actions.list_datasets(workspace))  # no value: the person may be choosing one now

    @plainly
    def open_dataset(dataset):
        if not dataset:
            return [gr.skip()] * (len(view) + len(beside) + 2)
        opened = actions.open_named(workspace, dataset)
        return *grid_of(opened, 0), *close_editor(), choices_update(opened.name), gr.skip()

    @plainly
    def import_files(files, wanted, current):
        opened, skipped = actions.import_files(workspace, wanted or current or "", files or [])
        count = f"{opened.name} has {len(opened.items)} pictures now."
        report = note("\n".join([count, *(f"Skipped {line}" for line in skipped)]))
        return *grid_of(opened, 0), *close_editor(), choices_update(opened.name), report, None

    @plainly
    def turn(dataset, number, by):
        return grid_of(actions.open_named(workspace, dataset), number + by)

    # One picture -------------------------------------------------------------------------------------------------

    def editor_of(dataset, item):
        """Updates for large, caption, saved, picked, editor, blank, loaded."""
        copy = thumbnail(workspace, item.path, LARGE)
        name = actions.item_name(dataset, item)
        index = dataset.items.index(item)
        return (
            str(copy),
            gr.update(value=item.caption, label=f"Caption of {name}  ({index + 1} of {len(dataset.items)})"),
            "",
            f"{dataset.name}/{name}",
            gr.update(visible=True),
            gr.update(visible=False),
            as_shown(f"{dataset.name}/{name}", item.caption),
        )

    one = [large, caption, saved, picked, editor, blank, loaded]

    @plainly
    def select(dataset, files, event: gr.SelectData):
        if not isinstance(event.index, int) or event.index >= len(files):
            return [gr.skip()] * len(one)
        opened = actions.open_named(workspace, dataset)
        return editor_of(opened, actions.find_item(opened, files[event.index]))

    def keep(key: str, text: str, shown: str) -> bool:
        """Save what a person edited; True when the file changed. What was only looked at never replaces newer words."""
        dataset, _, file = (key or "").partition("/")
        if not file or as_shown(key, text) == shown:
            return False
        opened = actions.open_named(workspace, dataset)
        before = actions.find_item(opened, file).caption
        return actions.save_caption(workspace, dataset, file, text or "") != before

    def as_shown(key: str, text: str) -> str:
        """With its picture's name, since the answer to a save may come when the next picture is open already."""
        return f"{key}\n{text or ''}"

    @plainly
    def save_caption(key, text, was, number):
        changed = keep(key, text, was)
        if not changed:
            return [gr.skip()] * len(view) + [note("Saved.") if key else "", as_shown(key, text)]
        return (
            *grid_of(actions.open_named(workspace, key.partition("/")[0]), number),
            note("Saved."),
            as_shown(key, text),
        )

    @plainly
    def step(key, text, was, number, by):
        dataset, _, file = (key or "").partition("/")
        changed = keep(key, text, was)
        opened = actions.open_named(workspace, dataset)
        index = opened.items.index(actions.find_item(opened, file)) + by
        if not 0 <= index < len(opened.items):
            return [gr.skip()] * (len(view) + len(one))
        moved = changed or index // PAGE != number
        updates = grid_of(opened, index // PAGE) if moved else [gr.skip()] * len(view)
        return *updates, *editor_of(opened, opened.items[index])

    # Captioning --------------------------------------------------------------------------------------------------

    @plainly
    def caption_everything(dataset, word, again):
        actions.start_captioning(workspace, dataset, word or "", bool(again))
        return gr.update(interactive=False), gr.update(interactive=True), note("Starting.")

    def stop_captions():
        actions.stop_job("caption")
        return gr.update(interactive=False)

    def watch(last, dataset, number):
        """Every second: where captioning stands. Says nothing when nothing is new."""
        newest, busy = actions.latest.get("caption"), actions.running()
        job = newest.job if newest else None
        state = (job and (id(job), job.state, job.done, job.message), busy and id(busy))
        if state == last:
            return [gr.skip()] * (4 + len(view))
        active = actions.running("caption")
        buttons = gr.update(interactive=busy is None), gr.update(interactive=active is not None)
        if newest is None or job is None:
            return state, *buttons, gr.skip(), *([gr.skip()] * len(view))
        if active:
            text = bar(job.done, job.total) + note(f"{job.title}: {job.done} of {job.total}\n{job.message}")
        elif job.state == "failed":
            text = note(f"Captioning stopped: {job.error}", bad=True)
        else:
            text = note(job.message)
        updates = [gr.skip()] * len(view)
        if dataset and dataset == newest.name and (last is None or last[0] != state[0]):
            with suppress(StudioError):  # a folder that went away is told when it is opened, not every second
                updates = grid_of(actions.open_named(workspace, dataset), number)
        return state, *buttons, text, *updates

    editing = [picked, caption, loaded, page]
    poll = {"concurrency_limit": None, **QUIET, **HIDDEN}
    quiet = {**QUIET, **HIDDEN}
    for trigger_event in (timer.tick, demo.load):
        trigger_event(watch, [seen, choice, page], [seen, caption_all, stop, progress, *view], **poll)
    demo.load(load_choices, None, choice, **quiet)
    choice.focus(load_choices, None, choice, **quiet)
    choice.input(open_dataset, choice, [*view, *beside, choice, added], **quiet)
    add.click(
        import_files, [drop, name, choice], [*view, *beside, choice, added, drop], **HIDDEN, show_progress_on=added
    )
    back.click(lambda d, n: turn(d, n, -1), [choice, page], view, **quiet)
    forth.click(lambda d, n: turn(d, n, 1), [choice, page], view, **quiet)
    grid.select(select, [choice, shown], one, **quiet)
    for event in (save.click, caption.blur, caption.submit):
        # Every one of them counts, also while the one before is still being written.
        event(save_caption, editing, [*view, saved, loaded], trigger_mode="multiple", **quiet)
    previous.click(lambda k, t, w, n: step(k, t, w, n, -1), editing, [*view, *one], **quiet)
    following.click(lambda k, t, w, n: step(k, t, w, n, 1), editing, [*view, *one], **quiet)
    caption_all.click(caption_everything, [choice, trigger, overwrite], [caption_all, stop, progress], **quiet)
    stop.click(stop_captions, None, stop, **quiet)
    return DatasetTab(choice, onward)
