"""Models from huggingface.co: what is in the cache already, and, only when asked, what is fetched into it.

Weights are taken as safetensors or ONNX. Pickles (.bin, .pt, .ckpt) can run code when they are opened, so they are
never fetched. The cache is huggingface_hub's own: HF_HOME or HF_HUB_CACHE moves it, HF_ENDPOINT names another hub, and
HF_TOKEN or `hf auth login` opens what asks for consent. A token is handed on and never kept.
"""

import os
import re
import shutil
import threading
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from studio.errors import BaseModelError

TEXTS = ("*.json", "*.txt", "*.model", "*.jinja")  # settings, vocabularies, chat templates
SAFETENSORS = ("*.safetensors", *TEXTS)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
_TOKEN = re.compile(r"[!-~]{1,1000}")  # what may stand in a header
_HUB_ID = re.compile(r"[\w-][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)

Progress = Callable[[int, int], None]  # bytes done, bytes in all
Choose = Callable[[Sequence[str]], Sequence[str]]  # of a model's files, those that are wanted


class DownloadStopped(Exception):
    """The person stopped it. The files that came whole stay, and the next download goes on with the others."""


def is_hub_id(name: str) -> bool:
    """Whether it has the form owner/name."""
    return bool(_HUB_ID.fullmatch(name))


def is_token(text: str) -> bool:
    """Whether it can be one. What can't must not be sent: whoever refuses it might say it aloud."""
    return bool(_TOKEN.fullmatch(text))


def any_fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def in_cache(model: str, patterns: Sequence[str], revision: str | None = None) -> Path | None:
    """The folder of a model in the cache, whole or not; None when nothing of it is there. The network is not touched.

    patterns: of the files that matter; the caller looks whether they are all there.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import IncompleteSnapshotError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, revision=revision, local_files_only=True, allow_patterns=[*patterns]))
    except IncompleteSnapshotError as error:  # something is missing, perhaps nothing that matters
        folder = Path(error.snapshot_path)
    except (LocalEntryNotFoundError, OSError, ValueError):
        return None
    return folder if folder.is_dir() else None


def download(
    model: str,
    choose: Choose,
    revision: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Fetch a model's files into the cache, without those that are there. Returns its folder.

    choose    told every file of the model before one of them comes, gives those that are wanted
    token     instead of HF_TOKEN or of what `hf auth login` kept
    progress  called with (bytes done, bytes in all)
    stop      ends it; raises DownloadStopped

    Raises BaseModelError, saying what to do.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    if token is not None and not is_token(token):
        raise BaseModelError("That is not a token: copy it once more from the hub's settings.")
    where: dict[str, Any] = {"revision": revision, "token": token}
    try:
        plan = snapshot_download(model, tqdm_class=_bars(0, None, stop), dry_run=True, **where)
        wanted = set(choose([file.filename for file in plan]))
        total = sum(file.file_size or 0 for file in plan if file.filename in wanted and file.will_download)
        _check_room(model, total, Path(constants.HF_HUB_CACHE))
        bars = _bars(total, progress, stop)
        return Path(snapshot_download(model, allow_patterns=sorted(wanted), tqdm_class=bars, **where))
    except (OSError, HTTPError) as error:
        if stop is not None and stop.is_set():
            raise DownloadStopped from error
        raise BaseModelError(_why_not(model, revision, error)) from error


def _why_not(model: str, revision: str | None, error: Exception) -> str:
    """One sentence: what the hub said, and what to do."""
    from huggingface_hub import constants
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    def is_a(kind: type) -> bool:
        return any(isinstance(cause, kind) for cause in (error, error.__cause__))

    hub = constants.ENDPOINT
    if is_a(GatedRepoError):
        return f"{model} asks for consent: accept its terms on {hub}/{model}, then run `hf auth login` or set HF_TOKEN."
    if is_a(RepositoryNotFoundError):
        return f"There is no model {model} on {hub}: check its name, or set HF_TOKEN if it is a private one."
    if is_a(RevisionNotFoundError):
        return f"{model} has no revision {revision!r} on {hub}: leave it out, or take one from the model's page."
    return (
        f"{model} can't be fetched from {hub}: connect to the network, or copy the model's folder from another machine "
        "and give that folder instead of its name."
    )


def _check_room(model: str, total: int, cache: Path) -> None:
    place = next((parent for parent in (cache, *cache.parents) if parent.is_dir()), Path(os.sep))
    free = shutil.disk_usage(place).free
    if total > free:
        raise BaseModelError(f"{model} needs {total / 1e9:.1f} GB of disk and {place} has {free / 1e9:.1f} GB free.")


def _bars(total: int, progress: Progress | None, stop: threading.Event | None) -> type:
    """A progress bar class for `snapshot_download` that draws nothing and reports.

    huggingface_hub makes two bars that count bytes: what came over the network, and what is on the disk. Which of them
    moves depends on how a file is stored, so the one that is ahead is reported.
    """
    from tqdm import tqdm

    lock, done = threading.Lock(), dict[int, int]()

    class Silent(tqdm):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **(kwargs | {"disable": True}))
            self.counts_bytes = kwargs.get("unit") == "B"

        def update(self, n=1):
            if stop is not None and stop.is_set():
                raise DownloadStopped
            if self.counts_bytes:
                with lock:
                    done[id(self)] = done.get(id(self), 0) + int(n or 0)
                    if progress:
                        progress(min(total, max(done.values())), total)

    return Silent
