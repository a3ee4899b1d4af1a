"""A .safetensors file written tensor by tensor, so that a checkpoint larger than the memory can be made.

The format (https://github.com/huggingface/safetensors): eight bytes with the header's length, the header as JSON, then
the tensors without a gap. They are put in order of their numbers' sizes, so that each begins at a multiple of its own.
"""

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from studio.errors import AdapterError

Planned = tuple[str, torch.dtype, tuple[int, ...]]  # name, dtype, shape

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in _NAMES.items()}  # torch's dtype of safetensors' name
_HASH = "modelspec.hash_sha256"
_NONE = "0x" + "0" * 64


class StreamedFile:
    """with StreamedFile(path, planned, metadata) as out: out.add(tensor) for each of `out.order`.

    The file appears at `path` when all is written, and not at all otherwise. ModelSpec's hash of the body is put in.
    """

    def __init__(self, path: Path, planned: Sequence[Planned], metadata: Mapping[str, str]):
        """Raises AdapterError for a dtype that the format lacks, and where the disk lacks the room."""
        for name, dtype, _ in planned:
            if dtype not in _NAMES:
                raise AdapterError(f"{name} is of a type that a .safetensors file can't hold: {dtype}.")
        self.path = path
        self.order = sorted(planned, key=lambda one: -one[1].itemsize)  # stable: else as it was given
        self._left = iter(self.order)
        self._hash = hashlib.sha256()
        header, at = {"__metadata__": {**metadata, _HASH: _NONE}}, 0
        for name, dtype, shape in self.order:
            size = dtype.itemsize * torch.Size(shape).numel()
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [at, at + size]}  # type: ignore[dict-item]
            at += size
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self.size = 8 + len(text) + at
        refuse_if_no_room(path.parent, self.size)
        self._hash_at = 8 + text.index(f'"{_HASH}":"'.encode()) + len(_HASH) + 4
        self._place = path.parent / f".{secrets.token_hex(4)}.tmp"
        self._stream = self._place.open("wb")
        self._stream.write(len(text).to_bytes(8, "little") + text)

    def add(self, tensor: Tensor) -> None:
        """The next tensor of `order`. Raises OSError when the disk is full."""
        name, dtype, shape = next(self._left)
        if tensor.dtype != dtype or tuple(tensor.shape) != shape:
            raise ValueError(f"{name}: {tensor.dtype} {tuple(tensor.shape)} instead of {dtype} {shape}")
        data = memoryview(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
        self._stream.write(data)
        self._hash.update(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        whole = kind is None and next(self._left, None) is None
        if whole:
            self._stream.seek(self._hash_at)
            self._stream.write(f"0x{self._hash.hexdigest()}".encode())
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self._stream.close()
        if whole:
            self._place.replace(self.path)
            return
        self._place.unlink(missing_ok=True)
        if kind is None:
            raise ValueError("not all tensors were added")


def refuse_if_no_room(folder: Path, size: int) -> None:
    """Raises AdapterError where the disk lacks the room for so many bytes."""
    free = shutil.disk_usage(folder).free
    if size > free:
        raise AdapterError(f"The file takes {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free: make room first.")
