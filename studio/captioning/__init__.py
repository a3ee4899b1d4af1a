"""Pictures in, captions out. One file a captioner; what a person wrote is kept unless told otherwise."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from studio.datasets import Dataset, Item, has_trigger, read_caption, set_caption
from studio.errors import ConfigError, DatasetError

__all__ = ["CaptionReport", "add_trigger", "caption_dataset", "list_captioners"]

BATCH = 16


@dataclass
class CaptionReport:
    """kept: captions that were there and stay, `triggered` of them now with the trigger in front; stopped: pictures
    were left over when the stop came.
    """

    written: int = 0
    kept: int = 0
    triggered: int = 0
    unreadable: list[str] = field(default_factory=list)  # one line each
    stopped: bool = False


def list_captioners() -> list[str]:
    """Names for `caption_dataset`."""
    return ["starter"]


def caption_dataset(
    dataset: Dataset,
    captioner: str = "starter",
    trigger: str = "",
    overwrite: bool = False,
    stop: threading.Event | None = None,
    progress: Callable[[int, int, Path, str], None] | None = None,
) -> CaptionReport:
    """Caption every picture that has no caption (all of them with `overwrite`), beside the picture.

    trigger   put in front of each new caption, and of each kept one that lacks it
    stop      ends between two batches; what is written stays
    progress  told (done, total, picture, caption) after each

    Raises ConfigError for an unknown captioner, BaseModelError when it is not installed, DatasetError when the folder
    can't be written.
    """
    if captioner not in list_captioners():
        raise ConfigError(f"There is no captioner {captioner!r}: choose {' or '.join(list_captioners())}.")
    todo = [item for item in dataset.items if overwrite or not item.caption.strip()]
    report = CaptionReport(kept=len(dataset.items) - len(todo))
    if todo:
        _caption(todo, trigger.strip(), overwrite, stop, progress, report)
    if not report.stopped:
        report.triggered = add_trigger(dataset, trigger)
    return report


def _caption(
    todo: list[Item],
    trigger: str,
    overwrite: bool,
    stop: threading.Event | None,
    progress: Callable[[int, int, Path, str], None] | None,
    report: CaptionReport,
) -> None:
    from studio.captioning.starter import StarterCaptioner

    model, done = StarterCaptioner(), 0
    for start in range(0, len(todo), BATCH):
        if stop is not None and stop.is_set():
            report.stopped = True
            break
        batch = []
        for item in todo[start : start + BATCH]:
            try:
                batch.append((item, item.load()))
            except DatasetError as error:
                report.unreadable.append(str(error))
                done += 1
        for (item, _), words in zip(batch, model.caption([picture for _, picture in batch]), strict=True):
            done += 1
            if not overwrite and read_caption(item.path):  # typed by a person since the dataset was opened
                report.kept += 1
                continue
            caption = f"{trigger}, {words}" if trigger else words
            set_caption(item.path, caption)
            report.written += 1
            if progress:
                progress(done, len(todo), item.path, caption)


def add_trigger(dataset: Dataset, trigger: str) -> int:
    """Put the trigger in front of each caption that lacks it (as a word, in any case); how many were changed.

    Pictures without a caption stay without: the captioner would take a lone trigger for a caption of theirs.
    """
    trigger = " ".join(trigger.split())
    if not trigger:
        return 0
    changed = 0
    for item in dataset.items:
        caption = _caption_now(item)
        if caption and not has_trigger(caption, trigger):
            set_caption(item.path, f"{trigger}, {caption}")
            changed += 1
    return changed


def _caption_now(item: Item) -> str:
    """The caption on the disk, which may be newer than the one read when the dataset was opened."""
    sidecar = read_caption(item.path)
    return item.caption if sidecar is None else sidecar
