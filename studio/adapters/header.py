"""The header of a .safetensors file: everything in it is checked before memory for a tensor is allocated.

The format: 8 bytes (little-endian length n), n bytes of JSON {name: {dtype, shape, data_offsets}, "__metadata__": {}},
then the tensors one after another. https://github.com/huggingface/safetensors#format
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from studio.errors import AdapterError

MAX_FILE = 8 * 2**30  # bytes
MAX_HEADER = 8 * 2**20  # bytes
MAX_TENSORS = 20_000
MAX_NAME = 1_000  # characters
MAX_AXES = 8
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
}
_PICKLE_SUFFIXES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}


@dataclass(frozen=True)
class Entry:
    """One tensor of the file: `length` bytes that follow those of the entry before.

    dtype   None for a number format that adapters don't use, whose name is then in `format`
    """

    name: str
    dtype: torch.dtype | None
    shape: tuple[int, ...]
    length: int
    format: str


def read_header(stream: BinaryIO, path: Path, size: int) -> tuple[list[Entry], dict[str, str], bytes]:
    """The tensors in the order they lie, the metadata, and the bytes read; `stream` then stands at the first tensor.

    Raises AdapterError in one sentence, about `path` of `size` bytes.
    """
    name = path.name
    if size == 0:
        raise AdapterError(f"{name} is empty (0 bytes): save or download it again.")
    start = stream.read(9)
    if path.suffix.lower() in _PICKLE_SUFFIXES or _looks_like_pickle(start):
        raise AdapterError(
            f"{name} is a pickle file, which can run code when opened: use a .safetensors version of it."
        )
    if size > MAX_FILE:
        raise AdapterError(f"{name} is larger than {MAX_FILE >> 30} GB: that is a whole model, choose an adapter.")
    if size < 10:
        raise AdapterError(f"{name} is cut short ({size} bytes): save or download it again.")
    length = int.from_bytes(start[:8], "little")
    if length > MAX_HEADER or start[8:] != b"{":
        raise AdapterError(f"{name} is not a .safetensors file: choose an adapter saved as .safetensors.")
    if 8 + length > size:
        raise AdapterError(f"{name} is cut short: save or download it again.")
    head = start + stream.read(length - 1)
    try:
        header = parse_json(head[8:])
        metadata = _check_metadata(header.pop("__metadata__", {}))
        entries = _check_tensors(header, size - 8 - length)
    except ValueError as error:
        raise AdapterError(f"{name} is damaged ({error}): save or download it again.") from error
    return entries, metadata, head


def parse_json(data: bytes | str) -> dict[str, Any]:
    """A JSON object without repeated keys, text that can't be encoded, or endless nesting. Raises ValueError."""
    try:
        value = json.loads(data, object_pairs_hook=_strict_object)
    except RecursionError:
        raise ValueError("its header is nested too deeply") from None
    except UnicodeError:
        raise ValueError("its header holds broken text") from None
    except json.JSONDecodeError:
        raise ValueError("its header is not valid JSON") from None
    if not isinstance(value, dict):
        raise ValueError("its header is not a JSON object")
    return value


def _strict_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    for key, value in pairs:
        key.encode()  # a lone surrogate would break the first print or log that shows it
        if isinstance(value, str):
            value.encode()
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("its header names something twice")
    return out


def _check_metadata(metadata: object) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata is not text")
    return metadata


def _check_tensors(header: dict[str, Any], data_size: int) -> list[Entry]:
    if len(header) > MAX_TENSORS:
        raise ValueError(f"it claims {len(header):,} tensors, more than {MAX_TENSORS:,}")
    spans = []
    for name, value in header.items():
        if len(name) > MAX_NAME:
            raise ValueError("a tensor's name is too long")
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise ValueError("a tensor's description is incomplete")
        form = value["dtype"]
        if not isinstance(form, str):
            raise ValueError("a tensor's number format is not text")
        dtype = DTYPES.get(form)
        shape, offsets = value["shape"], value["data_offsets"]
        if not _are_sizes(shape) or len(shape) > MAX_AXES or 0 in shape:
            raise ValueError("a tensor's shape is impossible")
        if not _are_sizes(offsets) or len(offsets) != 2:
            raise ValueError("a tensor's place is impossible")
        length = offsets[1] - offsets[0]
        if length < 0 or (dtype is not None and math.prod(shape) * dtype.itemsize != length):
            raise ValueError("a tensor's shape and length disagree")
        spans.append((offsets[0], offsets[1], Entry(name, dtype, tuple(shape), length, form[:20])))
    spans.sort(key=lambda span: span[0])
    position = 0
    for begin, end, _ in spans:
        if begin != position:
            raise ValueError("its tensors overlap or leave gaps")
        position = end
    if position != data_size:
        raise ValueError("its length is not what its header says")
    return [entry for _, _, entry in spans]


def _are_sizes(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**48 for n in value)


def _looks_like_pickle(start: bytes) -> bool:
    """A zip (torch.save today) or a bare pickle; a short safetensors header can also begin with 0x80, but has a `{`."""
    return start.startswith(b"PK\x03\x04") or (start[:1] == b"\x80" and start[8:] != b"{")
