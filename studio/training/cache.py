"""What was encoded once, kept on disk: latents by an image's content, text states by a caption's words.

A file's name is the hash of everything it was made of, so that an edited image, another crop or another base model
is another file and nothing stale can be read. Each file holds a checksum: a torn one is made again, not trusted.
"""

import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from studio.datasets import Item, size_of
from studio.workspace import atomic_write, with_older_name

Tensors = dict[str, Tensor]
FILE = "images.json"  # "pictures.json" before 0.2


class Cache:
    """A folder of small safetensors files, and what is known of each image file (content hash, size in pixels)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._known = _read_json(with_older_name(folder / FILE, "pictures.json"))
        self._changed = False

    def facts(self, item: Item) -> tuple[str, int, int]:
        """(SHA-256 of the file, width, height), kept until the file changes. Raises DatasetError, OSError."""
        known, stamp = self._known.get(str(item.path)), _stamp(item.path)
        if isinstance(known, list) and len(known) == 5 and known[:2] == stamp[:2]:  # of before 0.2, without status time
            known = self._known[str(item.path)] = [*stamp, *known[2:]]
        if not (isinstance(known, list) and len(known) == 6 and known[:3] == stamp):
            known = self._known[str(item.path)] = [*stamp, _sha256(item.path), *size_of(item.path)]
            self._changed = True
        return known[3], known[4], known[5]

    def digest(self, path: Path) -> str:
        """SHA-256 of a file that is no image of its own, such as a mask; kept as for `facts`. Raises OSError."""
        known, stamp = self._known.get(str(path)), _stamp(path)
        if not (isinstance(known, list) and len(known) == 4 and known[:3] == stamp):
            known = self._known[str(path)] = [*stamp, _sha256(path)]
            self._changed = True
        digest: str = known[3]
        return digest

    def keep_facts(self) -> None:
        """Write down what is known of the images, for the next run to start in seconds."""
        if self._changed:
            atomic_write(self.folder / FILE, json.dumps(self._known))
            self._changed = False

    def has(self, key: str) -> bool:
        """Whether the file is there and whole."""
        return self.read(key) is not None

    def read(self, key: str) -> Tensors | None:
        """The tensors under a key; None when there are none or the file is damaged."""
        try:
            tensors = safetensors.torch.load(self._file(key).read_bytes())
        except (OSError, SafetensorError, ValueError, KeyError):
            return None
        checksum = tensors.pop("checksum", None)
        return tensors if checksum is not None and checksum.item() == _checksum(tensors) else None

    def write(self, key: str, tensors: Tensors) -> None:
        """Keep tensors under a key, whole or not at all. Raises OSError when the disk is full."""
        tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
        checksum = torch.tensor(_checksum(tensors))
        atomic_write(self._file(key), safetensors.torch.save({**tensors, "checksum": checksum}), lasting=False)

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.safetensors"


def key_of(*facts: object) -> str:
    """One name for everything that something was made of."""
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _stamp(path: Path) -> list[int]:
    """Size and times of a file. A copy may keep size and time of change; the status time it can't keep."""
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _checksum(tensors: Tensors) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), total))
    return total


def _read_json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
