"""A captioner over a dataset: what is written when, what is kept, and what happens to images that go wrong."""

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel

from studio.captioning.batching import Batches
from studio.captioning.generators import NoCaption, Stopped
from studio.captioning.kinds import Captioner, captioner_settings, load_captioner
from studio.captioning.loading import chosen_items, opened, readable
from studio.captioning.models import DownloadStopped, Progress
from studio.datasets import Dataset, Item, has_trigger, merge, write_captions
from studio.datasets.phrases import all_authors
from studio.errors import ConfigError, StudioError, out_of_memory

Mode = Literal["skip", "overwrite", "append", "refresh"]
Settings = BaseModel | Mapping[str, Any] | None
MODES: dict[str, str] = {
    "skip": "only images without a caption",
    "overwrite": "all images, in place of what is there",
    "append": "all images, after what is there",
    "refresh": "all images, in place of what models and rules wrote; a person's words stay",
}


@dataclass
class CaptionReport:
    """kept: captions that were there and stay, `triggered` of them now with the trigger in front; stopped: images
    were left over when the stop came.
    """

    written: int = 0
    kept: int = 0
    triggered: int = 0
    unreadable: list[str] = field(default_factory=list)  # one line each: not read, or not captioned, and why
    unsure: dict[str, str] = field(default_factory=dict)  # file: what was left out of its caption, as "panda 14 %"
    stopped: bool = False


def caption_dataset(
    dataset: Dataset,
    captioner: str = "starter",
    trigger: str = "",
    overwrite: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int, int, Path, str], None] | None = None,
    *,
    mode: Mode | None = None,
    only: Collection[str] | None = None,
    settings: Settings = None,
    download: bool = False,
    download_progress: Progress | None = None,
) -> CaptionReport:
    """Caption images, beside each its `.txt`, as `model:CAPTIONER` in the dataset's history: one step to undo.

    captioner  one of `list_captioners()`, with `settings` of its schema
    trigger    put in front of each new caption, and of each kept one that lacks it
    mode       one of MODES; "skip" when not given. overwrite=True is the older way to say mode="overwrite"
    only       names of images in the dataset; the others are left alone
    stop       ends between two batches, or in the middle of a long sentence; what is written stays, and "skip" goes on
               from there
    progress   called with (done, total, image, caption) after each that is written
    download   fetch the model from the hub if it isn't here; download_progress is called with bytes

    A caption that changed since the dataset was opened is kept in every mode. Each caption is written as soon as it is
    there. An image that can't be read, or captioned, is named in the report.

    Raises ConfigError for an unknown captioner, mode or setting, BaseModelError when the model is not there or unfit,
    DatasetError when the folder can't be written.
    """
    mode = mode or ("overwrite" if overwrite else "skip")
    if mode not in MODES:
        raise ConfigError(f"There is no mode {mode!r}: choose {', '.join(MODES)}.")
    chosen = captioner_settings(captioner, settings)
    items = chosen_items(dataset, only)
    todo = [item for item in items if mode != "skip" or not item.caption.strip()]
    report = CaptionReport(kept=len(items) - len(todo))
    batch = uuid4().hex
    if todo:
        try:
            model = load_captioner(captioner, chosen, download, download_progress, stop)
        except DownloadStopped:
            report.stopped = True
            return report
        try:
            _caption(model, _Writer(dataset, captioner, trigger, mode, batch), todo, stop, progress, report)
        finally:
            model.close()
    if not report.stopped:
        report.triggered = add_trigger(dataset, trigger, only, batch)
    return report


def _caption(
    model: Captioner,
    writer: "_Writer",
    todo: list[Item],
    stop: threading.Event | None,
    progress: Callable[[int, int, Path, str], None] | None,
    report: CaptionReport,
) -> None:
    batches, done = Batches(model.batch_size), 0
    for ready in opened(todo, model.side, batches):
        if stop is not None and stop.is_set():
            report.stopped = True
            return
        images, problems = readable(ready)
        report.unreadable += problems
        done += len(ready) - len(images)
        for item, image in images:
            image.info["file_name"] = item.path.stem  # a hint, for captioners that take one
        try:
            texts = batches.run(model.caption, [image for _, image in images], passing=(Stopped, StudioError))
        except Stopped:
            report.stopped = True
            return
        generated = {item: text for (item, _), text in zip(images, texts) if isinstance(text, str) and text.strip()}
        written = writer.write(generated)
        for (item, _), text in zip(images, texts):
            done += 1
            unsure = getattr(text, "unsure", "")
            if unsure and item in written:
                report.unsure[writer.dataset.file_of(item)] = unsure
            if isinstance(text, Exception):
                report.unreadable.append(_failed(item, text))
            elif item not in generated:
                why = f" (unsure: {unsure})" if unsure else ""
                report.unreadable.append(f"{item.path.name}: the captioner found nothing to say{why}.")
            elif item not in written and item.path.is_file():
                report.kept += 1
            elif item not in written:
                report.unreadable.append(f"{item.path.name}: the file is gone.")
            else:
                report.written += 1
                if progress:
                    progress(done, len(todo), item.path, written[item])


def _failed(item: Item, error: Exception) -> str:
    if out_of_memory(error):
        return f"{item.path.name}: not captioned, the memory doesn't hold it even alone."
    if isinstance(error, NoCaption):
        return f"{item.path.name}: not captioned, {error}."
    why = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{item.path.name}: not captioned, {type(error).__name__}{': ' * bool(why)}{why[:160].rstrip('.')}."


class _Writer:
    """Turns a captioner's text into the caption, by the mode, and writes it if nobody else changed it meanwhile."""

    def __init__(self, dataset: Dataset, captioner: str, trigger: str, mode: str, batch: str):
        self.dataset, self.captioner, self.mode, self.batch = dataset, captioner, mode, batch
        self.trigger = " ".join(trigger.split())
        self.authors = all_authors(dataset) if mode == "refresh" else {}

    def write(self, generated: Mapping[Item, str]) -> dict[Item, str]:
        """The captions as they are on the disk now, without those that changed since the dataset was opened."""
        if not generated:
            return {}
        files = {self.dataset.file_of(item): item for item in generated}
        captions = {file: self._whole(item, generated[item]) for file, item in files.items()}
        before = {file: item.caption for file, item in files.items()}
        label, author = f"Caption with {self.captioner}", f"model:{self.captioner}"
        change = write_captions(self.dataset, captions, label, author, batch=self.batch, expected=before)
        left = [file for file in files if any(line.startswith(f"{file}: ") for line in change.left)]
        return {item: captions[file] for file, item in files.items() if file not in left}

    def _whole(self, item: Item, text: str) -> str:
        if self.mode == "append":
            text = merge(text, item.caption, replace=())
        elif self.mode == "refresh":
            text = merge(text, item.caption, self.authors.get(self.dataset.file_of(item), ()))
        front = self.trigger and not (self.mode in ("append", "refresh") and has_trigger(text, self.trigger))
        return f"{self.trigger}, {text}" if front else text


def add_trigger(dataset: Dataset, trigger: str, only: Collection[str] | None = None, batch: str = "") -> int:
    """Put the trigger in front of each caption that lacks it (as a word, in any case); how many were changed.

    Images without a caption stay without: the captioner would take a lone trigger for a caption of theirs.
    """
    trigger = " ".join(trigger.split())
    if not trigger:
        return 0
    now = {dataset.file_of(item): item.caption_now() for item in chosen_items(dataset, only)}
    before = {file: caption for file, caption in now.items() if caption and not has_trigger(caption, trigger)}
    changed = {file: f"{trigger}, {caption}" for file, caption in before.items()}
    if not changed:
        return 0
    label = f"Put {trigger} in front"
    return len(write_captions(dataset, changed, label, "rule:trigger", batch, expected=before).files)
