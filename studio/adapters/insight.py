"""What an adapter's numbers say by themselves: how much of its rank it uses. And what its blocks are called."""

import re

from studio.adapters.files import AdapterFile
from studio.adapters.reshape import singular_values
from studio.adapters.update import Update
from studio.errors import AdapterError


def energy_rank(update: Update, share: float = 0.95) -> int:
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


def block_of(component: str, path: str) -> str:
    """The component and the numbered block: unet.down_blocks.1, unet.mid_block, text_encoder.encoder.layers.3."""
    match = re.match(r"(mid_block|.*?\.\d+)(\.|$)", path)
    return ".".join(filter(None, (component, match[1] if match else path.split(".")[0])))
