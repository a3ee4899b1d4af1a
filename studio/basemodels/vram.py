"""How much memory a base will take and on which device it will run, before it is loaded."""

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch

from studio import devices
from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import variant_in, variant_of
from studio.basemodels.quantising import BYTES as PACKED
from studio.basemodels.single_file import shapes_of
from studio.errors import BaseModelError

BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_PART_OF = (  # where a single file keeps what diffusers calls a component
    (r"first_stage_model\.|vae\.", "vae"),
    (r"cond_stage_model\.|conditioner\.|text_encoders\.", "text_encoder"),
    (r"", "denoiser"),
)


@dataclass(frozen=True)
class Estimate:
    """parameters: {component: how many}; gigabytes: of the weights once loaded."""

    parameters: dict[str, int]
    gigabytes: float

    def __str__(self) -> str:
        total = sum(self.parameters.values())
        parts = ", ".join(f"{name} {count / 1e6:,.0f} M" for name, count in self.parameters.items())
        return f"{total / 1e6:,.0f} M parameters ({parts}): {self.gigabytes:.1f} GB."


def placement(device: torch.device, precision: str, choice: BaseChoice | None = None) -> str:
    """One sentence: what runs where, in which precision."""
    where = devices.device_name(device)
    where = f"the {where}" if where in ("CPU", "Apple GPU") else where
    vae = "" if precision == "fp32" else ", the VAE in fp32"
    packed = f", the denoiser in {choice.quantise.removesuffix('bit')} bits" if choice and choice.quantise else ""
    fetched = ", the denoiser fetched block by block" if choice and choice.offload else ""
    return f"On {where} in {precision}{vae}{packed}{fetched}."


def estimate(place: Path, precision: str = "fp32", quantise: str = "") -> Estimate:
    """From the headers of the weight files alone. Raises BaseModelError when one can't be read.

    place: a diffusers folder or a .safetensors file. The denoiser counts in `precision`, or in the bits that `quantise`
    says, and so do text encoders of more than a billion parameters in `precision`; the rest is loaded in fp32.
    """
    counts: dict[str, int] = {}
    if place.is_file():
        for key, shape in shapes_of(place).items():
            part = next(name for sign, name in _PART_OF if re.match(sign, key))
            counts[part] = counts.get(part, 0) + prod(shape)
    else:
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            variant = variant_in(folder) or ""
            found = [file for file in sorted(folder.glob("*.safetensors")) if variant_of(file.name) == variant]
            count = sum(prod(shape) for file in found for shape in shapes_of(file).values())
            if count:
                counts[folder.name] = count
    if not counts:
        raise BaseModelError(f"{place.name} holds no .safetensors weights: download it again.")
    size = 0.0
    for name, count in counts.items():
        whole = name in ("vae", "image_encoder", "safety_checker") or name.startswith("text_encoder") and count < 1e9
        packed = quantise and name in ("unet", "transformer", "denoiser")
        size += count * (4 if whole else PACKED[quantise] if packed else BYTES[precision])
    return Estimate(counts, size / 1e9)
