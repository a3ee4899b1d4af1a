"""Where a captioner's model lies: a folder, the Hugging Face cache, or, only when asked, the hub.

Weights are taken as safetensors or ONNX, never as pickles: see `studio.hub`.
"""

import json
import threading
from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from studio.errors import BaseModelError
from studio.hub import PICKLES, SAFETENSORS, DownloadStopped, Progress, any_fits, download, in_cache, is_hub_id

__all__ = ["SAFETENSORS", "DownloadStopped", "Progress", "find_model", "read_config"]


def find_model(
    model: str,
    files: Sequence[str] = SAFETENSORS,
    download: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """The folder of a model that is named by a folder or by a hub id ("owner/name").

    files     what it must have: patterns of file names, the weights first
    download  fetch it from the hub when it isn't on this machine; without it the network is never touched
    progress  called with (bytes done, bytes in all) during a download
    stop      ends a download; raises DownloadStopped

    Raises BaseModelError, saying what to do.
    """
    folder = _folder(model)
    if folder is None:
        folder = _cached(model, files)
        if folder is None and not download:
            raise BaseModelError(
                f"{model} is not on this machine: allow the download, run `hf download {model}`, or give the folder of "
                "a copy instead of its name."
            )
        if folder is None:
            folder = _download(model, files, progress, stop)
    if not _has(folder, files[0]):
        raise BaseModelError(_why_unfit(model, files, [file.name for file in folder.iterdir()]))
    return folder


def read_config(folder: Path, name: str = "config.json") -> dict:
    """A model's settings; {} when it has none that can be read."""
    with suppress(OSError, ValueError, RecursionError):
        found = json.loads((folder / name).read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def _folder(model: str) -> Path | None:
    """The folder of that name; None when it is a hub id."""
    with suppress(OSError, ValueError, RuntimeError):
        path = Path(model).expanduser()
        if model.strip() and path.is_dir():
            return path.resolve()
    if not is_hub_id(model):
        raise BaseModelError(
            f"There is no folder {model[:80]!r}: give a folder that holds a model, or a name from huggingface.co like "
            "owner/name."
        )
    return None


def _has(folder: Path, weights: str) -> bool:
    """Whether the weights are there, all parts of them if they come in parts."""
    parts = read_config(folder, "model.safetensors.index.json").get("weight_map")
    if weights == "*.safetensors" and isinstance(parts, dict) and not (folder / "model.safetensors").is_file():
        return all(isinstance(part, str) and (folder / part).is_file() for part in parts.values())
    return any(fnmatch(file.name, weights) for file in folder.iterdir())


def _why_unfit(model: str, files: Sequence[str], names: Sequence[str]) -> str:
    kind = "ONNX" if files[0].endswith(".onnx") else "safetensors"
    if any(fnmatch(name, pattern) for name in names for pattern in PICKLES):
        return f"{model} has its weights only as a pickle, which can run code when opened: take one that has {kind}."
    return f"{model} holds no weights that this captioner can read, or not all of them: it needs {kind}."


def _cached(model: str, files: Sequence[str]) -> Path | None:
    """The folder in the Hugging Face cache, when it is there with its weights."""
    folder = in_cache(model, files)
    return folder if folder and _has(folder, files[0]) else None


def _download(model: str, files: Sequence[str], progress: Progress | None, stop: threading.Event | None) -> Path:
    """Into the Hugging Face cache. A model with nothing but a pickle is refused before anything comes."""

    def choose(names: Sequence[str]) -> list[str]:
        top = [name for name in names if "/" not in name]  # other formats of the same weights lie in subfolders
        if not any(fnmatch(name, files[0]) for name in top):
            raise BaseModelError(_why_unfit(model, files, top))
        return [name for name in top if any_fits(name, files)]

    return download(model, choose, progress=progress, stop=stop)
