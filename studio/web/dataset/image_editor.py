"""One image large, with its caption to edit. A part of the Dataset tab, in the column beside the grid of Images."""

from typing import Any

import gradio as gr

from studio.errors import DatasetError, StudioError
from studio.services import base_models, captions, datasets
from studio.services.thumbnails import LARGE, thumbnail
from studio.web.components.clickable import clickable_html, clicked
from studio.web.components.fields import QUIET
from studio.web.components.html import empty, note
from studio.web.dataset import views
from studio.web.dataset.context import DatasetContext
from studio.web.dataset.images import PAGE, place_in
from studio.web.errors import show_errors

UNPICKED = empty("No image selected", "Click one to see it large and to edit its caption.")

# ← → and Page Up, Page Down go to the next image, unless something is being typed where the arrows have a meaning.
KEYS_JS = """() => {
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


class ImageEditor:
    """The editor.

    picked   "dataset/file" of the image that is open; held by the page, so that it and its caption travel together
    loaded   what was put into the editor: only an edited caption is written
    batch    the step of the history that the edits of this image belong to
    """

    def __init__(self, context: DatasetContext):
        self.context, self.workspace, self.images = context, context.workspace, context.images
        with self.images.side:
            self.batch = gr.State("")
            self.picked, self.loaded = self.images.picked, gr.Textbox(visible=False)
            self.blank = gr.HTML(UNPICKED)
            with gr.Column(visible=False) as self.editor:
                self.large = gr.Image(
                    show_label=False,
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="large",
                    type="filepath",
                    elem_classes="large-image",
                )
                self.caption = gr.Textbox(
                    label="Caption", lines=3, max_lines=8, submit_btn=False, elem_id="caption", interactive=True
                )
                self.tokens = gr.HTML(elem_id="tokens")
                self.chips = clickable_html("chips")
                with gr.Row():
                    self.previous = gr.Button("← Previous", size="md", min_width=90, elem_id="previous")
                    self.remove = gr.Button("Remove", size="md", min_width=80, elem_id="remove-image")
                    self.following = gr.Button("Next →", size="md", min_width=90, elem_id="next")
                self.saved = gr.HTML(elem_id="saved")
        self.outputs = [
            self.large,
            self.caption,
            self.saved,
            self.picked,
            self.editor,
            self.blank,
            self.loaded,
            self.tokens,
            self.chips,
            self.batch,
        ]

    def wire(self) -> None:
        context, images, revision = self.context, self.images, self.context.revision
        editing = [self.picked, self.caption, self.loaded, self.batch]
        placed = [images.page, images.shown, *images.listing]
        both = [*images.outputs, *self.outputs]
        images.grid.select(self.open_selected, [self.picked, images.shown, *images.listing], self.outputs, **QUIET)
        # `change` and not `input`, which Gradio does not send for text that is pasted with the mouse.
        self.caption.change(
            self.typed, editing, [self.saved, self.loaded, self.tokens, self.chips], trigger_mode="always_last", **QUIET
        )
        for event in (self.caption.blur, self.caption.submit):
            # Every one of them counts, also while the one before is still being written.
            event(self.left, [*editing, *placed], [*images.outputs, self.loaded], trigger_mode="multiple", **QUIET)
        self.previous.click(self.show_previous, [*editing, *placed], both, **QUIET)
        self.following.click(self.show_next, [*editing, *placed], both, **QUIET)
        self.chips.click(
            self.edit_chip,
            [self.picked, self.caption, self.batch],
            [self.caption, self.loaded, self.saved, self.tokens, self.chips, revision],
            **QUIET,
        )
        self.remove.click(self.remove_image, [self.picked, *placed], [*both, revision], **QUIET)
        wanted = [context.requested, images.shown]
        context.requested.change(self.open_requested, wanted, [*self.outputs, images.grid], **QUIET)
        revision.change(self.refresh, [self.picked, self.caption, self.loaded, context.choice], self.outputs, **QUIET)
        context.demo.load(None, None, None, js=KEYS_JS)

    # What is shown -----------------------------------------------------------------------------------------------

    def opened(self, dataset, items: list[Any], item) -> dict[Any, Any]:
        """Updates that show this item of the dataset."""
        name, text = dataset.file_of(item), datasets.caption_now(item)
        place = f"  ({items.index(item) + 1:,} of {len(items):,})" if item in items else ""
        return {
            self.large: str(thumbnail(self.workspace, item.path, LARGE)),
            self.caption: gr.update(value=text, label=f"Caption of {name}{place}"),
            self.saved: "",
            self.picked: f"{dataset.name}/{name}",
            self.editor: gr.update(visible=True),
            self.blank: gr.update(visible=False),
            self.loaded: as_loaded(f"{dataset.name}/{name}", text),
            **self.annotated(dataset, name, text),
            self.batch: datasets.new_batch(),
        }

    def closed(self) -> dict[Any, Any]:
        """Updates for no image."""
        texts = (self.caption, self.saved, self.picked, self.loaded, self.tokens, self.chips, self.batch)
        return {
            self.large: None,
            self.editor: gr.update(visible=False),
            self.blank: gr.update(visible=True),
            **dict.fromkeys(texts, ""),
        }

    def annotated(self, dataset, file: str, text: str) -> dict[Any, Any]:
        """Updates for the tokens and the chips of a caption as it is on the disk."""
        from studio.datasets import authors
        from studio.datasets.phrases import is_prose

        counter = base_models.counter(self.workspace)
        count, cut = counter(text)
        return {
            self.tokens: views.tokens_line(count, counter.room, cut, counter.chunks(count)),
            self.chips: views.chips(authors(dataset, file), is_prose(text)),
        }

    @show_errors
    def open_selected(self, event: gr.SelectData, picked, files, *listing):
        index = event.index if isinstance(event.index, int) else -1
        if not 0 <= index < len(files) or f"{listing[0]}/{files[index][0]}" == picked:  # marked after Next, say
            return gr.skip()
        dataset, items = self.images.listed(*listing)
        return self.opened(dataset, items, datasets.find_item(dataset, files[index][0]))

    @show_errors
    def open_requested(self, key, shown):
        name, file = split_key(key)
        if not file:
            return gr.skip()
        dataset = datasets.view(self.workspace, name)
        marked = {self.images.grid: gr.update(selected_index=place_in(shown, name, key))}
        return self.opened(dataset, [], datasets.find_item(dataset, file)) | marked

    @show_errors
    def refresh(self, key, text, loaded, current):
        """Undo, captioning and other pages change captions too: an unedited field follows, an edited one stays."""
        name, file = split_key(key)
        if not file:
            return gr.skip()
        dataset = datasets.view(self.workspace, name) if name == current else None
        item = dataset.by_file().get(file) if dataset else None
        if item is None:
            return self.closed()
        now = datasets.caption_now(item)
        if as_loaded(key, text) != loaded or now == text:
            return gr.skip()
        return {self.caption: now, self.loaded: as_loaded(key, now), **self.annotated(dataset, file, now)}

    # What is edited ----------------------------------------------------------------------------------------------

    def save(self, key: str, text: str, loaded: str, batch: str) -> bool:
        """Write an edited caption; True when the file changed. One that was only shown never replaces a newer one."""
        name, file = split_key(key)
        if not file or as_loaded(key, text) == loaded:
            return False
        before = datasets.caption_now(datasets.find_item(datasets.view(self.workspace, name), file))
        return captions.save_caption(self.workspace, name, file, text or "", batch=batch) != before

    @show_errors
    def typed(self, key, text, loaded, batch):
        """While a person types: written at once; tokens and chips follow."""
        name, file = split_key(key)
        if not file or as_loaded(key, text) == loaded:
            return gr.skip()
        self.save(key, text, loaded, batch)
        dataset = datasets.view(self.workspace, name)
        now = datasets.caption_now(datasets.find_item(dataset, file))
        return {self.saved: note("Saved."), self.loaded: as_loaded(key, text), **self.annotated(dataset, file, now)}

    @show_errors
    def left(self, key, text, loaded, batch, number, files, *listing):
        """The field lost the focus: the grid shows the new caption too."""
        self.save(key, text, loaded, batch)
        name, file = split_key(key)
        updates = {self.loaded: as_loaded(key, text)}
        if name != listing[0] or [file, one_line(text)] in files:
            return updates
        return updates | self.images.updates(*self.images.listed(*listing), number, key)

    @show_errors
    def show_previous(self, *given):
        return self.step(-1, *given)

    @show_errors
    def show_next(self, *given):
        return self.step(1, *given)

    def step(self, by, key, text, loaded, batch, number, files, *listing):
        """To the next image that the filter lets through, or the one before."""
        _, file = split_key(key)
        changed = self.save(key, text, loaded, batch)
        dataset, items = self.images.listed(*listing)
        names = [dataset.file_of(item) for item in items]
        if file in names:
            index = names.index(file) + by
        else:  # its new caption no longer passes the filter: the one that took its place
            index = place_of(file, files, number, len(items))
        if not 0 <= index < len(items):
            return gr.skip()
        turned = changed or index // PAGE != number or [file, one_line(text)] not in files
        now = f"{dataset.name}/{dataset.file_of(items[index])}"
        if turned:
            updates = self.images.updates(dataset, items, index // PAGE, now)
        else:
            updates = {self.images.grid: gr.update(selected_index=place_in(files, dataset.name, now))}
        return updates | self.opened(dataset, items, items[index])

    @show_errors
    def edit_chip(self, key, text, batch, event: gr.EventData):
        """A tag dropped, moved or added by its chip."""
        from studio.datasets.phrases import join, split

        act, arg, _ = clicked(event)
        name, file = split_key(key)
        tags = edited_tags(list(split(text or "")), act, arg)
        if tags is None:
            return gr.skip()
        now = captions.save_caption(self.workspace, name, file, join(tags), batch=batch)
        return {
            self.caption: now,
            self.loaded: as_loaded(key, now),
            self.saved: note("Saved."),
            **self.annotated(datasets.view(self.workspace, name), file, now),
            self.context.revision: datasets.stamp(self.workspace, name),
        }

    @show_errors
    def remove_image(self, key, number, files, *listing):
        """Remove the image that is open, and open the one that takes its place."""
        name, file = split_key(key)
        if not file:
            raise DatasetError("Choose an image first.")
        before, items = self.images.listed(*listing)
        names = [before.file_of(item) for item in items]
        index = names.index(file) if file in names else place_of(file, files, number, len(items))
        datasets.remove_images(self.workspace, name, [file])
        revision = {self.context.revision: datasets.stamp(self.workspace, name)}
        try:
            dataset, items = self.images.listed(*listing)
        except StudioError:  # it was the last one: the grid says what to do
            return self.closed() | revision
        index = min(index, len(items) - 1)
        following = self.opened(dataset, items, items[index]) if items else self.closed()
        grid = self.images.updates(dataset, items, max(0, index) // PAGE, following[self.picked])
        return grid | following | revision


def build(context: DatasetContext) -> ImageEditor:
    """The editor, in the column that Images keeps for it."""
    part = ImageEditor(context)
    part.wire()
    return part


def split_key(key: str | None) -> tuple[str, str]:
    """(dataset, file) of "dataset/file"."""
    dataset, _, file = (key or "").partition("/")
    return dataset, file


def as_loaded(key: str, text: str | None) -> str:
    """A caption with its image's name, since the answer to a save may come when the next image is open already."""
    return f"{key}\n{text or ''}"


def one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def place_of(file: str, files: list[list[str]], number: int, count: int) -> int:
    """Where an image was that is no longer listed, from what page `number` shows; at most the last of `count`."""
    here = next((place for place, one in enumerate(files) if one[0] == file), 0)
    return min(count - 1, number * PAGE + here)


def edited_tags(tags: list[str], act: str, arg: str) -> list[str] | None:
    """The tags after what a chip sent, or None when it is no edit."""
    places = [int(word) for word in arg.split() if word.isdigit()]
    if act == "add":
        return tags + [tag.strip() for tag in arg.split(",") if tag.strip()]
    if act == "drop" and len(places) == 1 and places[0] < len(tags):
        tags.pop(places[0])
    elif act == "move" and len(places) == 2 and max(places) < len(tags):
        tags.insert(places[1], tags.pop(places[0]))
    else:
        return None
    return tags
