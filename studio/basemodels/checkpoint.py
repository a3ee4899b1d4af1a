"""The tensors of a base's files, one at a time: which layers of which part each holds. No weight stays in memory.

A diffusers folder names the parts by its folders and the layers by diffusers' paths. A single file has the first
authors' names, in which one tensor may hold several layers (query, key and value), or the rows of a layer in another
order (the last modulation of FLUX and SD 3, whose halves diffusers swapped).
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from studio.adapters.names import Index, index_layers
from studio.adapters.streaming import DTYPES
from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import variant_in, variant_of
from studio.basemodels.registry import base_folder
from studio.basemodels.skeleton import skeleton
from studio.errors import BaseModelError

_PREFIXES = (  # of a single file's names: whose layers follow; "" is the denoiser
    ("model.diffusion_model.", ""),
    ("diffusion_model.", ""),
    ("cond_stage_model.transformer.", "text_encoder"),
    ("conditioner.embedders.0.transformer.", "text_encoder"),
    ("text_encoders.clip_l.transformer.", "text_encoder"),
    ("text_encoders.clip_g.transformer.", "text_encoder_2"),
    ("text_encoders.t5xxl.transformer.", "text_encoder_3"),
)
_OPEN_CLIP = (("cond_stage_model.model.", "text_encoder"), ("conditioner.embedders.1.model.", "text_encoder_2"))
_OPEN_CLIP_LAYER = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_SWAPPED = re.compile(r"final_layer\.adaLN_modulation\.1|joint_blocks\.(\d+)\.context_block\.adaLN_modulation\.1")

Rows = tuple[int, int]


class Stored(NamedTuple):
    """A tensor of a file."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: torch.dtype


class Part(NamedTuple):
    """A parameter that a tensor holds, or rows of it. rows: of the tensor; inside: of the parameter; None: all."""

    component: str
    path: str
    name: str  # weight or bias
    rows: Rows | None = None
    inside: Rows | None = None
    transposed: bool = False


class Checkpoint:
    """The files of a base, by what is in them.

    modules   {component: model on the meta device}; the denoiser first
    stored    every tensor of those components, of a single file every tensor there is
    """

    def __init__(self, line: str):
        """line: as for `load_base`. Raises BaseModelError."""
        self.choice, self.place, self.modules = BaseChoice.of(line), base_folder(line), skeleton(line)
        self.indexes: dict[str, Index] = {name: index_layers(module) for name, module in self.modules.items()}
        self._open: dict[Path, Any] = {}
        self.stored: list[Stored] = []
        self._parts: dict[tuple[Path, str], tuple[Part, ...]] = {}
        self._held: dict[tuple[str, str, str], list[tuple[Stored, Part]]] = {}
        for component, file in self.files():
            for one in self.tensors_of(file):
                self.stored.append(one)
                self._parts[one.file, one.key] = parts = tuple(self._find(component, one))
                for part in parts:
                    self._held.setdefault(part[:3], []).append((one, part))

    def files(self) -> Iterator[tuple[str, Path]]:
        """(component, file) of the weights; "" for the file that holds them all."""
        if self.place.is_file():
            yield "", self.place
            return
        for component in self.modules:
            yield from ((component, file) for file in weights_in(self.place / component, self.choice.variant))

    def parts_of(self, stored: Stored) -> tuple[Part, ...]:
        """What a tensor holds of the modules; () for what belongs to none, such as the VAE."""
        return self._parts.get((stored.file, stored.key), ())

    def holds(self, component: str, path: str, name: str = "weight") -> bool:
        return (component, path, name) in self._held

    def read(self, component: str, path: str, name: str = "weight") -> Tensor | None:
        """A parameter in float32, in its module's shape; None where the files lack it. Raises BaseModelError."""
        found = self._held.get((component, path, name))
        if not found:
            return None
        shape = self.shape(component, path, name)
        whole = torch.empty(shape[0], shape.numel() // max(1, shape[0]))
        for stored, part in found:
            rows = self.tensor(stored, part.rows).float()
            rows = (rows.T if part.transposed else rows).reshape(-1, whole.shape[1])
            start, end = part.inside or (0, shape[0])
            if len(rows) != end - start:
                return None
            whole[start:end] = rows
        return whole.reshape(shape)

    def dtype(self, component: str, path: str, name: str = "weight") -> torch.dtype:
        """As the parameter is stored. Raises KeyError where the files lack it."""
        return self._held[component, path, name][0][0].dtype

    def shape(self, component: str, path: str, name: str = "weight") -> torch.Size:
        parameter = self.modules[component].get_submodule(path)._parameters[name]
        assert parameter is not None
        return parameter.shape

    def tensor(self, stored: Stored, rows: Rows | None = None) -> Tensor:
        """A tensor as it is stored, or some of its rows. Raises BaseModelError."""
        try:
            handle = self._handle(stored.file)
            return handle.get_slice(stored.key)[slice(*rows)] if rows else handle.get_tensor(stored.key)
        except (OSError, SafetensorError, ValueError) as error:
            raise BaseModelError(
                f"{stored.file.name} can't be read at {stored.key[:80]}: download it again."
            ) from error

    @property
    def metadata(self) -> dict[str, str]:
        """Of a single file."""
        return dict(self._handle(self.place).metadata() or {}) if self.place.is_file() else {}

    def _handle(self, file: Path) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(file, "pt")
        return self._open[file]

    def tensors_of(self, file: Path) -> Iterator[Stored]:
        """Every tensor of a file, by its header. Raises BaseModelError."""
        try:
            handle = self._handle(file)
            for key in handle.keys():  # noqa: SIM118
                found = handle.get_slice(key)
                if found.get_dtype() not in DTYPES:
                    raise BaseModelError(f"{file.name} holds numbers of a kind that is not read: {found.get_dtype()}.")
                yield Stored(file, key, tuple(found.get_shape()), DTYPES[found.get_dtype()])
        except (OSError, SafetensorError) as error:
            raise BaseModelError(f"{file.name} can't be read: download it again.") from error

    def _find(self, component: str, stored: Stored) -> Iterator[Part]:
        """What the tensor holds; nothing where shapes differ."""
        for part in self._named(component, stored.key):
            parameter = self.modules[part.component].get_submodule(part.path)._parameters.get(part.name)
            if parameter is None or not stored.shape:
                continue
            shape = stored.shape[::-1] if part.transposed else stored.shape
            count = part.rows[1] - part.rows[0] if part.rows else shape[0]
            inside = part.inside[1] - part.inside[0] if part.inside else parameter.shape[0]
            width = torch.Size(shape[1:]).numel()
            if count == inside and width == torch.Size(parameter.shape[1:]).numel():
                yield part

    def _named(self, component: str, key: str) -> Iterator[Part]:
        denoiser = next(iter(self.modules))
        if component:
            yield from self._layers(component, key)
            return
        for prefix, owner in _OPEN_CLIP:
            if key.startswith(prefix) and owner in self.modules:
                yield from self._open_clip(owner, key.removeprefix(prefix))
                return
        for prefix, owner in _PREFIXES:
            if key.startswith(prefix):
                owner = owner or denoiser
                if owner == "text_encoder_3" and owner not in self.modules:
                    owner = "text_encoder_2"  # FLUX's T5
                if owner in self.modules:
                    yield from self._layers(owner, key.removeprefix(prefix))
                return
        yield from self._layers(denoiser, key)

    def _layers(self, component: str, key: str) -> Iterator[Part]:
        stem, _, name = key.rpartition(".")
        if name not in ("weight", "bias"):
            return
        if swapped := _SWAPPED.fullmatch(stem):
            block = f"transformer_blocks.{swapped[1]}.norm1_context.linear" if swapped[1] else "norm_out.linear"
            if block in self.indexes[component] and not self.indexes[component].get(stem):
                count = self.shape(component, block)[0]
                yield Part(component, block, name, (0, count // 2), (count // 2, count))
                yield Part(component, block, name, (count // 2, count), (0, count // 2))
                return
        for path, rows in self.indexes[component].get(stem) or ():
            yield Part(component, path, name, rows)

    def _open_clip(self, component: str, key: str) -> Iterator[Part]:
        """OpenCLIP's names, as in SD 2 and SDXL's second text encoder."""
        if key == "text_projection":
            for part in self._layers(component, "text_projection.weight"):
                yield part._replace(transposed=True)
            return
        if key == "positional_embedding":
            yield from self._layers(component, "embeddings.position_embedding.weight")
            return
        stem, _, name = key.rpartition(".")
        plain = {"token_embedding": "embeddings.token_embedding", "ln_final": "final_layer_norm"}.get(stem)
        if plain:
            yield from self._layers(component, f"{plain}.{name}")
            return
        found = re.fullmatch(r"transformer\.resblocks\.(\d+)\.(.+)", key)
        if not found:
            return
        layer, rest = f"encoder.layers.{found[1]}", found[2]
        if fused := re.fullmatch(r"attn\.in_proj_(weight|bias)", rest):
            for number, letter in enumerate("qkv"):
                for part in self._layers(component, f"{layer}.self_attn.{letter}_proj.{fused[1]}"):
                    count = self.shape(component, part.path)[0]
                    yield part._replace(rows=(number * count, (number + 1) * count))
            return
        stem, _, name = rest.rpartition(".")
        if stem in _OPEN_CLIP_LAYER:
            yield from self._layers(component, f"{layer}.{_OPEN_CLIP_LAYER[stem]}.{name}")


def weights_in(folder: Path, variant: str = "") -> list[Path]:
    """The weight files of one component that diffusers would load."""
    chosen = variant_in(folder, variant) or ""
    return [file for file in sorted(folder.glob("*.safetensors")) if variant_of(file.name) == chosen]
