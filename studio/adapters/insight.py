"""What an adapter's numbers say: how much of its rank it uses, where it is strong, what it shares with another."""

import re
from collections import defaultdict

import torch

from studio.adapters.attach import Adapter
from studio.adapters.files import AdapterFile
from studio.adapters.layers import plain_weight
from studio.adapters.reshape import singular_values
from studio.errors import AdapterError


def energy_rank(update, share: float = 0.95) -> int:
    """How many directions hold `share` of the update's energy (the squares of its singular values)."""
    values = singular_values(update).square()
    total = values.sum()
    return int((values.cumsum(0) < share * total).sum()) + 1 if total > 0 else 0


def effective_rank(file: AdapterFile) -> dict[str, int] | None:
    """{"median", "largest", "zero"}: `energy_rank` over the layers, and how many layers do nothing.

    None for kinds whose update can't be written without the base.
    """
    if file.not_finite:
        return None
    try:
        ranks = sorted(energy_rank(update) for update in file.layers.values())
    except AdapterError:
        return None
    return {"median": ranks[len(ranks) // 2], "largest": ranks[-1], "zero": sum(rank == 0 for rank in ranks)}


@torch.no_grad()
def energy_by_block(adapter: Adapter) -> dict[str, float]:
    """{block: ‖s · delta‖ / ‖W‖} over the adapted layers of each block of the base, at the present strength."""
    moved: dict[str, float] = defaultdict(float)
    whole: dict[str, float] = defaultdict(float)
    for place, delta, weight in _deltas(adapter):
        block = block_of(*place)
        moved[block] += (adapter.strength * delta).square().sum().item()
        whole[block] += weight.square().sum().item()
    return {block: (moved[block] / whole[block]) ** 0.5 for block in moved if whole[block]}


@torch.no_grad()
def overlap(one: Adapter, other: Adapter) -> float:
    """The cosine between two adapters' updates over the layers that both change: 1 the same, 0 apart, −1 against."""
    theirs = {place: delta for place, delta, _ in _deltas(other)}
    inner, lengths = 0.0, [0.0, 0.0]
    for place, delta, _ in _deltas(one):
        if place in theirs:
            inner += (delta * theirs[place]).sum().item()
            lengths[0] += delta.square().sum().item()
            lengths[1] += theirs[place].square().sum().item()
    return inner / (lengths[0] * lengths[1]) ** 0.5 if all(lengths) else 0.0


def _deltas(adapter: Adapter):
    """(place, delta, W) of each adapted layer, float32, one at a time."""
    for place, layer, base in adapter.placed():
        weight = plain_weight(base)
        yield place, layer.factor * layer.delta(weight), weight


def block_of(component: str, path: str) -> str:
    """The component and the numbered block: unet.down_blocks.1, unet.mid_block, text_encoder.encoder.layers.3."""
    match = re.match(r"(mid_block|.*?\.\d+)(\.|$)", path)
    return ".".join(filter(None, (component, match[1] if match else path.split(".")[0])))
