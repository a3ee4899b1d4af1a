"""Writing a transformer's layers as kohya's tools name and join them: FLUX.1, SD 3 and Z-Image.

Those tools keep the original authors' layers, in which query, key and value are one. Several LoRAs become the LoRA of
the joint layer without loss: their A stand below each other, their B along a diagonal, so that ranks add up.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from studio.adapters.family import family_of
from studio.adapters.names import kohya_name
from studio.adapters.original_dit_names import table_of
from studio.adapters.original_names import original_names
from studio.adapters.update import Update
from studio.errors import AdapterError

_JOINED = {"FLUX.1", "Chroma", "Stable Diffusion 3"}
_ELSEWHERE = re.compile(r"double_blocks\.\d+\.(qkv|proj)[12]|single_blocks\.\d+\.(qkv|proj)")  # XLabs' names
_ALIKE = re.compile(r"(layers|noise_refiner|context_refiner)\.")  # Z-Image: its first authors' names, but for qkv
_QKV = re.compile(r"(to_|add_)([qkv])(_proj)?$")


def joined(layers: Mapping[str, Update], metadata: Mapping[str, str] | None = None) -> dict[str, Update]:
    """{path in a diffusers transformer: update} to {kohya's dotted name: update}.

    Layers that have no such name (diffusers changed them, or they are no plain LoRA) keep their own path, and so do
    those of models that kohya's tools name as diffusers does.
    """
    family = family_of({("transformer", path): update for path, update in layers.items()}, metadata)
    possible = [family.name] if family.name in family.candidates else family.candidates
    if not _JOINED.issuperset(possible):
        return dict(layers)
    plain = {path: update for path, update in layers.items() if _is_plain(update)}
    sizes = {path: update.shape[0] for path, update in plain.items()}
    out, left = {}, dict(layers)
    for name, paths in _names(sizes):
        parts = [plain.get(path) for path in paths]
        if len(paths) == 1:
            out[name] = left.pop(paths[0])
        elif any(parts):
            out[name] = _side_by_side(parts, [sizes[path] for path in paths])
            for path in paths:
                left.pop(path, None)
    return out | left


def stems(
    layers: Mapping[tuple[str, str], Update], metadata: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Update]]:
    """(the key without its end, update) of all layers of a file in the kohya layout.

    metadata: of the file, see `family_of`.

    Raises AdapterError for a component that the layout has no name for, and where two layers would be called the same.
    """
    transformer = {path: update for (component, path), update in layers.items() if component == "transformer"}
    two = bool(transformer) or any(component == "text_encoder_2" for component, _ in layers)
    seen = set()
    for component, path, update in [
        *((component, path, update) for (component, path), update in layers.items() if component != "transformer"),
        *(
            ("unet" if name not in transformer or _ALIKE.match(name) else "transformer", name, update)
            for name, update in joined(transformer, metadata).items()
        ),
    ]:
        stem = kohya_name(component, path, two)
        if stem in seen:
            raise AdapterError(f"Two layers are both called {stem} in the kohya layout: use the diffusers layout.")
        seen.add(stem)
        yield stem, update


def _is_plain(update: Update) -> bool:
    return update.kind == "lora" and set(update.parts) == {"A", "B"}


def _names(sizes: dict[str, int]) -> list[tuple[str, tuple[str, ...]]]:
    """(kohya's name, the paths it holds) of those layers; `sizes` gets those of neighbours that were not adapted."""
    own = set(sizes)
    _complete(sizes)
    signs = dict(sizes)
    if table_of(signs) is not None:
        return []
    if not any(path.startswith("single_transformer_blocks.") for path in sizes):
        signs.setdefault("pos_embed.proj", 0)  # how SD 3 is told from others
    held: dict[str, list[str]] = {}
    for name, path, _ in original_names(signs):
        if not _ELSEWHERE.fullmatch(name):
            held.setdefault(name, []).append(path)
    return [(name, tuple(paths)) for name, paths in held.items() if own & set(paths)]


def _complete(sizes: dict[str, int]) -> None:
    """Query, key and value are of one size, FLUX's feed-forward beside them four times that."""
    for path, size in list(sizes.items()):
        if found := _QKV.search(path):
            stem = path[: found.start()]
            for letter in "qkv":
                sizes.setdefault(f"{stem}{found[1]}{letter}{found[3] or ''}", size)
            block = re.fullmatch(r"(single_transformer_blocks\.\d+)\.attn\.", stem)
            if block:
                sizes.setdefault(f"{block[1]}.proj_mlp", 4 * size)


def _side_by_side(parts: list[Update | None], sizes: list[int]) -> Update:
    """One LoRA whose outputs are those of all parts in turn; zeros where there is none."""
    there = [part for part in parts if part is not None]
    rank = sum(part.rank for part in there)
    down = torch.cat([part.parts["A"] for part in there])
    up = torch.zeros(sum(sizes), rank, dtype=down.dtype)
    row = column = 0
    for part, size in zip(parts, sizes):
        if part is not None:
            scale = part.alpha / part.rank
            up[row : row + size, column : column + part.rank] = scale * part.parts["B"]
            column += part.rank
        row += size
    return replace(there[0], parts={"A": down, "B": up}, alpha=float(rank))
