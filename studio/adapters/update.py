"""One layer's update in normal form: plain tensors, whatever program wrote them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from studio.adapters.formulas import KINDS, block_side, glora_is_old
from studio.errors import AdapterError

LARGEST = 2**28  # numbers in a product that must be written out to be cut: 1 GB in float32
_BIASES = ("bias", "diff_b", "b_norm")  # one number an output each
_MULTIPLY = ("oft", "boft", "ia3", "oftv2")  # these know only their layer's output or input size

NEUMANN_TERMS = 5  # of PEFT's OFT where its configuration says nothing


@dataclass(frozen=True)
class Update:
    """kind      a key of `formulas.KINDS`
    parts     {part: tensor}, float32, named as LyCORIS names them, but LoRA's are "A" and "B"; `magnitude` makes a DoRA
    alpha     the update is scaled by alpha / rank; for oft and boft, the constraint
    axis      what a DoRA's magnitude runs along: "output", "input", or "" where the file leaves it to the shape
    """

    kind: str
    parts: Mapping[str, Tensor]
    alpha: float
    axis: str = ""

    @property
    def rank(self) -> int:
        """Directions of the low-rank product; 0 for kinds that have none."""
        p = self.parts
        match self.kind:
            case "lora":
                return p["A"].shape[0]
            case "loha":
                return p["hada_w1_b"].shape[0]
            case "lokr":
                inner = p.get("lokr_w1_b", p.get("lokr_w2_b"))
                return 0 if inner is None else inner.shape[0]
            case "glora":
                return p["a1"].shape[0 if glora_is_old(dict(p)) else 1]
        return 0

    @property
    def sigma(self) -> float:
        """The scale of `formulas`: alpha / rank, 1 where there is no rank, and OFT's constraint."""
        if self.kind in ("oft", "boft"):
            return self.alpha * self._turned_size
        return self.alpha / self.rank if self.rank else 1.0

    @property
    def uses_alpha(self) -> bool:
        """Whether `alpha` changes what it does: where there is a rank to divide it by, and as OFT's constraint."""
        return self.rank > 0 or self.kind in ("oft", "boft")

    @property
    def label(self) -> str:
        """The kind as people call it."""
        if "magnitude" in self.parts:
            return {"lora": "DoRA", "loha": "DoHa", "lokr": "DoKr"}.get(self.kind, "difference with lengths")
        if "mid" in self.parts:
            return "LoCon (Tucker)"
        names = {"lora": "LoRA", "loha": "LoHa", "lokr": "LoKr", "full": "full difference", "norm": "norm"}
        return (
            names.get(self.kind)
            or {"glora": "GLoRA", "ia3": "IA3", "oft": "OFT", "boft": "BOFT", "oftv2": "OFT (PEFT)"}[self.kind]
        )

    @property
    def _turned_size(self) -> int:
        blocks = self.parts["oft_blocks"]
        return blocks.shape[-3] * blocks.shape[-1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the weight it was made for, by arithmetic alone; () where only one side is known.

        Raises AdapterError when its tensors contradict each other.
        """
        p = self.parts
        match self.kind:
            case "lora":
                shape = _product(p["B"], p["A"], p.get("mid"))
            case "loha":
                pairs = [(p[f"hada_w{n}_a"], p[f"hada_w{n}_b"], p.get(f"hada_t{n}")) for n in "12"]
                shape, other = (_product(a if t is None else a.T, b, t) for a, b, t in pairs)
                _same(shape == other, "its two products have different sizes")
            case "lokr":
                w1, w2 = self._kron_shape("1"), self._kron_shape("2")
                shape = (w1[0] * w2[0], w1[1] * w2[1], *w2[2:])
            case "full":
                shape = tuple(p["diff"].shape) if "diff" in p else ()
            case "norm":
                shape = tuple(p["w_norm"].shape)
            case "glora":
                up, down = ("b2", "b1") if glora_is_old(dict(p)) else ("b1", "b2")
                shape = _product(p[up], p[down], None)
            case _:
                shape = ()
        return shape

    def _kron_shape(self, n: str) -> tuple[int, ...]:
        p = self.parts
        if f"lokr_w{n}" in p:
            return tuple(p[f"lokr_w{n}"].shape)
        core = p.get(f"lokr_t{n}")
        a = p[f"lokr_w{n}_a"]
        return _product(a if core is None else a.T, p[f"lokr_w{n}_b"], core)

    def slice_rows(self, rows: tuple[int, int] | None, shape: Sequence[int]) -> "Update":
        """The part of the update for some output rows, of a file that keeps several layers as one (FLUX's qkv).

        shape: of the layer's weight. Raises AdapterError for kinds that can't be cut.
        """
        if rows is None:
            return self
        if tuple(self.shape[1:2]) != tuple(shape[1:2]) or not 0 <= rows[0] < rows[1] <= self.shape[0]:
            raise AdapterError(f"its size is {'×'.join(map(str, self.shape))}, not that of the layers it is made of")
        cut = slice(*rows)
        p = dict(self.parts)
        if "magnitude" in p and (self.axis == "input" or p["magnitude"].numel() != self.shape[0]):
            raise AdapterError("the lengths along its inputs are of several layers as one, which can't be taken apart")
        if self.kind == "lora" and "mid" not in p:
            p["B"] = p["B"][cut]
        elif self.kind == "full" and "diff" in p:
            p["diff"] = p["diff"][cut]
        elif self.kind == "lokr" and math.prod(self.shape) <= LARGEST:
            full = KINDS["lokr"](torch.empty(self.shape), p, self.sigma)
            beside = {part: tensor for part, tensor in p.items() if part in ("magnitude", "diff_b")}
            return replace(self, kind="full", parts={**beside, "diff": full[cut]})._per_output(cut)
        else:
            raise AdapterError(f"{self.label} of several layers as one can't be taken apart")
        return replace(self, parts=p)._per_output(cut)

    def _per_output(self, cut: slice) -> "Update":
        """The same cut of what has one number an output."""
        p = dict(self.parts)
        for part in ("magnitude", "diff_b", "bias"):
            if part in p:
                p[part] = p[part].flatten()[cut]
        return replace(self, parts=p)

    def fitted(self, shape: Sequence[int]) -> "Update":
        """This update, reshaped where programs differ in how they write a 1 × 1 window. Nothing is multiplied yet.

        Raises AdapterError, saying both sizes, when it was made for a layer of another size.
        """
        biases = {part: self.parts[part] for part in _BIASES if part in self.parts}
        for bias in biases.values():
            if bias.numel() != shape[0]:
                raise AdapterError(f"its bias has {bias.numel()} numbers, the layer {shape[0]} outputs")
        if any(bias.dim() > 1 for bias in biases.values()):
            flat = {part: bias.flatten() for part, bias in biases.items()}
            return replace(self, parts={**self.parts, **flat}).fitted(shape)
        if self.kind == "oftv2":
            blocks, side = len(self.parts["oft_R"]), block_side(self.parts["oft_R"].shape[1])
            inputs = math.prod(shape[1:])
            if inputs % side if blocks == 1 else blocks * side != inputs:
                raise AdapterError(f"it turns {blocks * side} inputs, the base model's layer has {inputs}")
            return self
        if self.kind in _MULTIPLY:
            size = self._turned_size if self.kind != "ia3" else self.parts["ia3"].numel()
            side = 1 if self.kind == "ia3" and self.parts["on_input"].item() else 0
            if size != shape[side]:
                raise AdapterError(f"its size is {size}, the base model's {shape[side]}")
            return self
        if self.shape and _trimmed(self.shape) != _trimmed(shape):
            sizes = ["×".join(map(str, _trimmed(size))) for size in (self.shape, shape)]
            # A full difference or a product of one big window may come flattened: the same numbers in one row.
            if math.prod(self.shape) != math.prod(shape) or self.shape[0] != shape[0]:
                raise AdapterError(f"its size is {sizes[0]}, the base model's {sizes[1]}")
        if "magnitude" not in self.parts:
            return self
        length, axis = self.parts["magnitude"].numel(), self.axis
        fits = [name for name, size in zip(("output", "input"), shape) if size == length]
        if not fits:
            raise AdapterError(f"its magnitude has {length} numbers, the layer {shape[0]} outputs")
        return self if axis in fits else replace(self, axis=fits[0])


def update_of(parts: Mapping[str, Tensor]) -> Update:
    """The update that a file's parts of one layer make, its alpha being its rank where none is among them.

    Raises ValueError when parts are missing or contradict each other, AdapterError for kinds that are not read.
    """
    p = dict(parts)
    alpha = p.pop("alpha", None)
    if alpha is not None and alpha.numel() != 1:
        raise ValueError("has an alpha that is not one number")
    if not p:
        raise AdapterError("an alpha without a layer")
    axis = ""
    if "dora_scale" in p:  # (out, 1, …) or (1, in, …); a flat one leaves it to the layer's size
        scale = p.pop("dora_scale")
        axis = "" if scale.ndim < 2 else "output" if scale.shape[0] == scale.numel() else "input"
        p["magnitude"] = scale.flatten()
    elif "magnitude" in p:
        p["magnitude"], axis = p["magnitude"].flatten(), "output"
    kind = _kind_of(p)
    if kind is None:
        raise AdapterError(f"a kind of adapter that is not supported ({', '.join(sorted(p))})")
    if kind == "oftv2":
        p.setdefault("neumann", torch.tensor(float(NEUMANN_TERMS)))
        if p.get("oft_R", torch.empty(0)).ndim != 2 or not block_side(p["oft_R"].shape[1]) or p["neumann"].numel() != 1:
            raise ValueError("has blocks that are no turns")
    if kind == "ia3" and "on_input" not in p:
        raise AdapterError("not an adapter's key")
    missing = [part for part in _needed(kind, p) if part not in p]
    if missing:
        raise ValueError("has only half of its pair" if kind == "lora" else f"lacks its {missing[0]}")
    extra = set(p) - set(_NEEDED[kind]) - _ALLOWED[kind]
    if extra:
        raise AdapterError(f"{kind} with {', '.join(sorted(extra))} is not supported")
    update = Update(kind, p, 1.0, axis)
    try:
        update.shape  # noqa: B018 - raises on contradictions
    except (AdapterError, IndexError) as error:
        raise ValueError(str(error) if isinstance(error, AdapterError) else "has a tensor with too few axes") from error
    fallback = 0.0 if kind in ("oft", "boft") else float(update.rank or 1)
    return replace(update, alpha=fallback if alpha is None else float(alpha))


def _needed(kind: str, p: Mapping[str, Tensor]) -> tuple[str, ...]:
    if kind != "lokr":
        return _NEEDED[kind]
    halves = ((name,) if name in p else (f"{name}_a", f"{name}_b") for name in ("lokr_w1", "lokr_w2"))
    return tuple(part for half in halves for part in half)


def _kind_of(p: Mapping[str, Tensor]) -> str | None:
    for mark, kind in _MARKS.items():
        if mark in p:
            return "boft" if kind == "oft" and p[mark].ndim == 4 else kind
    return None


_MARKS = {
    "A": "lora",
    "B": "lora",
    "hada_w1_a": "loha",
    "lokr_w1": "lokr",
    "lokr_w1_a": "lokr",
    "oft_blocks": "oft",
    "oft_R": "oftv2",
    "lokr_w2": "lokr",
    "lokr_w2_a": "lokr",
    "hada_w2_a": "loha",
    "a1": "glora",
    "ia3": "ia3",
    "w_norm": "norm",
    "diff": "full",
    "diff_b": "full",
}
_NEEDED: dict[str, tuple[str, ...]] = {
    "lora": ("A", "B"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "lokr": (),
    "full": (),
    "norm": ("w_norm",),
    "glora": ("a1", "a2", "b1", "b2"),
    "ia3": ("ia3", "on_input"),
    "oft": ("oft_blocks",),
    "boft": ("oft_blocks",),
    "oftv2": ("oft_R", "neumann"),
}
_LOKR = {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"}
_ALLOWED: dict[str, set[str]] = {
    "lora": {"mid", "bias", "diff_b", "magnitude"},
    "loha": {"hada_t1", "hada_t2", "diff_b", "magnitude"},
    "lokr": _LOKR | {"diff_b", "magnitude"},
    "full": {"diff", "diff_b", "magnitude"},
    "norm": {"b_norm"},
    "glora": set(),
    "ia3": set(),
    "oft": {"rescale"},
    "boft": {"rescale"},
    "oftv2": set(),
}


def _product(up: Tensor, down: Tensor, core: Tensor | None) -> tuple[int, ...]:
    """The shape of up · core · down. up (out, r, …ones), down (r, in, …)."""
    ranks = (up.shape[1], down.shape[0]) if core is None else (*core.shape[:2], up.shape[1], down.shape[0])
    _same(len(set(ranks)) == 1, f"it has rank {down.shape[0]} on one side and {up.shape[1]} on the other")
    _same(all(n == 1 for n in up.shape[2:]), "its second half has a window")
    return (up.shape[0], *down.shape[1:]) if core is None else (up.shape[0], down.shape[1], *core.shape[2:])


def _same(agrees: bool, otherwise: str) -> None:
    if not agrees:
        raise AdapterError(otherwise)


def _trimmed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape without the axes of a 1 × 1 window."""
    return tuple(shape[:2]) if all(size == 1 for size in shape[2:]) else tuple(shape)
