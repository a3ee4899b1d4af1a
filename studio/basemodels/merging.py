"""Adapters merged into the files of a base: a checkpoint that needs no adapter, for programs that load it alone.

Tensor by tensor: W + Σ s · delta(W) in float32, rounded once. What the adapters don't touch is copied. A single file
stays a single file with its authors' names, a diffusers folder stays a folder.
"""

import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from studio.adapters.baking import Layers, Strength
from studio.adapters.layers import Layer
from studio.adapters.streaming import Planned, StreamedFile, refuse_if_no_room
from studio.basemodels.checkpoint import Checkpoint, Part, Stored, weights_in
from studio.basemodels.hub_cache import INDEX, variant_of
from studio.errors import AdapterError, BaseModelError
from studio.workspace import atomic_write, remove_folder, temporary_in

Precision = Literal["keep", "fp32", "fp16", "bf16"]
Progress = Callable[[int, int], None]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
_SMALL = {torch.float8_e4m3fn, torch.float8_e5m2}
_TEXTS = (".json", ".txt", ".model", ".jinja", ".md")
Place = tuple[str, str]


@dataclass(frozen=True)
class Merged:
    """layers: of the base that were changed. missing: places whose tensors the base's files lack."""

    path: Path
    layers: int
    size: int
    missing: tuple[str, ...]


class _Change:
    """What several adapters do to the parameters of the base."""

    def __init__(self, stack: Sequence[tuple[Layers, Strength]]):
        self.layers: dict[Place, list[tuple[Layer, float]]] = {}
        for layers, strength in stack:
            for place, update in layers.items():
                if scale := strength(*place):
                    self.layers.setdefault(place, []).append((Layer(update), scale))

    def touches(self, part: Part) -> bool:
        layers = self.layers.get((part.component, part.path), ())
        return bool(layers) and (part.name == "weight" or any(layer.bias_delta() is not None for layer, _ in layers))

    @torch.no_grad()
    def of(self, part: Part, whole: Tensor) -> Tensor:
        """The parameter with all deltas added; whole: the base's own, float32."""
        out = whole.clone()
        for layer, scale in self.layers[part.component, part.path]:
            delta = layer.delta(whole) if part.name == "weight" else layer.bias_delta()
            if delta is not None:
                out += scale * delta.reshape(whole.shape)
        return out


def merge_into(
    base: Checkpoint,
    stack: Sequence[tuple[Layers, Strength]],
    path: Path,
    precision: Precision = "keep",
    metadata: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> Merged:
    """Write the base with the adapters in it at `path`: a .safetensors file, or a folder as the base is one.

    stack: placed layers (see `attach.place_layers`), each adapter with its strengths. Raises AdapterError when nothing
    would change or a number does not fit into the precision, BaseModelError, and whatever `progress` raises.
    """
    change = _Change(stack)
    _refuse_scaled(base)
    held = {place for place in change.layers if base.holds(*place)}
    lacking = [place for place in change.layers if place not in held]
    missing = [f"{component}.{path}" for component, path in lacking]
    missing += [
        f"{component}.{path} (its bias)"
        for (component, path), layers in change.layers.items()
        if (component, path) in held
        and not base.holds(component, path, "bias")
        and any(layer.bias_delta() is not None for layer, _ in layers)
    ]
    if not held:
        raise AdapterError("Nothing would be changed: the base's files hold none of the adapters' layers.")
    work = _Work(base, change, precision, progress)
    write = _write_file if base.place.is_file() else _write_folder
    size = write(work, path, dict(metadata or {}))
    return Merged(path, len(held), size, tuple(missing))


class _Work:
    """The tensors of the new checkpoint, one after another."""

    def __init__(self, base: Checkpoint, change: _Change, precision: Precision, progress: Progress | None):
        self.base, self.change, self.precision, self.progress = base, change, precision, progress
        self.done, self.total = 0, len(base.stored)

    def dtype(self, stored: Stored) -> torch.dtype:
        if self.precision != "keep" and (stored.dtype.is_floating_point or stored.dtype in _SMALL):
            return DTYPES[self.precision]
        return stored.dtype

    def planned(self, tensors: Iterable[Stored]) -> list[Planned]:
        return [(one.key, self.dtype(one), one.shape) for one in tensors]

    def tensor(self, stored: Stored) -> Tensor:
        """As it is in the new checkpoint."""
        if self.progress:
            self.progress(self.done, self.total)
        self.done += 1
        parts = [part for part in self.base.parts_of(stored) if self.change.touches(part)]
        value, dtype = self.base.tensor(stored), self.dtype(stored)
        if parts:
            value = value.float().clone()
        for part in parts:
            whole = self.base.read(*part[:3])
            if whole is None:
                raise BaseModelError(f"{stored.file.name} is incomplete at {stored.key[:80]}: download it again.")
            new = self.change.of(part, whole)
            new = new.T if part.transposed else new
            rows, inside = (slice(*span) if span else slice(None) for span in (part.rows, part.inside))
            value[rows] = new[inside].reshape(value[rows].shape)
        rounded = value.to(dtype)
        if rounded.is_floating_point() and value.dtype != dtype and not torch.isfinite(rounded.float()).all():
            raise AdapterError(f"{stored.key[:80]} holds numbers that don't fit into {dtype}: choose bf16 or fp32.")
        return rounded

    def write(self, path: Path, tensors: Sequence[Stored], metadata: Mapping[str, str]) -> int:
        by_key = {one.key: one for one in tensors}
        with StreamedFile(path, self.planned(tensors), metadata) as out:
            for key, *_ in out.order:
                out.add(self.tensor(by_key[key]))
        return out.size


def _write_file(work: _Work, path: Path, metadata: dict[str, str]) -> int:
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} must end in .safetensors: change the name.")
    stale = ("sshs_", "modelspec.hash", "modelspec.title")
    kept = {key: value for key, value in work.base.metadata.items() if not key.startswith(stale)}
    return work.write(path, work.base.stored, {**kept, "format": "pt", **metadata})


def _write_folder(work: _Work, path: Path, metadata: dict[str, str]) -> int:
    """The whole pipeline: weights of all components in the new precision, settings and tokenizers as they are."""
    base, place = work.base, work.base.place
    others = [
        (folder.name, file)
        for folder in sorted(place.iterdir())
        if folder.is_dir() and folder.name not in base.modules
        for file in weights_in(folder, base.choice.variant)
    ]
    files: dict[Path, list[Stored]] = {}
    for stored in base.stored:
        files.setdefault(stored.file, []).append(stored)
    for _, file in others:
        files[file] = list(base.tensors_of(file))
    work.total = sum(map(len, files.values()))
    refuse_if_no_room(path.parent, sum(_size(work, tensors) for tensors in files.values()))
    made, size = temporary_in(path.parent), 0
    try:
        _copy_settings(place, made)
        for file, tensors in files.items():
            target = made / file.parent.name / _plain_name(file.name)
            target.parent.mkdir(exist_ok=True)
            size += work.write(target, tensors, {"format": "pt", **metadata})
        for folder in {file.parent for file in files}:
            _write_index(folder, made / folder.name, base.choice.variant)
        made.rename(path)
    except BaseException:
        remove_folder(made)
        raise
    return size


def _size(work: _Work, tensors: Sequence[Stored]) -> int:
    return sum(work.dtype(one).itemsize * torch.Size(one.shape).numel() for one in tensors)


def _plain_name(name: str) -> str:
    """Without the variant: the new folder holds one copy of each part."""
    variant = variant_of(name)
    return name.replace(f".{variant}", "", 1) if variant else name


def _copy_settings(place: Path, made: Path) -> None:
    """Everything but weights, which are no larger than a vocabulary."""
    for file in [place / INDEX, *sorted(place.glob("*/*"))]:
        if file.is_file() and file.suffix in _TEXTS and ".index." not in file.name:
            target = made / file.relative_to(place)
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(file, target)


def _write_index(folder: Path, made: Path, variant: str) -> None:
    """The index of weights in several files, by their new names."""
    for file in folder.glob("*.safetensors.index*.json"):
        try:
            index = json.loads(file.read_bytes())
            names = {key: _plain_name(str(name)) for key, name in index["weight_map"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue
        if all((made / name).is_file() for name in names.values()):
            index["weight_map"] = names
            atomic_write(made / _plain_name(file.name), json.dumps(index, indent=2))


def _refuse_scaled(base: Checkpoint) -> None:
    """fp8 files with a scale beside each weight hold other numbers than their tensors say."""
    if any(one.key.endswith((".scale_weight", ".weight_scale", "scaled_fp8")) for one in base.stored):
        raise BaseModelError(f"{base.choice.short} is stored in scaled fp8: take the file in fp16 or bf16.")
