"""Applied adapters merged into a checkpoint of their base, with the metadata that other programs look for."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from studio.adapters import place_layers
from studio.adapters.baking import Layers, Strength
from studio.adapters.family import family_of
from studio.adapters.report import left_out
from studio.basemodels.card import describe_base
from studio.basemodels.checkpoint import Checkpoint
from studio.basemodels.merging import Merged, Precision, Progress, merge_into
from studio.basemodels.weights import weights_hash
from studio.errors import AdapterError
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.exporting import cannot_bake, described, read_applied
from studio.text import pluralize, size

_SHOWN = 3  # layers that are named


def export_checkpoint(
    adapters: Sequence[AppliedAdapter],
    line: str,
    path: Path,
    precision: Precision = "keep",
    progress: Progress | None = None,
) -> tuple[Merged, tuple[str, ...]]:
    """Write at `path` what `line` is with these adapters, and what there is to know of it, a sentence each.

    path: .safetensors where the base is such a file, else a folder. Raises StudioError, and what `progress` raises.
    """
    active = [adapter for adapter in adapters if adapter.start < adapter.end]
    if not active:
        raise AdapterError("There is nothing to merge: add an adapter first and turn it on.")
    files, base = [read_applied(adapter) for adapter in active], Checkpoint(line)
    stack: list[tuple[Layers, Strength]] = []
    lost: list[str] = []
    for adapter, file in zip(active, files):
        placed, unused = place_layers(file, base.modules)
        if not placed:
            raise AdapterError(f"{adapter.title} was made for another base model: remove it first.")
        stack.append((placed, adapter.scale_for))
        lost += [f"{adapter.title}: {one}" for one in left_out(file, unused)]
    card = describe_base(line)
    found = family_of({place: update for layers, _ in stack for place, update in layers.items()}, {})
    metadata = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": found.architecture,
        "modelspec.implementation": "diffusers",
        "modelspec.title": path.stem,
        "modelspec.date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "modelspec.resolution": f"{card.resolution}x{card.resolution}",
        "modelspec.prediction_type": {"v_prediction": "v", "epsilon": "epsilon"}.get(card.prediction_type, ""),
        "modelspec.merged_from": ", ".join([base.choice.short, *(f"{one.title}:{one.strength:g}" for one in active)]),
        "studio.merged_from": json.dumps([described(adapter, file) for adapter, file in zip(active, files)]),
        "studio.base": base.choice.short,
        "studio.base_hash": weights_hash(base.place),
    }
    made = merge_into(base, stack, path, precision, {key: text for key, text in metadata.items() if text}, progress)
    notes = [f"{pluralize(made.layers, 'layer')} of {base.choice.short} changed; {size(made.size)}."]
    if made.missing:
        few = ", ".join(made.missing[:_SHOWN]) + (", …" if len(made.missing) > _SHOWN else "")
        are = f"{pluralize(len(made.missing), 'layer')} of the adapters"
        notes.append(f"{are} left out, because the base's files hold no such tensor: {few}.")
    overrides = base.choice.title.removeprefix(base.choice.short).strip()
    if overrides:
        notes.append(f"The settings {overrides} are the studio's, not in the file: set them for it again.")
    return made, (*notes, *lost, *filter(None, [cannot_bake(active)]))
