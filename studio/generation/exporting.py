"""Several applied adapters as one standard file: strengths, text encoder and blocks baked in."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import nn

from studio.adapters import AdapterFile, place_layers, read_adapter, write_adapter
from studio.adapters.baking import Baked, Layers, Strength, bake
from studio.adapters.report import left_out
from studio.basemodels.weights import weights_hash
from studio.errors import AdapterError
from studio.generation.adapter_info import trigger_words
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.cover import KEY as COVER
from studio.generation.cover import cover_text

if TYPE_CHECKING:
    from studio.basemodels import Family

RANK = 32  # of layers that are no plain LoRA, where none is chosen


@dataclass(frozen=True)
class Exported:
    """rank: the largest of a layer. lost: share of the change's energy that the file lacks."""

    path: Path
    layers: int
    rank: int
    lost: float
    notes: tuple[str, ...]


def export_merged(
    adapters: Sequence[AppliedAdapter],
    base: "Family",
    path: Path,
    *,
    layout: str = "diffusers",
    rank: int = RANK,
    cover: Image.Image | None = None,
    words: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write `path`, which changes `base` at strength 1 as `adapters` do.

    Plain LoRAs stay exact; other kinds are cut to `rank`. words: trigger words, else those of the files.
    metadata: what the file says besides.
    Raises AdapterError, and whatever `progress` raises.
    """
    if type(rank) is not int or not 1 <= rank <= 1024:
        raise AdapterError(f"The rank must be a whole number from 1 to 1024 (you gave {rank!r}).")
    active = [adapter for adapter in adapters if adapter.start < adapter.end]
    if not active:
        raise AdapterError("There is nothing to export: add an adapter first and turn it on.")
    files = [read_applied(adapter) for adapter in active]
    stack: list[tuple[Layers, Strength]] = []
    lost: list[str] = []
    for adapter, file in zip(active, files):
        placed, unused = place_layers(file, base.modules())
        if not placed:
            raise AdapterError(f"{adapter.title} was made for another base model: remove it first.")
        stack.append((placed, adapter.scale_for))
        lost += [f"{adapter.title}: {line}" for line in left_out(file, unused)]
    baked = bake(stack, base.modules(), rank, progress)
    words = tuple(words) or tuple(dict.fromkeys(word for file in files for word in trigger_words(file.metadata)))
    written = {
        "modelspec.merged_from": ", ".join(f"{adapter.title}:{adapter.strength:g}" for adapter in active),
        "studio.merged_from": json.dumps([described(adapter, file) for adapter, file in zip(active, files)]),
        "studio.base": base.choice.short,
        "studio.base_hash": weights_hash(base.folder),
        "modelspec.resolution": f"{base.resolution}x{base.resolution}",
        "studio.trigger": ", ".join(words),
        "modelspec.trigger_phrase": ", ".join(words),
        COVER: cover_text(cover) if cover else "",
        **(metadata or {}),
    }
    write_adapter(path, baked.layers, layout, {key: value for key, value in written.items() if value})
    largest = max(update.rank for update in baked.layers.values())
    notes = [*_notes(active, baked, rank), *lost]
    embeddings = sum(
        isinstance(base.modules()[component].get_submodule(place), nn.Embedding) for component, place in baked.layers
    )
    if embeddings:
        notes.append(f"{embeddings} of its layers are embeddings, which diffusers does not load.")
    return Exported(path, len(baked.layers), largest, baked.lost, tuple(notes))


def cannot_bake(adapters: Sequence[AppliedAdapter]) -> str:
    """What a file can't hold of these adapters, in one sentence; "" when it holds all."""
    steps = [one.title for one in adapters if one.start < one.end and (one.start > 0 or one.end < 1)]
    if not steps:
        return ""
    return f"A file has no steps: {_and(steps)} will act from the first step to the last."


def read_applied(adapter: AppliedAdapter) -> AdapterFile:
    """Its file, checked. Raises AdapterError."""
    if adapter.live:
        raise AdapterError(f"{adapter.title} is still training: remove it, or wait until the run has ended.")
    file = read_adapter(adapter.file)
    file.refuse_if_damaged()
    return replace(file, name=adapter.title)


def described(adapter: AppliedAdapter, file: AdapterFile) -> dict:
    """The adapter's fields without the path of its file."""
    values = adapter.model_dump(mode="json", exclude={"file", "live", "hash"}, exclude_defaults=True)
    return {"name": adapter.title, "sha256": file.hash, "strength": adapter.strength, **values}


def _notes(adapters: Sequence[AppliedAdapter], baked: Baked, rank: int) -> list[str]:
    notes = []
    if baked.cut:
        notes.append(
            f"{baked.cut} layers are no plain LoRAs and were cut to rank {rank}: {100 * baked.lost:.2g} % of the "
            "change's energy is lost."
        )
    else:
        notes.append("Exact: at strength 1 it changes the base as these adapters do.")
    if baked.left_out:
        notes.append(f"{baked.left_out} biases or norms were left out: a LoRA has no place for them.")
    return [*notes, *filter(None, [cannot_bake(adapters)])]


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
