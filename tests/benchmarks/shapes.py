"""Seconds a step and peak memory of training at the true shape of SD 1.5 and SDXL, beside diffusers with peft.

python -m tests.benchmarks.shapes [sd1|sdxl|starter]... [--precision bf16] [--side 512] [--batch 1] [--steps 2] [...]

The denoiser has random weights and the settings that come with this package; words and latents are random too, as if
read from the cache: the text encoders and the VAE are off the device. Each row runs in a process of its own.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import time

import diffusers
import torch

from studio import devices
from studio.adapters import AdapterSpec, attach
from studio.basemodels import family_class, load_base
from studio.basemodels.single_file import CONFIGS
from studio.training.objective import loss_of
from studio.training.run_resources import PeakMemory
from tests.basemodels import tiny

RANK = 16
CONDITIONS = {
    "sd1": {"states": (77, 768)},
    "sdxl": {"states": (77, 2048), "pooled": (1280,)},
    "starter": {"states": (77, 192)},  # small steps, where calls take longer than what they compute
}
# floor: the frozen model, forward and backward to its input. compiled: block by block, as training.compile does it.
VARIANTS = ("peft", "ours", "ours in 8 bits", "floor", "ours compiled", "ours in graphs")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kinds", nargs="*", metavar="sd1|sdxl|starter", default=["sd1", "sdxl"])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--side", type=int, default=512, help="of the image, in pixels")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="that are timed, behind one that is not")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS[:2])
    parser.add_argument("--row", help=argparse.SUPPRESS)  # the one that this process is to measure
    given = parser.parse_args()
    if given.row:
        kind, variant = given.row.split("/")
        print(json.dumps(measure(kind, variant, given)))
        return
    more = ", checkpointing" if given.checkpointing else ""
    print(
        f"{devices.best_device()}, {given.precision}, {given.side} pixels, batch {given.batch}, "
        f"rank {RANK} on attention{more}"
    )
    print(f"{'':6}{'':16}{'s a step':>10}{'peak GB':>9}{'weights GB':>12}")
    for kind in given.kinds:
        for variant in given.variants:
            command = [sys.executable, "-m", "tests.benchmarks.shapes", *sys.argv[1:], "--row", f"{kind}/{variant}"]
            done = subprocess.run(command, capture_output=True, text=True, env=os.environ)
            if done.returncode:
                print(f"{kind:6}{variant:16}{done.stderr.splitlines()[-1] if done.stderr else 'killed'}")
                continue
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{kind:6}{variant:16}{found['seconds']:10.3f}{found['peak']:9.2f}{found['weights']:12.2f}", flush=True
            )


def measure(kind: str, variant: str, given: argparse.Namespace) -> dict[str, float]:
    base = shaped(kind, given.precision)
    if variant.endswith("8 bits"):
        from torchao.quantization import Int8WeightOnlyConfig, quantize_

        from studio.basemodels.quantising import in_one_precision

        quantize_(base.model, Int8WeightOnlyConfig())
        in_one_precision(base.model, base.dtype)
    if variant == "peft":
        from peft import LoraConfig

        base.model.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
        parameters = [p for p in base.model.parameters() if p.requires_grad]
        for p in parameters:
            p.data = p.data.float()
    elif variant == "floor":
        base.model.requires_grad_(False)
        parameters = []
    else:
        adapter = attach(base.model, AdapterSpec(rank=RANK, targets="attention"))
        parameters = list(adapter.parameters())
    if given.checkpointing:
        base.checkpoint_gradients()
    if variant == "ours compiled":
        base.compile()
    elif variant == "ours in graphs":  # of CUDA: a block's kernels are launched as one
        in_graphs(base.model)
    base.model.train()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4) if parameters else None
    rows = {name: torch.randn(given.batch, *shape, device=base.device) for name, shape in CONDITIONS[kind].items()}
    side = base.model.config.sample_size if kind == "starter" else given.side // 8
    latents = torch.randn(given.batch, base.channels, side, side, device=base.device)
    latents.requires_grad_(variant == "floor")
    gc.collect()
    weights = sum(map(_bytes, base.model.parameters())) / 1e9
    with PeakMemory(base.device) as peak:
        for step in range(given.steps + 1):
            if step == 1:
                began = _now(base.device)
            torch.compiler.cudagraph_mark_step_begin()
            t = torch.randint(0, 1000, (given.batch,), device=base.device)
            loss_of(base, latents, rows, torch.randn_like(latents), t).mean().backward()
            latents.grad = None
            if optimizer is not None:
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    seconds = (_now(base.device) - began) / given.steps
    return {"seconds": seconds, "peak": peak.gigabytes, "weights": weights}


def in_graphs(model: torch.nn.Module) -> None:
    for part in model.children():
        for block in part if isinstance(part, torch.nn.ModuleList) else ():
            block.compile(mode="reduce-overhead", dynamic=False)


def shaped(kind: str, precision: str):
    """The family with a random denoiser of its true shape, and tiny parts beside it."""
    if kind == "starter":
        return load_base("starter", False, precision)
    family = family_class(CONFIGS / kind)

    class Random(family):
        def _opened(self, place, dtypes):
            config = json.loads((place / "unet" / "config.json").read_text())
            default = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype)
            unet = diffusers.UNet2DConditionModel.from_config(config)
            torch.set_default_dtype(default)
            parts = tiny.sd().components if kind == "sd1" else tiny.sdxl().components
            more = {"requires_safety_checker": False} if kind == "sd1" else {}
            return getattr(diffusers, self.pipeline_class)(**parts | {"unet": unet}, **more)

    return Random(CONFIGS / kind, precision)


def _bytes(weight: torch.Tensor) -> int:
    """What it takes; one in fewer bits is made of other tensors."""
    parts = getattr(weight, "__tensor_flatten__", None)
    if parts is None:
        return weight.numel() * weight.element_size()
    return sum(_bytes(getattr(weight, name)) for name in parts()[0])


def _now(device: torch.device) -> float:
    devices.synchronize(device)
    return time.monotonic()


if __name__ == "__main__":
    main()
