"""Pictures in, captions out. One file a captioner; what a person wrote is kept unless told otherwise."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from studio.datasets import Dataset, set_caption
from studio.errors import ConfigError, DatasetError

__all__ = ["CaptionReport", "caption_dataset", "list_captioners"]

BATCH = 16


@dataclass
class CaptionReport:
    written: int = 0
    kept: int = 0
    unreadable: list[str] = field(default_factory=list)  # one line each
    stopped: bool = False


def list_captioners() -> list[str]:
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

    trigger   put in front of each new caption
    stop      ends between two batches; what is written stays
    progress  told (done, total, picture, caption) after each

    Raises ConfigError for an unknown captioner.
    """
    if captioner not in list_captioners():
        raise ConfigError(f"There is no captioner {captioner!r}: choose {' or '.join(list_captioners())}.")
    todo = [item for item in dataset.items if overwrite or not item.caption.strip()]
    report = CaptionReport(kept=len(dataset.items) - len(todo))
    if not todo:
        return report
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
            caption = f"{trigger.strip()}, {words}" if trigger.strip() else words
            set_caption(item.path, caption)
            report.written, done = report.written + 1, done + 1
            if progress:
                progress(done, len(todo), item.path, caption)
    return report
