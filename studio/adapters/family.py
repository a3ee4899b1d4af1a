"""Which family of base models an adapter is for, told by its layers' names and sizes.

What a file's metadata claims is not asked: people rename and merge, shapes do not lie.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from studio.adapters.update import Update


class Family(NamedTuple):
    """name: as people say it, "" when unsure. architecture: ModelSpec's word for it. why: in a few words."""

    name: str
    architecture: str
    why: str


# What the cross-attention of a UNet reads: the width of the text states tells the family.
_TEXT_WIDTHS = {
    192: ("LoRA Studio starter", "lora-studio-starter"),
    768: ("Stable Diffusion 1", "stable-diffusion-v1"),
    1024: ("Stable Diffusion 2", "stable-diffusion-v2"),
    2048: ("SDXL", "stable-diffusion-xl-v1-base"),
}
_FLUX_WIDTH = 3072  # diffusers calls FLUX's double blocks as it calls SD 3's, which are 1536 or 2432 wide
_SIGNS = (  # (pattern of a layer's name, family, architecture)
    (r"(double|single)_blocks|single_transformer_blocks", "FLUX", "flux-1"),
    (
        r"joint_blocks|transformer_blocks[._]\d+[._](attn[._]add_q_proj|ff_context)",
        "Stable Diffusion 3",
        "stable-diffusion-3",
    ),
)


def family_of(layers: Mapping[tuple[str, str], Update]) -> Family:
    """layers: {(component, path or flattened name): update}."""
    for sign, name, architecture in _SIGNS:
        for (_, key), update in layers.items():
            if re.search(sign, key):
                if _FLUX_WIDTH in update.shape:
                    return Family("FLUX", "flux-1", f"a layer called {key} is {_FLUX_WIDTH} wide")
                return Family(name, architecture, f"a layer is called {key}")
    for (_, key), update in layers.items():
        if re.search(r"attn2[._]to_[kv]$", key) and len(update.shape) >= 2:
            width = update.shape[1]
            return Family(*_TEXT_WIDTHS.get(width, ("", "")), f"its cross-attention reads text states {width} wide")
    return Family("", "", "it has no cross-attention layer to tell by")
