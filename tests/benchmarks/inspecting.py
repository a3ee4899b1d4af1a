"""How long a dropped file, its row and `inspect` take on adapter files of 300 MB.

python -m tests.benchmarks.inspecting [--megabytes 300] [--folder DIR] [--detail]

Writes a LoRA, a LoKr, a DoRA and whole differences of SDXL's layers, and a LoRA with as many keys as are read. Prints
wall and CPU time of each, without Python's imports; the first row also reads the base's settings.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from studio.adapters import describe, read_adapter
from studio.adapters.architectures import unet
from studio.adapters.header import MAX_TENSORS
from studio.services import adapter_files, generation
from studio.services.adapters import inspect_adapter
from studio.workspace import Workspace

Tensors = dict[str, torch.Tensor]
SDXL = {path: shape for path, shape in unet(2048, (320, 640, 1280), (0, 2, 10), 2816).items() if len(shape) == 2}


def numbers(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.01, dtype=torch.float16)


def lora(path: str, shape: tuple[int, ...], rank: int) -> Tensors:
    name = f"lora_unet_{path.replace('.', '_')}"
    return {
        f"{name}.lora_down.weight": numbers(rank, shape[1]), f"{name}.lora_up.weight": numbers(shape[0], rank),
        f"{name}.alpha": torch.tensor(rank / 2),
    }  # fmt: skip


def dora(path: str, shape: tuple[int, ...], rank: int) -> Tensors:
    name = f"lora_unet_{path.replace('.', '_')}"
    return lora(path, shape, rank) | {f"{name}.dora_scale": numbers(shape[0], 1)}


def lokr(path: str, shape: tuple[int, ...], _: int) -> Tensors:
    name = f"lora_unet_{path.replace('.', '_')}"
    return {
        f"{name}.lokr_w1": numbers(4, 4), f"{name}.lokr_w2": numbers(shape[0] // 4, shape[1] // 4),
        f"{name}.alpha": torch.tensor(1.0),
    }  # fmt: skip


def whole(path: str, shape: tuple[int, ...], _: int) -> Tensors:
    return {f"lora_unet_{path.replace('.', '_')}.diff": numbers(*shape)}


def filled(make: Callable[..., Tensors], rank: int, size: int) -> Tensors:
    """Layer after layer of SDXL until the file is so large; again under other names where all were taken."""
    out: Tensors = {}
    total, turn = 0, 0
    while total < size and len(out) + 4 < MAX_TENSORS:
        for path, shape in SDXL.items():
            if total >= size or len(out) + 4 >= MAX_TENSORS:
                break
            tensors = make(path if not turn else f"more{turn}.{path}", shape, rank)
            total += sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
            out |= tensors
        turn += 1
    return out


def many_keys(size: int) -> Tensors:
    """As many keys as a file may have."""
    layers, side, out = MAX_TENSORS // 3, 320, Tensors()
    for n in range(layers):
        out |= lora(f"layer.{n}", (side, side), max(1, size // (4 * layers * side)))
    return out


def timed(work: Callable[[], object]) -> str:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return f"{time.perf_counter() - wall:6.2f} s wall, {time.process_time() - cpu:6.2f} s CPU"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=None, help="where the files are written (a temporary folder)")
    parser.add_argument("--detail", action="store_true", help="also singular values, of the LoRA and LoKr")
    chosen = parser.parse_args()
    size = chosen.megabytes * 10**6
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        space = Workspace.open(Path(folder))
        for name, make in {
            "LoRA": lambda: filled(lora, 64, size), "DoRA": lambda: filled(dora, 64, size),
            "LoKr": lambda: filled(lokr, 0, size), "whole differences": lambda: filled(whole, 0, size),
            "many keys": lambda: many_keys(size),
        }.items():  # fmt: skip
            file, tensors = Path(folder) / f"{name.replace(' ', '-')}.safetensors", make()
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
            print(f"{name}: {file.stat().st_size / 1e6:.0f} MB, {len(tensors):,} tensors", flush=True)
            del tensors
            key = f"file:{file.name}"
            works = {
                "drop": partial(adapter_files.add_adapter_file, space, file),
                "row": partial(generation.adapter_summary, space, key, "starter"),
                "inspect": partial(inspect_adapter, space, file, ""),
                "inspect on a base": partial(inspect_adapter, space, file, "starter"),
            }
            if chosen.detail and name in ("LoRA", "LoKr"):
                works["singular values"] = partial(describe, read_adapter(file), spectrum=True)
            for what, work in works.items():
                print(f"  {what:<20} {timed(work)}", flush=True)
            for copy in Path(folder).rglob(file.name):
                copy.unlink()


if __name__ == "__main__":
    main()
