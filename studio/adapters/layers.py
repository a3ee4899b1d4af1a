"""The mathematics of one adapted layer: y = W x + s · (alpha / r) · B (A x)  (LoRA, arXiv:2106.09685).

W is the base's weight and never changes. A (r × in) goes down to r directions, B (out × r) comes back up, and r is
small, so a layer of in · out numbers learns only r · (in + out). B starts at zero: a fresh adapter changes nothing.

On a convolution, A is a convolution of the base's own size, stride and padding with r outputs, and B is 1 × 1.
"""

import math
from dataclasses import dataclass
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.errors import AdapterError

Base = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Factors:
    """One layer's update as plain numbers. Linear: A (r, in), B (out, r). Conv: A (r, in, kh, kw), B (out, r, 1, 1)."""

    A: Tensor
    B: Tensor
    alpha: float

    @property
    def rank(self) -> int:
        return self.A.shape[0]


class LoraLayer(nn.Module):
    """A and B of one layer, float32 whatever the base's precision, because small updates vanish in bfloat16."""

    def __init__(self, factors: Factors, dropout: float = 0.0):
        super().__init__()
        self.A = nn.Parameter(factors.A.to(torch.float32, copy=True))
        self.B = nn.Parameter(factors.B.to(torch.float32, copy=True))
        self.alpha = factors.alpha
        self.dropout = dropout

    @classmethod
    def fresh(cls, base: Base, rank: int, alpha: float, dropout: float = 0.0) -> "LoraLayer":
        """A new layer for `base`: A as torch initialises a Linear, B zero. Drawn on the CPU: the same on any device."""
        a_shape, b_shape = factor_shapes(base, rank)
        A = nn.init.kaiming_uniform_(torch.empty(a_shape), a=math.sqrt(5))
        return cls(Factors(A, torch.zeros(b_shape), alpha), dropout).to(base.weight.device)

    @property
    def factors(self) -> Factors:
        """A copy of the numbers on the CPU."""
        return Factors(self.A.detach().cpu().clone(), self.B.detach().cpu().clone(), self.alpha)

    def forward(self, base: Base, x: Tensor, strength: float) -> Tensor:
        """What to add to `base(x)`: strength · alpha / r · B(A(x)), of the output's shape."""
        if not torch.is_autocast_enabled(x.device.type):  # autocast chooses the precision itself
            x = x.to(self.A.dtype)
        x = F.dropout(x, self.dropout, self.training)
        scale = strength * self.alpha / self.A.shape[0]
        if isinstance(base, nn.Linear):
            return F.linear(F.linear(x, self.A) * scale, self.B)
        down = base._conv_forward(x, self.A, None)  # the base's own stride, padding, dilation and padding mode
        return F.conv2d(down * scale, self.B)


KINDS = {"lora": LoraLayer}


def can_adapt(layer: nn.Module) -> TypeGuard[Base]:
    """Linear and ungrouped Conv2d layers.

    Not the `out_proj` of torch's MultiheadAttention: its weight is read without calling the layer, so an adapter there
    would silently do nothing.
    """
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def factor_shapes(base: Base, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The shapes of A and B on `base`, a layer that `can_adapt` accepts."""
    out, *inputs = base.weight.shape
    return (rank, *inputs), (out, rank, *(1 for _ in inputs[1:]))


def fit(factors: Factors, base: Base) -> Factors:
    """`factors` in the shapes that `base` needs: programs differ in writing 1 × 1 convolutions with two or four axes.

    Raises AdapterError, saying both sizes, when they can't be the same layer's.
    """
    a_shape, b_shape = factor_shapes(base, factors.rank)
    if _trimmed(factors.A.shape) != _trimmed(a_shape) or _trimmed(factors.B.shape) != _trimmed(b_shape):
        ours = "×".join(map(str, _trimmed((factors.B.shape[0], *factors.A.shape[1:]))))
        base_size = "×".join(map(str, _trimmed(base.weight.shape)))
        raise AdapterError(f"its size is {ours}, the base model's {base_size}")
    return Factors(factors.A.reshape(a_shape), factors.B.reshape(b_shape), factors.alpha)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the axes of a 1 × 1 window."""
    return tuple(shape[:2]) if all(size == 1 for size in shape[2:]) else tuple(shape)
