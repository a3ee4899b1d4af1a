"""One adapted layer: y = W x + s · delta(W) x, where only the tensors that delta is made of may train.

For LoRA (arXiv:2106.09685) delta is σ · B A: A (r × in) goes down to r directions, B (out × r) comes back up, and r is
small, so a layer of in · out numbers learns only r · (in + out). B starts at zero: a new adapter changes nothing.
On a convolution, A is a convolution of the base's own size, stride and padding with r outputs, and B is 1 × 1.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from studio.adapters import formulas
from studio.adapters.spec import AdapterSpec
from studio.adapters.update import Update
from studio.errors import AdapterError

Base = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
EXECUTION_DEVICE = "_execution_device"  # attribute of a layer whose weight is moved to that device for each call
_BUFFERS = ("on_input", "neumann", "A_start", "B_start")  # these never train


class Layer(nn.Module):
    """The tensors of one layer's update, float32 whatever the base's precision: small updates vanish in bfloat16.

    A run may keep its matrices in bfloat16 (see `training.rounding`); what is computed of them is in float32 then.
    """

    A: Tensor
    B: Tensor

    def __init__(self, update: Update, dropout: float = 0.0):
        super().__init__()
        self.kind, self.alpha, self.axis, self.sigma = update.kind, update.alpha, update.axis, update.sigma
        self.dropout = dropout
        self.layer_scale = 1.0  # factor on the adapter's strength, for this layer alone
        for name, tensor in update.parts.items():
            tensor = tensor.detach().to(torch.float32, copy=True)
            if name in _BUFFERS:
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor))
        self.is_low_rank = self.kind == "lora" and set(update.parts) == {"A", "B"}

    @property
    def parts(self) -> formulas.Parts:
        """{part: tensor}, live, in float32."""
        return {name: part.float() for name, part in (*self.named_parameters(), *self.named_buffers())}

    @property
    def update(self) -> Update:
        """A copy of the numbers on the CPU, in the normal form that files hold."""
        parts = {name: tensor.detach().cpu().clone() for name, tensor in self.parts.items()}
        if "A_start" in parts:  # B A − B₀ A₀ is a LoRA of twice the rank
            a, a_start, b, b_start = (parts[name] for name in ("A", "A_start", "B", "B_start"))
            return Update("lora", {"A": torch.cat([a, a_start]), "B": torch.cat([b, -b_start], 1)}, 2 * self.alpha)
        return Update(self.kind, parts, self.alpha, self.axis)

    @property
    def trains(self) -> bool:
        return any(p.requires_grad for p in self.parameters())

    def delta(self, W: Tensor) -> Tensor:
        """What is added to W (the base's weight, float32) at strength 1."""
        p = self.parts
        delta = formulas.KINDS[self.kind](W, p, self.sigma)
        if "A_start" in p:
            delta = delta - formulas.lora(W, {"A": p["A_start"], "B": p["B_start"]}, self.sigma)
        return formulas.dora(W, delta, p["magnitude"], self.axis) if "magnitude" in p else delta

    def bias_delta(self) -> Tensor | None:
        """What is added to the base's bias at strength 1."""
        p = self.parts
        if "bias" in p:
            return self.sigma * p["bias"]
        return p.get("diff_b", p.get("b_norm"))

    def add_to(self, output: Tensor, base: nn.Module, x: Tensor, strength: float) -> Tensor:
        """`output` of `base(x)` plus the update's own output, through which gradients flow."""
        if x.is_floating_point():  # an embedding's input is not
            if not torch.is_autocast_enabled(x.device.type):  # autocast chooses for itself
                x = x.to(torch.float32)
            x = F.dropout(x, self.dropout, self.training)
        if self.is_low_rank and output.dtype == x.dtype == self.A.dtype and output.is_contiguous():
            if isinstance(base, nn.Linear):
                return self._onto_linear(output, x, strength * self.sigma)
            if isinstance(base, CONVOLUTIONS) and output.ndim == weight_of(base).ndim:  # has a batch
                return self._onto_convolution(output, base, x, strength * self.sigma)
        if self.is_low_rank:
            added = self._low_rank(base, x, strength * self.sigma)
        else:
            bias = self.bias_delta()
            delta = self.delta(plain_weight(base))
            added = run(base, x, strength * delta, None if bias is None else strength * bias)
        return output + added.to(output.dtype)

    # One call in place of a product, a scaling and a sum.

    def _onto_linear(self, output: Tensor, x: Tensor, scale: float) -> Tensor:
        down = F.linear(x, self.A.flatten(1)).reshape(-1, len(self.A))  # (tokens, r)
        rows = output.reshape(-1, output.shape[-1])
        return torch.addmm(rows, down, self.B.flatten(1).T, alpha=scale).view_as(output)

    def _onto_convolution(self, output: Tensor, base: nn.Module, x: Tensor, scale: float) -> Tensor:
        down = run(base, x, self.A.reshape(-1, *weight_of(base).shape[1:]), None).flatten(2)  # (N, r, places)
        B = self.B.flatten(1).expand(len(down), -1, -1)
        return torch.baddbmm(output.flatten(2), B, down, alpha=scale).view_as(output)

    def _low_rank(self, base: nn.Module, x: Tensor, scale: float) -> Tensor:
        """scale · B (A x): two thin products in place of a full one."""
        A, B = self.A.float(), self.B.float()
        if isinstance(base, nn.Linear):
            return F.linear(F.linear(x, A.flatten(1)) * scale, B.flatten(1))
        if isinstance(base, nn.Embedding):
            return F.embedding(x, B) @ (A * scale)
        down = run(base, x, A.reshape(-1, *weight_of(base).shape[1:]), None)
        return run_1x1(base, down * scale, B)


Scaled = tuple[Layer, float]  # a layer, and the factor on its delta


def stacked(updates: Sequence[Scaled]) -> tuple[Tensor, Tensor]:
    """(A, B) in float32 whose product is the sum of these plain LoRAs, strengths included."""
    A = torch.cat([layer.A.flatten(1).float() for layer, _ in updates])
    return A, torch.cat([scale * layer.sigma * layer.B.flatten(1).float() for layer, scale in updates], 1)


def weight_of(base: nn.Module) -> nn.Parameter:
    """The base's own weight, also while it is overridden by a merged one."""
    weight = base._parameters["weight"]
    assert weight is not None  # `can_carry` has checked it
    return weight


def override_weight(base: nn.Module, parameters: dict[str, Tensor]) -> None:
    """Let `base` compute with these tensors until `restore_weight`.

    An entry of the instance's own dict is found before the parameter of that name and is no parameter itself:
    `state_dict()`, `parameters()` and training still see the base's own weight.
    """
    base.__dict__.update(parameters)


def restore_weight(base: nn.Module) -> None:
    """Let `base` compute with its own parameters again: bit for bit what they were."""
    base.__dict__.pop("weight", None)
    base.__dict__.pop("bias", None)


def is_quantised(base: nn.Module) -> bool:
    """Whether the weight is stored in fewer bits, in the form of torchao, bitsandbytes or another library."""
    weight = weight_of(base)
    return not weight.is_floating_point() or type(weight) not in (nn.Parameter, Tensor)


def device_of(base: nn.Module) -> torch.device:
    """The device on which the layer runs, wherever its weight is now."""
    return base.__dict__.get(EXECUTION_DEVICE) or weight_of(base).device


def shape_of(base: nn.Module) -> torch.Size:
    """The weight's shape; a quantised one may be packed otherwise."""
    if isinstance(base, nn.Linear):
        return torch.Size((base.out_features, base.in_features))
    return weight_of(base).shape


@torch.no_grad()
def plain_weight(base: nn.Module) -> Tensor:
    """The weight in float32. That of a quantised layer is its output for the identity matrix."""
    weight = weight_of(base)
    if not is_quantised(base) or not isinstance(base, nn.Linear):
        return weight.detach().to(device_of(base), torch.float32)
    exact = weight.dtype if weight.is_floating_point() else getattr(base, "compute_dtype", None) or torch.float32
    output = type(base).forward(base, torch.eye(base.in_features, device=weight.device, dtype=exact)).float()
    return (output if base.bias is None else output - base.bias.float()).T


def can_train(layer: nn.Module) -> TypeGuard[Base]:
    """Linear, embedding and ungrouped convolution layers.

    Not the `out_proj` of torch's MultiheadAttention: its weight is read without calling the layer, so an adapter there
    would silently do nothing.
    """
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False
    return isinstance(layer, (nn.Linear, nn.Embedding)) or (isinstance(layer, CONVOLUTIONS) and layer.groups == 1)


def can_carry(layer: nn.Module) -> bool:
    """Layers that a file may change: those that can be trained, and any other with a weight of its own, like norms."""
    if isinstance(layer, nn.modules.linear.NonDynamicallyQuantizableLinear):
        return False
    return isinstance(layer._parameters.get("weight"), nn.Parameter)


def run(base: nn.Module, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The output of `base` with this weight and bias. It is linear in both, so updates may be run apart and added."""
    match base:
        case nn.Linear():
            return F.linear(x, weight, bias)
        case nn.Conv1d() | nn.Conv2d() | nn.Conv3d():
            output: Tensor = base._conv_forward(x, weight, bias)  # its own stride, padding, dilation and padding mode
            return output
        case nn.Embedding():
            return F.embedding(x, weight)
        case nn.LayerNorm():
            return F.layer_norm(x, base.normalized_shape, weight, bias, base.eps)
        case nn.GroupNorm():
            return F.group_norm(x, base.num_groups, weight, bias, base.eps)
        case nn.RMSNorm():
            return F.rms_norm(x, base.normalized_shape, weight, base.eps)
    raise AdapterError(f"An adapter on a {type(base).__name__} can't be compiled or trained: call the model as it is.")


def run_1x1(base: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    """A convolution with a window of one, of as many axes as `base`."""
    convolve = {nn.Conv1d: F.conv1d, nn.Conv2d: F.conv2d, nn.Conv3d: F.conv3d}
    kind = next(k for k in convolve if isinstance(base, k))
    return convolve[kind](x, weight.reshape(*weight.shape[:2], *(1 for _ in weight_of(base).shape[2:])))


def init_layer(base: Base, path: str, spec: AdapterSpec) -> Layer:
    """A new layer for `base` that changes nothing yet. Random numbers come from the CPU: the same on any device."""
    rank, alpha = spec.rank_of(path), spec.alpha_of(path)
    start = {
        "lora": _lora,
        "dora": _lora,
        "tucker": _tucker,
        "loha": _loha,
        "lokr": _lokr,
        "oft": _oft,
        "oftv2": _oftv2,
    }[spec.kind]
    if spec.init == "pissa":
        parts = _pissa(plain_weight(base).cpu(), rank, alpha / (math.sqrt(rank) if spec.stabilised else rank))
    else:
        parts = start(shape_of(base), rank)
    if spec.kind == "dora":
        parts["magnitude"] = formulas.column_length(plain_weight(base).cpu(), "output").flatten()
    if spec.kind in ("oft", "oftv2"):
        alpha = 0.0  # the constraint on its turns: none
    kind = {"dora": "lora", "tucker": "lora"}.get(spec.kind, spec.kind)
    update = Update(kind, parts, alpha, "output" if spec.kind == "dora" else "")
    if spec.stabilised and update.rank:  # alpha / √r (arXiv:2312.03732), kept as the alpha that gives this scale
        update = replace(update, alpha=alpha * math.sqrt(update.rank))
    return Layer(update, spec.dropout).to(device_of(base))


def kaiming(*shape: int) -> Tensor:
    """As torch initializes a Linear."""
    return nn.init.kaiming_uniform_(torch.empty(shape), a=math.sqrt(5))


def _lora(shape: torch.Size, rank: int) -> formulas.Parts:
    out, *inputs = shape
    return {"A": kaiming(rank, *inputs), "B": torch.zeros(out, rank, *(1 for _ in inputs[1:]))}


def _tucker(shape: torch.Size, rank: int) -> formulas.Parts:
    """LoCon's three-part form for windows larger than one; plain LoRA elsewhere."""
    out, width, *window = shape
    if math.prod(window) == 1:
        return _lora(shape, rank)
    ones = [1 for _ in window]
    return {
        "A": kaiming(rank, width, *ones),
        "mid": kaiming(rank, rank, *window),
        "B": torch.zeros(out, rank, *ones),
    }


def _loha(shape: torch.Size, rank: int) -> formulas.Parts:
    """Small random factors and one zero one, as LyCORIS starts them."""
    out, width = shape[0], math.prod(shape[1:])
    return {
        "hada_w1_a": 0.1 * torch.randn(out, rank),
        "hada_w1_b": torch.randn(rank, width),
        "hada_w2_a": torch.zeros(out, rank),
        "hada_w2_b": 0.1 * torch.randn(rank, width),
    }


def _lokr(shape: torch.Size, rank: int) -> formulas.Parts:
    """w1 small and full; w2 a product where the rank makes that smaller, else full. One factor starts at zero."""
    out, width, *window = shape
    (small_out, large_out), (small_in, large_in) = _divide(out), _divide(width)
    parts = {"lokr_w1": kaiming(small_out, small_in)}
    if not is_whole_lokr(shape, rank):
        return parts | {"lokr_w2_a": torch.zeros(large_out, rank), "lokr_w2_b": kaiming(rank, large_in, *window)}
    return parts | {"lokr_w2": torch.zeros(large_out, large_in, *window)}


def _oft(shape: torch.Size, rank: int) -> formulas.Parts:
    """No turn yet. The blocks are as large as LyCORIS makes them for this rank: no more than there are blocks."""
    out = shape[0]
    block = next(n for n in range(min(rank, math.isqrt(out)), 0, -1) if out % n == 0)
    return {"oft_blocks": torch.zeros(out // block, block, block)}


def _oftv2(shape: torch.Size, rank: int) -> formulas.Parts:
    """No turn yet, of blocks of inputs as large as the rank, or as the next divisor of the inputs."""
    inputs = math.prod(shape[1:])
    sides = [n for n in range(2, inputs + 1) if inputs % n == 0]
    if not sides:
        raise AdapterError("OFT can't turn a layer of one input: choose fewer layers.")
    block = min(sides, key=lambda n: (abs(n - rank), n))
    return {"oft_R": torch.zeros(inputs // block, block * (block - 1) // 2), "neumann": torch.tensor(5.0)}


def is_whole_lokr(shape: torch.Size, rank: int) -> bool:
    """Whether a LoKr keeps both factors whole, as LyCORIS does: it has no rank then, and its alpha no effect."""
    return rank >= max(_divide(shape[0])[1], _divide(shape[1])[1]) / 2


def _divide(size: int) -> tuple[int, int]:
    """`size` as a product of two numbers as near to each other as can be, the smaller one first."""
    small = next(n for n in range(math.isqrt(size), 0, -1) if size % n == 0)
    return small, size // small


def _pissa(W: Tensor, rank: int, sigma: float) -> formulas.Parts:
    """The strongest directions of W itself (arXiv:2404.02948). W stays unchanged: the update is B A − B₀ A₀."""
    U, S, V = torch.linalg.svd(W.flatten(1), full_matrices=False)
    root = (S[:rank] / sigma).sqrt()
    if len(root) < rank:
        raise AdapterError(
            f"PiSSA needs a rank of at most {len(root)} on one of the layers (you gave {rank}): lower it, or "
            "choose fewer layers."
        )
    B, A = U[:, :rank] * root, root[:, None] * V[:rank]
    A, B = A.reshape(rank, *W.shape[1:]), B.reshape(len(B), rank, *(1 for _ in W.shape[2:]))
    return {"A": A, "B": B, "A_start": A.clone(), "B_start": B.clone()}
