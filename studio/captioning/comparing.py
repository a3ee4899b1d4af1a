"""Captioners side by side on a few images, to choose one before it runs on all."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image
from pydantic import BaseModel

from studio.captioning.batching import Batches
from studio.captioning.generators import Stopped
from studio.captioning.kinds import load_captioner
from studio.captioning.models import DownloadStopped, Progress
from studio.errors import StudioError, out_of_memory


@dataclass
class Compared:
    """captions: one an image, "" where there was none; seconds: for all of them, without the loading; problem: why it
    has none, or why some are missing, "" when all went well.
    """

    captioner: str
    captions: list[str] = field(default_factory=list)
    seconds: float = 0.0
    problem: str = ""


def compare(
    captioners: Sequence[str | tuple[str, BaseModel | Mapping[str, Any] | None]],
    images: Sequence[Image.Image],
    stop: threading.Event | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    download: bool = False,
    download_progress: Progress | None = None,
) -> list[Compared]:
    """What each of them says of each image. One model is in memory at a time.

    captioners  names, or (name, settings); the same name may come twice with other settings
    progress    called with (done, total, captioner) after each captioner

    One that can't be loaded says why in its `problem`, and the others go on. After a stop, those that were not reached
    are left out.
    """
    found: list[Compared] = []
    for entry in captioners:
        if stop is not None and stop.is_set():
            break
        name, settings = (entry, None) if isinstance(entry, str) else entry
        one = Compared(name, [""] * len(images))
        try:
            model = load_captioner(name, settings, download, download_progress, stop)
            try:
                begin = time.perf_counter()
                texts = Batches(model.batch_size).run(model.caption, list(images), (Stopped, StudioError))
                one.seconds = time.perf_counter() - begin
            finally:
                model.close()
                del model
        except (Stopped, DownloadStopped):
            break
        except StudioError as error:
            one.problem = str(error)
        else:
            one.captions = [_shown(text) if isinstance(text, str) else "" for text in texts]
            failed = [text for text in texts if isinstance(text, Exception)]
            if failed:
                why = "memory ran out" if out_of_memory(failed[0]) else f"{type(failed[0]).__name__}: {failed[0]}"[:200]
                one.problem = f"{len(failed)} of {len(images)} could not be captioned ({why})."
        found.append(one)
        if progress:
            progress(len(found), len(captioners), name)
    return found


def _shown(caption: str) -> str:
    """With the guess that a captioner is too unsure of to write."""
    unsure = getattr(caption, "unsure", "")
    return f"{caption} (unsure: {unsure})".lstrip() if unsure else caption
