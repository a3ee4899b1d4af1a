"""Where the milliseconds of a small training step go, beside what its arithmetic alone would take.

python -m tests.benchmarks.training_account [--batch 1] [--rounds 40]

The starter's UNet with one thread; processor time, so that other work on the machine disturbs little. All take turns.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from studio.adapters import Adapter, AdapterSpec, attach
from tests.benchmarks.training import RANK
from tests.benchmarks.training_parts import _stepper, _unet

TARGETS = "attention+feed-forward"
Act = Callable[[], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=40)
    given = parser.parse_args()
    torch.set_num_threads(1)
    base, batch = _unet("starter"), given.batch
    acts: dict[str, Act] = {
        "floor: the frozen model, and backward to its input": _stepper("floor", copy.deepcopy(base), batch, TARGETS),
        "backward to the first adapted layer only": late(copy.deepcopy(base), batch),
        "thin products of all layers, in a loop": products(copy.deepcopy(base), batch),
        "clip and AdamW over one flat tensor": flat_optimizer(copy.deepcopy(base)),
        "here, rank 1, without optimizer": adapted(copy.deepcopy(base), batch, 1),
        "here, without optimizer": adapted(copy.deepcopy(base), batch, RANK),
        "here": _stepper("ours", copy.deepcopy(base), batch, TARGETS),
        "peft": _stepper("peft", copy.deepcopy(base), batch, TARGETS),
    }
    spent: dict[str, list[float]] = {name: [] for name in acts}
    for number in range(given.rounds + 2):
        turned = number % len(acts)
        for name in [*acts, *acts][turned : turned + len(acts)]:
            began = time.process_time()
            acts[name]()
            if number >= 2:
                spent[name].append(time.process_time() - began)
    print(f"| batch {given.batch} | ms |\n| --- | --- |")
    for name, times in spent.items():
        print(f"| {name} | {1000 * statistics.median(times):.1f} |", flush=True)


def late(unet: UNet2DConditionModel, batch: int) -> Act:
    first = next(part for name, part in unet.named_modules() if name.endswith("attn1.to_q"))
    first.register_forward_hook(lambda layer, args, output: output.requires_grad_())
    return learning(unet, batch, [])


def adapted(unet: UNet2DConditionModel, batch: int, rank: int) -> Act:
    return learning(unet, batch, list(attached(unet, rank).parameters()))


def attached(unet: UNet2DConditionModel, rank: int = RANK) -> Adapter:
    return attach(unet, AdapterSpec(rank=rank, targets=TARGETS))


def learning(unet: UNet2DConditionModel, batch: int, parameters: list[nn.Parameter]) -> Act:
    """Forward, loss and backward."""
    side, channels = unet.config.sample_size, unet.config.in_channels
    noisy, target = (torch.randn(batch, channels, side, side) for _ in range(2))
    states, t = torch.randn(batch, 77, unet.config.cross_attention_dim), torch.full((batch,), 500)

    def act() -> None:
        F.mse_loss(unet(noisy, t, states).sample, target).backward()
        for parameter in parameters:
            parameter.grad = None

    return act


def products(unet: UNet2DConditionModel, batch: int) -> Act:
    """The six of each layer, for as many rows as it has, into memory that is there. B is zero: nothing grows."""
    rows: dict[nn.Module, int] = {}
    adapter = attached(unet)
    layers = [(layer, base) for _, layer, base in adapter.items()]
    hooks = [
        base.register_forward_hook(lambda base, args, output: rows.update({base: output[..., 0].numel()}))
        for _, base in layers
    ]
    learning(unet, batch, [])()
    for hook in hooks:
        hook.remove()
    work: list[tuple[Tensor, ...]] = []
    for layer, base in layers:
        A, B, count = layer.A.detach(), layer.B.detach(), rows[base]
        x, y, down = (torch.randn(count, width) for width in (A.shape[1], len(B), len(A)))
        work.append((A, B, x, y, down, torch.empty_like(down), torch.empty_like(A), torch.empty_like(B.T)))

    def act() -> None:
        for A, B, x, y, down, d_down, dA, dB in work:
            torch.mm(x, A.T, out=down)
            y.addmm_(down, B.T)
            torch.mm(y, B, out=d_down)
            torch.mm(down.T, y, out=dB)
            torch.mm(d_down.T, x, out=dA)
            x.addmm_(d_down, A)

    return act


def flat_optimizer(unet: UNet2DConditionModel) -> Act:
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in attached(unet).parameters()]))
    optimizer = torch.optim.AdamW([flat], 1e-3, fused=True)
    flat.grad = torch.full_like(flat, 1e-3)

    def act() -> None:
        nn.utils.clip_grad_norm_([flat], 1.0)
        optimizer.step()

    return act


if __name__ == "__main__":
    main()
