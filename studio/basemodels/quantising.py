"""A frozen denoiser in 8 or 4 bits: a half or a quarter of the memory, for which each step takes longer.

Adapters train on top in float32 and gradients flow through; that is how QLoRA (arXiv:2305.14314) does it. The programs
that do the packing are optional: torchao for 8 bits on any device, bitsandbytes for 4 bits (NF4) on a GPU, and for 8
bits where torchao is not installed.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from studio import devices
from studio.adapters.layers import is_quantised
from studio.errors import BaseModelError

BYTES = {"8bit": 1.0, "4bit": 0.56}  # a number takes, scales included


def quantisation(wanted: str, device: torch.device, dtype: torch.dtype) -> Any:
    """diffusers' settings for a denoiser's `quantization_config`. Raises BaseModelError when nothing here can do it.

    wanted: "8bit" or "4bit". dtype: of the arithmetic.
    """
    from studio.libraries.diffusers import diffusers

    on_gpu = devices.supports_bitsandbytes(device) and find_spec("bitsandbytes") is not None
    if wanted == "8bit" and find_spec("torchao") is not None:
        from torchao.quantization import Int8WeightOnlyConfig

        return diffusers.TorchAoConfig(Int8WeightOnlyConfig())
    if wanted == "8bit" and on_gpu:
        return diffusers.BitsAndBytesConfig(load_in_8bit=True)
    if wanted == "4bit" and on_gpu:
        return diffusers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, bnb_4bit_use_double_quant=True
        )
    if wanted == "4bit" and not devices.supports_bitsandbytes(device):
        raise BaseModelError(
            "A base in 4 bits needs a GPU (CUDA, ROCm or XPU): leave quantise=4bit out, or say quantise=8bit."
        )
    package = "torchao" if wanted == "8bit" else "bitsandbytes"
    raise BaseModelError(
        f"A base in {wanted.removesuffix('bit')} bits needs {package}: pip install {package}, or leave quantise out."
    )


def in_one_precision(denoiser: nn.Module, dtype: torch.dtype) -> None:
    """Give packed layers their input in `dtype`: autocast does not know them, and they answer as they are asked."""

    def cast(_: nn.Module, args: tuple) -> tuple:
        return (args[0].to(dtype), *args[1:])

    for layer in denoiser.modules():
        if isinstance(layer, nn.Linear) and is_quantised(layer):
            layer.register_forward_pre_hook(cast)
