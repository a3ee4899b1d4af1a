"""Adapter weights in bfloat16, rounded at random so that small updates are not lost (arXiv:2010.06192).

Rounded to the nearest, an update below half a step of bfloat16, 0.2 % of the weight, changes nothing, however often it
comes. Rounded up with the probability of what lies above the lower neighbour, it comes through on average.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from studio.adapters import Adapter


def round_stochastically(values: Tensor, draw: torch.Generator | None = None) -> Tensor:
    """float32 values in bfloat16, up or down so that the mean is the value itself; exact ones, NaN and inf stay.

    bfloat16 is the upper half of float32's bits: a random lower half is added and what is left of it cut off.
    """
    device = draw.device if draw else values.device
    noise = torch.randint(1 << 16, values.shape, generator=draw, device=device, dtype=torch.int32).to(values.device)
    rounded = ((values.contiguous().view(torch.int32) + noise) & -(1 << 16)).view(torch.float32)
    return torch.where(values.isfinite(), rounded, values).to(torch.bfloat16)


def to_bfloat16(adapter: Adapter) -> int:
    """Keep the adapter's matrices in bfloat16; returns how many bytes that saves, gradients included.

    Lengths, such as DoRA's, stay in float32: they are few, and as far from zero as the base's weights. What is
    subtracted at PiSSA's start is rounded alike.
    """
    saved = 0
    for _, layer, _ in adapter.items():
        for name, parameter in layer.named_parameters():
            if parameter.ndim > 1:
                parameter.data = parameter.data.to(torch.bfloat16)
                saved += 2 * 2 * parameter.numel()  # the weight and its gradient
                start = layer._buffers.get(f"{name}_start")
                if start is not None:
                    start.copy_(parameter.data)
    return saved


@contextmanager
def in_float32(parameters: Sequence[nn.Parameter], draw: torch.Generator | None = None) -> Iterator[None]:
    """Within, the parameters in bfloat16 are float32, gradients too: for any optimizer's step, whose state is then
    float32 as well. Afterwards they are rounded, and their gradients are gone.
    """
    kept = [(parameter, parameter.data) for parameter in parameters if parameter.dtype == torch.bfloat16]
    for parameter, values in kept:
        gradient, parameter.grad = parameter.grad, None
        parameter.data = values.float()
        parameter.grad = None if gradient is None else gradient.float()
    try:
        yield
    finally:
        for parameter, values in kept:
            stepped, parameter.grad = parameter.data, None
            parameter.data = values
            with torch.no_grad():
                parameter.copy_(round_stochastically(stepped, draw))  # into the same memory, and counted as a write
