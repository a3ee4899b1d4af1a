"""Adapter files: whatever program wrote them, one normal form inside; two layouts outside."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import safetensors.torch
import torch
from torch import Tensor

from studio.adapters import names
from studio.adapters.family import family_of
from studio.adapters.header import Entry, parse_json, read_header
from studio.adapters.kohya_names import stems
from studio.adapters.update import Update, update_of
from studio.errors import AdapterError
from studio.workspace import write_whole

LAYOUTS = ("diffusers", "kohya")
SETTINGS_KEY = "lora_adapter_metadata"  # where diffusers (0.35 and later) keeps rank and alpha
_CHUNK = 2**20  # bytes


@dataclass(frozen=True)
class AdapterFile:
    """A file's contents in one form.

    layers    {(component, key): its update}; component is "" when the file names none, key is a dotted path or,
              from kohya's layout, a flattened one
    embeddings  {token: {text encoder, such as "clip_l": (words, width)}}, new words packed along with the adapter
    not_finite  keys of tensors that hold NaN or infinity: `attach_file` refuses them unless forced
    metadata  what the file says about itself, as it stands there
    unknown   {key: why it is not used}: nothing is dropped silently
    hash      SHA-256 of the whole file; size in bytes
    """

    name: str
    path: Path
    size: int
    hash: str
    layout: str
    layers: dict[tuple[str, str], Update] = field(repr=False)
    metadata: dict[str, str] = field(repr=False)
    unknown: dict[str, str] = field(repr=False)
    embeddings: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    not_finite: list[str] = field(default_factory=list)

    def refuse_if_damaged(self) -> None:
        """Raises AdapterError when numbers in it are not finite: even at strength 0 they would spoil a picture."""
        if self.not_finite:
            more = f" and {len(self.not_finite) - 1} more" if len(self.not_finite) > 1 else ""
            raise AdapterError(
                f"{self.name} holds numbers that are not finite ({self.not_finite[0]}{more}): use an earlier copy."
            )

    @property
    def ranks(self) -> Counter:
        """{rank: number of layers}."""
        return Counter(f.rank for f in self.layers.values())

    @property
    def alphas(self) -> Counter:
        """{alpha: number of layers}."""
        return Counter(f.alpha for f in self.layers.values())

    @property
    def kinds(self) -> Counter:
        """{kind as people call it: number of layers}."""
        return Counter(u.label for u in self.layers.values())

    @property
    def rank(self) -> int:
        """The commonest rank."""
        return self.ranks.most_common(1)[0][0]

    @property
    def alpha(self) -> float:
        """The commonest alpha."""
        return self.alphas.most_common(1)[0][0]


def read_adapter(path: str | Path) -> AdapterFile:
    """Read an adapter file safely: no code in it is run, and what it claims is checked before memory is given.

    Raises AdapterError in one sentence that says what is wrong and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise AdapterError(f"There is no adapter file {path}: check the name.")
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            entries, metadata, head = read_header(stream, path, size)
            tensors, digest = _read_tensors(stream, entries, hashlib.sha256(head))
    except OSError as error:
        raise AdapterError(f"Can't read {path.name}: {error.strerror}.") from error
    except ValueError as error:
        raise AdapterError(f"{path.name} is damaged ({error}): save or download it again.") from error
    try:
        layers, unknown, embeddings = _group(entries, tensors, _Settings.of(metadata, path))
    except ValueError as error:
        raise AdapterError(f"{path.name} can't be used ({error}): save or download it again.") from error
    if not layers:
        why = Counter(unknown.values()).most_common(1)
        raise AdapterError(
            f"{path.name} holds no adapter ({why[0][0] if why else 'it has no tensors'}): choose an adapter's file."
        )
    layout = "kohya" if any(entry.name.startswith(tuple(names.KOHYA_PREFIXES)) for entry in entries) else "diffusers"
    not_finite = [key for key, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    return AdapterFile(path.stem, path, size, digest, layout, layers, metadata, unknown, embeddings, not_finite)


def _read_tensors(stream: BinaryIO, entries: list[Entry], digest: "hashlib._Hash") -> tuple[dict[str, Tensor], str]:
    """The tensors that an adapter is made of, as float32, and the SHA-256 of all the bytes that were read."""
    tensors = {}
    for entry in entries:
        wanted = names.parse_key(entry.name) is not None
        kept, left = bytearray(), entry.length
        while left:
            chunk = stream.read(min(left, _CHUNK))
            if not chunk:
                raise ValueError("it ends too early")
            digest.update(chunk)
            left -= len(chunk)
            if wanted:
                kept += chunk
        if wanted:
            tensors[entry.name] = torch.frombuffer(kept, dtype=entry.dtype).reshape(entry.shape).to(torch.float32)
    return tensors, digest.hexdigest()


def _group(
    entries: list[Entry], tensors: dict[str, Tensor], settings: "_Settings"
) -> tuple[dict[tuple[str, str], Update], dict[str, str], dict[str, dict[str, Tensor]]]:
    """Layers from keys, why each other key is not one, and the bundled words.

    Raises ValueError for a layer that contradicts itself.
    """
    parts: dict[tuple[str, str], dict[str, str]] = {}  # layer -> part -> key
    unknown = {}
    for entry in entries:
        parsed = names.parse_key(entry.name)
        if parsed is None:
            unknown[entry.name] = names.why_not(entry.name)
            continue
        if parts.setdefault((parsed.component, parsed.layer), {}).setdefault(parsed.part, entry.name) != entry.name:
            raise ValueError(f"it holds {parsed.layer} twice")
    layers: dict[tuple[str, str], Update] = {}
    embeddings: dict[str, dict[str, Tensor]] = {}
    for (component, layer), keys in parts.items():
        if component == names.EMBEDDING:
            embeddings[layer] = {part: tensors[key] for part, key in keys.items()}
            continue
        try:
            update = update_of({part: tensors[key] for part, key in keys.items()})
        except AdapterError as error:  # a kind that is not read
            unknown.update(dict.fromkeys(keys.values(), str(error)))
            continue
        except ValueError as error:
            raise ValueError(f"{layer} {error}") from error
        if "alpha" not in keys and update.rank:
            update = replace(update, alpha=float(settings.alpha(component, layer, update.rank)))
        if not math.isfinite(update.alpha):
            raise ValueError(f"{layer} has an alpha that is not a number")
        layers[component, layer] = update
    return layers, unknown, embeddings


@dataclass(frozen=True)
class _Settings:
    """What the file (or the adapter_config.json that PEFT writes beside it) says about alpha."""

    values: dict
    _KEYS = ("lora_alpha", "alpha", "alpha_pattern", "use_rslora")  # PEFT's LoHa and LoKr say "alpha"

    @classmethod
    def of(cls, metadata: dict[str, str], path: Path) -> "_Settings":
        """Raises ValueError for settings that can't be read: guessing an alpha would silently change the result."""
        neighbour = path.with_name("adapter_config.json")
        if SETTINGS_KEY in metadata:
            return cls(parse_json(metadata[SETTINGS_KEY]))
        if path.name == "adapter_model.safetensors" and neighbour.is_file() and neighbour.stat().st_size < _CHUNK:
            return cls(parse_json(neighbour.read_bytes()))
        return cls({})

    def alpha(self, component: str, layer: str, rank: int) -> float:
        """The layer's alpha, such that alpha / rank is its scale; the rank when nothing is said."""
        said = {key: self.values.get(f"{component}.{key}", self.values.get(key)) for key in self._KEYS}
        alpha = next((said[key] for key in ("lora_alpha", "alpha") if said[key] is not None), rank)
        patterns = said["alpha_pattern"] or {}
        if not isinstance(patterns, dict):
            raise ValueError("its alpha_pattern is not a table")
        # PEFT takes these as regular expressions; they are written as ends of paths, and a stranger's are not run.
        steps = layer.split(".")
        for ending in (".".join(steps[i:]) for i in range(len(steps))):
            found = patterns.get(ending, patterns.get(f"^{ending}") if ending == layer else None)
            if found is not None:
                alpha = found
                break
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e9:
            raise ValueError("its alpha is not a number")
        return alpha * math.sqrt(rank) if said["use_rslora"] is True else alpha


def write_adapter(
    path: str | Path,
    layers: Mapping[tuple[str, str], Update],
    layout: str | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write layers {(component, dotted path): update} as one .safetensors file, whole or not at all.

    layout    "diffusers" (LoRA and DoRA only) or "kohya"; None: diffusers where it can hold them

    Raises AdapterError: an unknown layout, a kind or component that the layout has no name for, numbers that are not
    finite, or a place that can't be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} must end in .safetensors: change the name.")
    try:
        write_whole(path, adapter_bytes(path.stem, layers, layout, metadata))
    except OSError as error:
        raise AdapterError(f"Can't write {path}: {error.strerror}.") from error


def adapter_bytes(
    title: str,
    layers: Mapping[tuple[str, str], Update],
    layout: str | None = None,
    metadata: dict[str, str] | None = None,
) -> bytes:
    """What `write_adapter` writes. Raises AdapterError as it does, for all but the place."""
    if layout is None:
        layout = "diffusers" if all(_fits_diffusers(update) for update in layers.values()) else "kohya"
    if layout not in LAYOUTS:
        raise AdapterError(f"The layout {layout!r} is unknown: use {' or '.join(LAYOUTS)}.")
    if not all(torch.isfinite(tensor).all() for update in layers.values() for tensor in update.parts.values()):
        raise AdapterError(f"{title} was not written, because the adapter holds numbers that are not finite.")
    tensors = _kohya_tensors(layers, metadata) if layout == "kohya" else _diffusers_tensors(layers)
    said = {**_standard_metadata(title, layers, metadata or {}), **(metadata or {})}
    if layout == "diffusers":
        said[SETTINGS_KEY] = json.dumps(_diffusers_settings(layers), indent=2, sort_keys=True)
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    body = safetensors.torch.save(tensors)
    body_hash = hashlib.sha256(memoryview(body)[8 + int.from_bytes(body[:8], "little") :]).hexdigest()
    said |= {"sshs_model_hash": body_hash, "modelspec.hash_sha256": f"0x{body_hash}"}
    return safetensors.torch.save(tensors, said)


def _fits_diffusers(update: Update) -> bool:
    """LoRA, and DoRA along the outputs: what PEFT has names for."""
    return update.kind == "lora" and set(update.parts) <= {"A", "B", "magnitude"} and update.axis != "input"


def _diffusers_tensors(layers: Mapping[tuple[str, str], Update]) -> dict[str, Tensor]:
    out = {}
    for (component, path), update in layers.items():
        if not _fits_diffusers(update):
            raise AdapterError(f"The diffusers layout has no names for {update.label}: use the kohya layout.")
        stem = ".".join(filter(None, (component, names.diffusers_path(component, path))))
        out[f"{stem}.lora_A.weight"], out[f"{stem}.lora_B.weight"] = update.parts["A"], update.parts["B"]
        if "magnitude" in update.parts:
            window = len(update.parts["A"].shape) - 2
            shape = (1, -1, *(1 for _ in range(window))) if window else (-1,)
            out[f"{stem}.lora_magnitude_vector"] = update.parts["magnitude"].reshape(shape)
    return out


# Parts that this layout calls otherwise; the rest go by their own names.
_KOHYA_PARTS = {"A": "lora_down.weight", "B": "lora_up.weight", "mid": "lora_mid.weight", "ia3": "weight"}
_KOHYA_PARTS |= {part: f"{part}.weight" for part in ("a1", "a2", "b1", "b2")}


def _kohya_tensors(layers: Mapping[tuple[str, str], Update], metadata: Mapping[str, str] | None) -> dict[str, Tensor]:
    out = {}
    for stem, update in stems(layers, metadata):
        for part, tensor in update.parts.items():
            if part == "magnitude":
                # (out, 1, …) or (1, in, …): the axis is to be seen, on square layers too.
                ones = [1] * (max(2, len(update.shape)) - 2)
                shape = (-1, 1, *ones) if update.axis != "input" else (1, -1, *ones)
                out[f"{stem}.dora_scale"] = tensor.reshape(shape)
            else:
                out[f"{stem}.{_KOHYA_PARTS.get(part, part)}"] = tensor
        out[f"{stem}.alpha"] = torch.tensor(update.alpha)
    return out


def _diffusers_settings(layers: Mapping[tuple[str, str], Update]) -> dict:
    """PEFT's LoraConfig for each component, as diffusers reads it: without it, alpha would be taken to be the rank."""
    settings: dict[str, object] = {}
    for component in dict.fromkeys(component for component, _ in layers):
        mine = {path: f for (c, path), f in layers.items() if c == component}
        rank = Counter(f.rank for f in mine.values()).most_common(1)[0][0]
        alpha = Counter(f.alpha for f in mine.values()).most_common(1)[0][0]
        # "^" is the whole path; a text encoder's paths have one more level in older programs, so there an ending.
        anchor = "" if component.startswith("text_encoder") else "^"
        values = {
            "r": rank,
            "lora_alpha": _plain(alpha),
            "target_modules": sorted(mine),
            "rank_pattern": {anchor + path: f.rank for path, f in mine.items() if f.rank != rank},
            "alpha_pattern": {anchor + path: _plain(f.alpha) for path, f in mine.items() if f.alpha != alpha},
            "use_dora": any("magnitude" in f.parts for f in mine.values()),
        }
        settings |= {f"{component}.{key}" if component else key: value for key, value in values.items()}
    return settings


def _standard_metadata(
    title: str, layers: Mapping[tuple[str, str], Update], metadata: Mapping[str, str]
) -> dict[str, str]:
    """What other programs look for: kohya's ss_ keys and ModelSpec's (https://github.com/Stability-AI/ModelSpec)."""
    ranks, alphas = {f.rank for f in layers.values()}, {f.alpha for f in layers.values()}
    plain = all(f.label == "LoRA" for f in layers.values())
    told = {} if plain else {"ss_network_args": json.dumps({"algo": next(iter(layers.values())).kind})}
    architecture = family_of(layers, metadata).architecture
    if architecture:
        told["modelspec.architecture"] = f"{architecture}/lora"
    return told | {
        "format": "pt",
        "ss_network_module": "networks.lora" if plain else "lycoris.kohya",
        "ss_network_dim": str(min(ranks)) if len(ranks) == 1 else "Dynamic",
        "ss_network_alpha": str(_plain(min(alphas))) if len(alphas) == 1 else "Dynamic",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.implementation": "diffusers",
        "modelspec.title": title,
    }


def _plain(number: float) -> float | int:
    return int(number) if float(number).is_integer() else number
