"""Writing adapters: two layouts, with the metadata that other programs look for."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from studio.adapters import names
from studio.adapters.family import family_of
from studio.adapters.formulas import block_side
from studio.adapters.kohya_names import stems
from studio.adapters.peft_config import METADATA_KEY
from studio.adapters.update import NEUMANN_TERMS, Update
from studio.errors import AdapterError
from studio.workspace import atomic_write

LAYOUTS = ("diffusers", "kohya")
Embeddings = Mapping[str, Mapping[str, Tensor]]  # {token: {part of the key, such as "clip_l": (words, width)}}


def write_adapter(
    path: str | Path,
    layers: Mapping[tuple[str, str], Update],
    layout: str | None = None,
    metadata: Mapping[str, str] | None = None,
    embeddings: Embeddings | None = None,
) -> None:
    """Write layers {(component, dotted path): update} as one .safetensors file, atomically.

    layout      "diffusers" (LoRA and DoRA only) or "kohya"; None: diffusers where it can hold them
    embeddings  bundled words, which only the kohya layout can hold

    Raises AdapterError: an unknown layout, a kind or component that the layout has no name for, numbers that are not
    finite, or a place that can't be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".safetensors":
        raise AdapterError(f"{path.name} must end in .safetensors: change the name.")
    try:
        atomic_write(path, adapter_bytes(path.stem, layers, layout, metadata, embeddings))
    except OSError as error:
        raise AdapterError(f"Can't write {path}: {error.strerror}.") from error


def adapter_bytes(
    title: str,
    layers: Mapping[tuple[str, str], Update],
    layout: str | None = None,
    metadata: Mapping[str, str] | None = None,
    embeddings: Embeddings | None = None,
) -> bytes:
    """What `write_adapter` writes. Raises AdapterError as it does, for all but the place."""
    if layout is None:
        layout = "diffusers" if all(_fits_diffusers(u) for u in layers.values()) and not embeddings else "kohya"
    if layout not in LAYOUTS:
        raise AdapterError(f"The layout {layout!r} is unknown: use {' or '.join(LAYOUTS)}.")
    if not all(torch.isfinite(tensor).all() for update in layers.values() for tensor in update.parts.values()):
        raise AdapterError(f"{title} was not written, because the adapter holds numbers that are not finite.")
    if embeddings and layout == "diffusers":
        raise AdapterError("The diffusers layout has no place for bundled embeddings: use the kohya layout.")
    tensors = _kohya_tensors(layers, metadata) if layout == "kohya" else _diffusers_tensors(layers)
    for token, parts in (embeddings or {}).items():
        tensors |= {f"bundle_emb.{token}.{part}": tensor for part, tensor in parts.items()}
    head = {**_standard_metadata(title, layers, metadata or {}), **(metadata or {})}
    if layout == "diffusers":
        head[METADATA_KEY] = json.dumps(_diffusers_settings(layers), indent=2, sort_keys=True)
    tensors = {key: tensor.contiguous() for key, tensor in tensors.items()}
    body = safetensors.torch.save(tensors)
    body_hash = hashlib.sha256(memoryview(body)[8 + int.from_bytes(body[:8], "little") :]).hexdigest()
    head |= {"sshs_model_hash": body_hash, "modelspec.hash_sha256": f"0x{body_hash}"}
    return safetensors.torch.save(tensors, head)


def _fits_diffusers(update: Update) -> bool:
    """LoRA, DoRA along the outputs, OFT along the inputs: what PEFT has names for."""
    if update.kind == "oftv2":
        return True
    return update.kind == "lora" and set(update.parts) <= {"A", "B", "magnitude"} and update.axis != "input"


def _diffusers_tensors(layers: Mapping[tuple[str, str], Update]) -> dict[str, Tensor]:
    out = {}
    for (component, path), update in layers.items():
        if not _fits_diffusers(update):
            raise AdapterError(f"The diffusers layout has no names for {update.label}: use the kohya layout.")
        stem = ".".join(filter(None, (component, names.diffusers_path(component, path))))
        if update.kind == "oftv2":
            out[f"{stem}.oft_R.weight"] = update.parts["oft_R"]
            continue
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


def _diffusers_settings(layers: Mapping[tuple[str, str], Update]) -> dict[str, object]:
    """PEFT's LoraConfig for each component, as diffusers reads it: without it, alpha would be taken to be the rank."""
    settings: dict[str, object] = {}
    for component in dict.fromkeys(component for component, _ in layers):
        mine = {path: f for (c, path), f in layers.items() if c == component}
        if turns := [f for f in mine.values() if f.kind == "oftv2"]:
            settings |= {f"{component}.{key}" if component else key: v for key, v in _oft_settings(turns, mine).items()}
            continue
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


def _oft_settings(turns: list[Update], paths: Mapping[str, Update]) -> dict[str, object]:
    """PEFT's OFTConfig."""
    terms = int(turns[0].parts["neumann"].item())
    return {
        "peft_type": "OFT",
        "r": 0,
        "oft_block_size": Counter(block_side(f.parts["oft_R"].shape[1]) for f in turns).most_common(1)[0][0],
        "target_modules": sorted(paths),
        "use_cayley_neumann": terms > 0,
        "num_cayley_neumann_terms": terms or NEUMANN_TERMS,
    }


def _standard_metadata(
    title: str, layers: Mapping[tuple[str, str], Update], metadata: Mapping[str, str]
) -> dict[str, str]:
    """What other programs look for: kohya's ss_ keys and ModelSpec's (https://github.com/Stability-AI/ModelSpec)."""
    ranks, alphas = {f.rank for f in layers.values()}, {f.alpha for f in layers.values()}
    plain = all(f.label == "LoRA" for f in layers.values())
    more = {} if plain else {"ss_network_args": json.dumps({"algo": next(iter(layers.values())).kind})}
    architecture = family_of(layers, metadata).architecture
    if architecture:
        more["modelspec.architecture"] = f"{architecture}/lora"
    return more | {
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
