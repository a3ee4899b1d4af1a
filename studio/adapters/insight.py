"""What an adapter's numbers say: which base it is for, how much of its rank it uses, where it is strong."""

import re
from collections import defaultdict

import torch
from torch import Tensor

from studio.adapters.attach import Adapter
from studio.adapters.files import AdapterFile
from studio.adapters.layers import weight_of
from studio.adapters.reshape import singular_values
from studio.errors import AdapterError

# What the cross-attention of a UNet reads: the width of the text states tells the family.
_TEXT_WIDTHS = {192: "LoRA Studio starter", 768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "SDXL"}
_SIGNS = (  # (pattern of a layer's name, family)
    (r"(double|single)_blocks|single_transformer_blocks", "FLUX"),
    (r"joint_blocks|transformer_blocks[._]\d+[._](attn[._]add_q_proj|ff_context)", "Stable Diffusion 3"),
)


def base_family(file: AdapterFile) -> tuple[str, str]:
    """(the family of base models that the file fits, why), from its layers' names and sizes; ("", why) if unsure.

    What the metadata claims is not asked: people rename and merge, shapes do not lie.
    """
    for (_, key), _ in file.layers.items():
        for sign, family in _SIGNS:
            if re.search(sign, key):
                return family, f"a layer is called {key}"
    for (_, key), update in file.layers.items():
        if re.search(r"attn2[._]to_[kv]$", key) and len(update.shape) >= 2:
            width = update.shape[1]
            family = _TEXT_WIDTHS.get(width, "")
            return family, f"its cross-attention reads text states {width} wide"
    return "", "it has no cross-attention layer to tell by"


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
        block = _block_of(place)
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
        weight: Tensor = weight_of(base).detach().float()
        yield place, layer.delta(weight), weight


def _block_of(place: tuple[str, str]) -> str:
    """The component and the numbered block: unet.down_blocks.1, text_encoder.encoder.layers.3."""
    component, path = place
    match = re.match(r"(.*?\.\d+)(\.|$)", path)
    return ".".join(filter(None, (component, match[1] if match else path.split(".")[0])))
