"""How fast adapters are, against peft, on a UNet of Stable Diffusion 1.5's shape with random weights.

python -m tests.benchmarks.adapter_speed [--device cuda --dtype bfloat16] [--side 32] [--rounds 3] [--small]

All contestants take turns in one process, and what is printed are ratios of medians, since machines are noisy.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import peft
import torch
from diffusers import UNet2DConditionModel

from studio import devices
from studio.adapters import Adapter, AdapterSpec, attach
from studio.adapters.layer_adapters import ATTRIBUTE
from studio.adapters.layers import restore_weight

RANK, NAMES = 16, ("one", "two", "three")
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]
SD15 = {
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": 8,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}
SMALL = SD15 | {"block_out_channels": (64, 64, 128, 128), "cross_attention_dim": 64}


class Bench:
    """The same network bare, with peft's adapters and with ours, and the same input for all."""

    def __init__(self, config: dict, device: str, dtype: torch.dtype, side: int):
        torch.manual_seed(0)
        self.device = device
        self.bare = UNet2DConditionModel(**config).to(device, dtype).eval().requires_grad_(False)
        draw = torch.Generator().manual_seed(0)
        self.x = torch.randn(1, 4, side, side, generator=draw).to(device, dtype)
        self.text = torch.randn(1, 77, config["cross_attention_dim"], generator=draw).to(device, dtype)

    def forward(self, unet: torch.nn.Module) -> torch.Tensor:
        return unet(self.x, 500, self.text).sample

    def peft(self, count: int) -> UNet2DConditionModel:
        unet = copy.deepcopy(self.bare)
        for name in NAMES[:count]:
            unet.add_adapter(peft.LoraConfig(r=RANK, lora_alpha=RANK, target_modules=TARGETS), name)
        _disturb(p for name, p in unet.named_parameters() if "lora_" in name)
        unet.set_adapters(list(NAMES[:count]), [1.0] * count)
        return unet

    def ours(self, count: int) -> tuple[UNet2DConditionModel, list[Adapter]]:
        unet = copy.deepcopy(self.bare)
        adapters = [attach(unet, AdapterSpec(rank=RANK, targets="attention")) for _ in range(count)]
        _disturb(p for adapter in adapters for p in adapter.parameters())
        return unet, adapters

    def wait(self) -> None:
        devices.synchronize(torch.device(self.device))

    def turns(self, contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
        """Median seconds of each, taking turns; one warm-up."""
        spent: dict[str, list[float]] = {name: [] for name in contestants}
        for number in range(rounds + 1):
            for name, act in contestants.items():
                self.wait()
                began = time.perf_counter()
                act()
                self.wait()
                if number:
                    spent[name].append(time.perf_counter() - began)
        return {name: statistics.median(times) for name, times in spent.items()}


def _disturb(parameters) -> None:
    with torch.no_grad():
        for parameter in parameters:
            parameter.normal_(std=0.02)


def standing_still(bench: Bench, count: int, rounds: int) -> dict[str, float]:
    unmerged, fused = bench.peft(count), bench.peft(count)
    fused.fuse_lora(adapter_names=list(NAMES[:count]))
    mine, adapters = bench.ours(count)
    for adapter in adapters:
        adapter.eval()
    with torch.inference_mode():
        return bench.turns(
            {
                "bare": lambda: bench.forward(bench.bare),
                "peft unmerged": lambda: bench.forward(unmerged),
                "peft fused": lambda: bench.forward(fused),
                "ours": lambda: bench.forward(mine),
            },
            rounds,
        )


def moving_one(bench: Bench, rounds: int) -> dict[str, float]:
    """One strength of three is moved. Ours is ready at once and merges inside the next forward: so both are timed."""
    theirs = bench.peft(3)
    theirs.fuse_lora(adapter_names=list(NAMES))
    mine, adapters = bench.ours(3)
    for adapter in adapters:
        adapter.eval()
    strengths = iter(range(10**6))

    def peft_moves() -> None:
        theirs.unfuse_lora()
        theirs.set_adapters(list(NAMES), [1.0, 1.0, next(strengths) % 7 / 7])
        theirs.fuse_lora(adapter_names=list(NAMES))

    def we_move() -> None:
        adapters[2].strength = next(strengths) % 7 / 7

    def we_move_and_merge() -> None:
        we_move()
        for layer in mine.modules():
            on_layer = layer.__dict__.get(ATTRIBUTE)
            if on_layer:
                on_layer._before(layer, ())
                restore_weight(layer)

    with torch.inference_mode():
        bench.forward(mine)
        return bench.turns({"peft": peft_moves, "ours": we_move, "ours, merged": we_move_and_merge}, rounds)


def training(bench: Bench, rounds: int) -> dict[str, float]:
    theirs, (mine, _) = bench.peft(1), bench.ours(1)
    x = bench.x.clone().requires_grad_()

    def step(unet: torch.nn.Module) -> None:
        unet(x, 500, bench.text).sample.float().square().mean().backward()

    return bench.turns(
        {"floor": lambda: step(bench.bare), "peft": lambda: step(theirs), "ours": lambda: step(mine)}, rounds
    )


def memory(bench: Bench) -> dict[str, float]:
    """Megabytes beyond the base with three adapters, at most: ours keeps a merged copy of each touched weight."""
    theirs, (mine, adapters) = bench.peft(3), bench.ours(3)
    for adapter in adapters:
        adapter.eval()
    with torch.inference_mode():
        bench.forward(mine)
    factors = sum(p.numel() * p.element_size() for adapter in adapters for p in adapter.parameters())
    cached = (vars(m)[ATTRIBUTE].cache.parameters for m in mine.modules() if ATTRIBUTE in vars(m))
    merged = sum(t.numel() * t.element_size() for parameters in cached for t in parameters.values())
    lora = sum(p.numel() * p.element_size() for name, p in theirs.named_parameters() if "lora_" in name)
    base = sum(p.numel() * p.element_size() for p in bench.bare.parameters())
    return {"bare": base / 1e6, "peft": lora / 1e6, "ours": (factors + merged) / 1e6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--side", type=int, default=32, help="of the latents")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="a tenth of the width, to try the benchmark itself")
    given = parser.parse_args()
    bench = Bench(SMALL if given.small else SD15, given.device, getattr(torch, given.dtype), given.side)
    for count in (1, 3):
        _table(f"one forward, {count} adapter{'s' * (count > 1)}", standing_still(bench, count, given.rounds), "bare")
    _table("one strength of three moves", moving_one(bench, max(3, given.rounds)), "peft")
    _table("training, forward and backward", training(bench, given.rounds), "floor")
    print("\nmemory beyond the base, three adapters (MB; bare: the base itself)")
    for name, value in memory(bench).items():
        print(f"  {name:14} {value:10.0f}")


def _table(title: str, seconds: dict[str, float], unit: str) -> None:
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:14} {value * 1000:10.2f} ms   {value / seconds[unit]:8.4f} of {unit}", flush=True)


if __name__ == "__main__":
    main()
