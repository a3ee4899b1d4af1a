"""Training that continues from an adapter file: its layers as they are, or at another rank."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from studio.adapters.attach import Adapter, place_layers
from studio.adapters.files import AdapterFile
from studio.adapters.layers import Layer, can_train, device_of, kaiming
from studio.adapters.reshape import resize
from studio.adapters.update import Update
from studio.errors import AdapterError
from studio.text import pluralize

TRAINABLE = ("lora", "loha", "lokr", "oft", "oftv2")  # a DoRA and a LoCon are LoRAs with further parts
Place = tuple[str, str]  # component, path


@dataclass(frozen=True)
class Continued:
    """layers: the file's updates by their place in the base; notes: what a person should know, a sentence each."""

    layers: Mapping[Place, Update]
    notes: tuple[str, ...]


def continue_from(
    file: AdapterFile, modules: dict[str, nn.Module], rank: int | None = None, alpha: float | None = None
) -> Continued:
    """The layers that training continues with. modules: {component: model} of the base.

    rank: every layer as a plain LoRA of this rank and alpha (its rank if not given): the best one where that is
    smaller, the same update where it is larger. None: kinds, ranks and alphas are the file's. Raises AdapterError where
    nothing fits, where a layer is of a kind that can't be trained, or resized.
    """
    file.refuse_if_damaged()
    placed, unused = place_layers(file, modules)
    if not placed:
        raise AdapterError(
            f"{file.name} was made for another base model: 0 of its {len(file.layers)} layers fit. Choose that base "
            "model, or begin a new adapter."
        )
    for (component, path), update in placed.items():
        if update.kind not in TRAINABLE or not can_train(modules[component].get_submodule(path)):
            raise AdapterError(
                f"{file.name} holds {update.label} at {path}, which can't be trained on: continue from a LoRA, DoRA, "
                "LoHa, LoKr or OFT."
            )
    notes = []
    lost = [*unused, *file.unknown.items()]
    if lost:
        notes.append(f"{pluralize(len(lost), 'key')} of {file.name} left out: {lost[0][0]} ({lost[0][1]}).")
    if rank is None:
        notes.insert(0, f"It continues from {file.name}: {_account(placed)}, as they are in the file.")
        return Continued(placed, tuple(notes))
    smaller, error = resize(placed, rank)
    sized = {place: _grown(update, rank, float(alpha or rank)) for place, update in smaller.items()}
    what = f"resized to rank {rank}, which loses {error:.0%} of it" if error > 1e-4 else f"at rank {rank}"
    notes.insert(0, f"It continues from {file.name}: {_account(placed)}, {what}.")
    return Continued(sized, tuple(notes))


def attach_continued(layers: Mapping[str, Update], module: nn.Module, name: str, dropout: float = 0.0) -> Adapter:
    """A trainable adapter of these updates, by their paths in `module`."""
    found = {
        ("", path): Layer(update, dropout).to(device_of(module.get_submodule(path))) for path, update in layers.items()
    }
    return Adapter(name, {"": module}, found)


def _grown(update: Update, rank: int, alpha: float) -> Update:
    """A plain LoRA of a larger rank that does the same: new rows of A are random, new columns of B zero."""
    A, B, more = update.parts["A"], update.parts["B"], rank - update.rank
    B = B * (update.sigma * rank / alpha)
    if more > 0:
        A = torch.cat([A, kaiming(more, *A.shape[1:])])
        B = torch.cat([B, torch.zeros(len(B), more, *B.shape[2:])], 1)
    return replace(update, parts={"A": A, "B": B}, alpha=alpha)


def _account(layers: Mapping[Place, Update]) -> str:
    """ "80 layers (LoRA, rank 4)"."""
    kinds = Counter(update.label for update in layers.values())
    ranks = sorted({update.rank for update in layers.values() if update.rank})
    rank = f", rank {ranks[0]}" if len(ranks) == 1 else f", ranks {ranks[0]} to {ranks[-1]}" if ranks else ""
    return f"{pluralize(len(layers), 'layer')} ({', '.join(kinds)}{rank})"
