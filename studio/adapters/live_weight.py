"""W + s · B A as the weight of a linear layer, never written out: what training multiplies with.

One step on autograd's tape for the whole layer. Apart, base and update take seven, and the calls around thin products
cost more than the products themselves. Several updates are one: their A below each other, their B side by side.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.adapters.layers import Scaled, restore_weight, stacked, weight_of


class LiveWeight:
    """Stands in for the weight of `base` during one call: torch hands `F.linear` with it to `__torch_function__`."""

    def __init__(self, base: nn.Linear, A: Tensor, B: Tensor, scale: float):
        self.base, self.W, self.A, self.B, self.scale = base, base.weight, A, B, scale

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Tensor:
        x, weight, bias = args  # of `F.linear`: the forward of nn.Linear does nothing else
        restore_weight(weight.base)  # now, since checkpointing leaves a call halfway
        product: Callable[..., Tensor] = _Product.apply
        return product(x, weight.A, weight.B, weight.W, bias, weight.scale)


def act(base: nn.Module, live: Sequence[Scaled], x: Tensor) -> bool:
    """Let `base` compute with these updates in its next call; False where only `Layer.add_to` can do that."""
    if type(base) is not nn.Linear or not all(layer.is_low_rank for layer, _ in live):
        return False
    if torch.is_grad_enabled():  # what trains keeps its own precision
        precisions = {x.dtype, weight_of(base).dtype, *(layer.A.dtype for layer, _ in live)}
        if len(precisions) > 1 or torch.is_autocast_enabled(x.device.type):
            return False
        if any(layer.dropout and layer.training for layer, _ in live):
            return False
    if len(live) == 1:
        layer, scale = live[0]
        A, B, scale = layer.A.flatten(1), layer.B.flatten(1), scale * layer.sigma
    else:
        A, B, scale = *stacked(live), 1.0
    if not torch.is_grad_enabled():
        autocast = torch.is_autocast_enabled(x.device.type)
        precision = torch.get_autocast_dtype(x.device.type) if autocast else weight_of(base).dtype
        A, B = A.to(precision), B.to(precision)
    base.__dict__["weight"] = LiveWeight(base, A, B, scale)
    return True


class _Product(torch.autograd.Function):
    """y = W x + b + scale · B A x, where W and b are frozen."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, A: Tensor, B: Tensor, W: Tensor, bias: Tensor | None, scale: float) -> Tensor:
        rows = x.reshape(-1, x.shape[-1]).to(W.dtype)
        down = rows @ A.T
        y = F.linear(rows, W, bias).addmm_(down, B.T, alpha=scale)
        ctx.save_for_backward(rows, down, A, B, W)
        ctx.scale, ctx.shape = scale, x.shape
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        rows, down, A, B, W = ctx.saved_tensors
        dy = dy.reshape(-1, dy.shape[-1])
        d_down = dy @ B
        dB = (down.T @ dy).T  # twice as quick as dyᵀ down
        if ctx.scale != 1:
            d_down, dB = d_down * ctx.scale, dB * ctx.scale
        dx = (dy @ W).addmm_(d_down, A).view(ctx.shape) if ctx.needs_input_grad[0] else None
        return dx, d_down.T @ rows, dB, None, None, None
