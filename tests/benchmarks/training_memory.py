"""What the settings that save memory save: by arithmetic, and as the pretend device of tests/devices counts it.

python -m tests.benchmarks.training_memory [--batch 4] [--rank 16]

The starter's UNet trains for two steps from random latents and words. Held: weights, adapters, optimizer, between two
steps. The peak of a step holds its gradients and activations too, which no short sum gives.
"""

import argparse
import gc
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from studio import devices
from studio.adapters import Adapter, AdapterSpec, attach
from studio.basemodels import Family, load_base
from studio.training.objective import loss_of
from studio.training.rounding import in_float32, to_bfloat16
from tests.devices.second_device import MEMORY, pretend


@dataclass(frozen=True)
class Setting:
    """arithmetic: bytes held of (the UNet, the number of the adapters' parameters)."""

    name: str
    arithmetic: Callable[[nn.Module, int], float]
    precision: str = "fp32"
    choice: str = ""
    checkpointing: bool = False
    weights: str = "fp32"


def numbers(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def in_8_bits(model: nn.Module) -> float:
    """One byte a number of a linear layer, and a float32 scale an output; all else in float32."""
    linear = [part for part in model.modules() if isinstance(part, nn.Linear)]
    packed = sum(part.in_features * part.out_features for part in linear)
    return packed + 4 * sum(part.out_features for part in linear) + 4 * (numbers(model) - packed)


def one_block(model: nn.Module) -> float:
    """What is on the device when blocks are fetched: the parts outside of their lists, and the block that was needed
    last: on the way back, the first one with adapters.
    """
    blocks = [part for child in model.children() if isinstance(child, nn.ModuleList) for part in child]
    last = next(block for block in blocks if hasattr(block, "attentions"))
    return 4 * (numbers(model) - sum(map(numbers, blocks)) + numbers(last))


SETTINGS = [
    Setting("none", lambda model, count: 4 * numbers(model) + 12 * count),
    Setting("training.precision bf16", lambda model, count: 2 * numbers(model) + 12 * count, precision="bf16"),
    Setting("training.weights bf16", lambda model, count: 4 * numbers(model) + 10 * count, weights="bf16"),
    Setting("base ?quantise=8bit", lambda model, count: in_8_bits(model) + 12 * count, choice="quantise=8bit"),
    Setting("base ?offload=true", lambda model, count: one_block(model) + 12 * count, choice="offload=true"),
    Setting(
        "training.gradient_checkpointing", lambda model, count: 4 * numbers(model) + 12 * count, checkpointing=True
    ),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    given = parser.parse_args()
    print(f"starter, batch {given.batch}, rank {given.rank} on attention and feed-forward, AdamW; MB")
    print("| setting | held, by arithmetic | held, counted | peak of a step, counted |\n| --- | --- | --- | --- |")
    for setting in SETTINGS:
        with pretend():
            wanted, held, peak = measured(setting, given.batch, given.rank)
        print(f"| {setting.name} | {wanted / 1e6:.1f} | {held / 1e6:.1f} | {peak / 1e6:.1f} |", flush=True)
        gc.collect()


def measured(setting: Setting, batch: int, rank: int) -> tuple[float, int, int]:
    """(bytes by arithmetic, held between two steps, at the peak of the second)."""
    base = load_base("starter" + f"?{setting.choice}" * bool(setting.choice), False, setting.precision)
    base.offload_encoders()
    base.pipeline.image_encoder.to("cpu")
    gc.collect()
    adapter = attach(base.model, AdapterSpec(rank=rank, targets="attention+feed-forward"))
    if setting.weights == "bf16":
        to_bfloat16(adapter)
    base.checkpoint_gradients(setting.checkpointing)
    parameters = list(adapter.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    step(base, adapter, optimizer, batch)
    gc.collect()
    held = MEMORY.allocated
    devices.reset_peak_memory(base.device)
    step(base, adapter, optimizer, batch)
    found = setting.arithmetic(base.model, sum(p.numel() for p in parameters))
    return found, held, MEMORY.peak


def step(base: Family, adapter: Adapter, optimizer: torch.optim.Optimizer, batch: int) -> None:
    side = base.model.config.sample_size
    latents, noise = (torch.randn(batch, base.channels, side, side).to(base.device) for _ in range(2))
    words = {"states": torch.randn(batch, 77, base.model.config.cross_attention_dim).to(base.device)}
    t = torch.full((batch,), 500).to(base.device)
    adapter.train()
    loss_of(base, latents, words, noise, t).mean().backward()
    with in_float32(list(adapter.parameters())):
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


if __name__ == "__main__":
    main()
