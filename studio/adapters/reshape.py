"""Adapters at a smaller rank, and several as one; the error is measured."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from studio.adapters.formulas import KINDS
from studio.adapters.spec import MAX_RANK
from studio.adapters.update import LARGEST, Update
from studio.errors import AdapterError

_BIASES = {"bias", "diff_b"}
Layers = Mapping[tuple[str, str], Update]


def resize(layers: Layers, rank: int) -> tuple[dict[tuple[str, str], Update], float]:
    """Every layer as a plain LoRA of at most this rank, the best there is (Eckart–Young), and the error made.

    The error is ‖delta − new delta‖ / ‖delta‖ over all layers together. Raises AdapterError for kinds that are nothing
    without their base's weights (DoRA, OFT, GLoRA, IA3), and for norms, which have no rank.
    """
    _check_rank(rank)
    out, lost, total = {}, 0.0, 0.0
    for place, update in layers.items():
        out[place], missing, energy = _cut(factors(update), update, rank)
        lost, total = lost + missing, total + energy
    return with_one_alpha(out), (lost / total) ** 0.5 if total else 0.0


def merge(
    weighted: Sequence[tuple[Layers, float]], rank: int | None = None
) -> tuple[dict[tuple[str, str], Update], float]:
    """One adapter that at strength 1 does what these do together at their strengths, and the error made.

    Without a rank it is exact: the ranks are put side by side. With one, the sum is cut to that rank as by `resize`.
    Raises AdapterError as `resize` does, where two were made for layers of different sizes, and where weights overflow.
    """
    if rank is not None:
        _check_rank(rank)
    out, lost, total = {}, 0.0, 0.0
    for place in dict.fromkeys(place for layers, _ in weighted for place in layers):
        parts = [(layers[place], strength) for layers, strength in weighted if place in layers]
        like = max((update for update, _ in parts), key=lambda update: len(update.shape))  # LoHa writes windows flat
        if len({_matrix_shape(update) for update, _ in parts}) > 1:
            raise AdapterError(f"{place[1]} has different sizes in the two: they were made for different base models.")
        pairs = [factors(update) for update, _ in parts]
        B = torch.cat([strength * b for (b, _), (_, strength) in zip(pairs, parts)], 1)
        A = torch.cat([a for _, a in pairs])
        if not B.isfinite().all():
            raise AdapterError("At these strengths the merged weights overflow: choose smaller ones.")
        if rank is None:
            out[place] = _lora(B, A, like)
        else:
            out[place], missing, energy = _cut((B, A), like, rank)
            lost, total = lost + missing, total + energy
    return with_one_alpha(out), (lost / total) ** 0.5 if total else 0.0


def with_one_alpha(layers: Layers) -> dict[tuple[str, str], Update]:
    """Plain LoRAs that do the same with one alpha for all, the largest rank.

    Where alphas differ between layers, diffusers (0.42) drops those of a file in kohya's layout.
    """
    alpha = float(max((update.rank for update in layers.values()), default=1))

    def at(update: Update) -> Update:
        B = update.parts["B"] * (update.alpha / alpha)
        return replace(update, parts={**update.parts, "B": B}, alpha=alpha)

    return {place: at(update) for place, update in layers.items()}


def singular_values(update: Update) -> Tensor:
    """Those of the update at strength 1, largest first; from the factors. Raises AdapterError like `resize`.

    A Kronecker product's are all products of its factors' singular values. The product of two LoRAs number by number
    (LoHa) is a LoRA of the product of their ranks, and taken so where that is the smaller way.
    """
    if update.kind == "loha" and {"magnitude", "hada_t1", *_BIASES}.isdisjoint(update.parts):
        B, A = _face_split(update.parts)
        if B.shape[1] < min(len(B), A.shape[1]):
            return _values(update.sigma * B, A)
    if update.kind != "lokr" or "magnitude" in update.parts or _BIASES & set(update.parts):
        return _values(*factors(update))
    p = update.parts
    core = p.get("lokr_t2")
    if core is None:
        halves = [_half_values(p, half) for half in ("lokr_w1", "lokr_w2")]
    else:  # (out, r) · (r, in · window)
        inner = torch.einsum("mn...,nj->mj...", core, p["lokr_w2_b"]).flatten(1)
        halves = [_half_values(p, "lokr_w1"), _values(p["lokr_w2_a"].T, inner)]
    return (update.sigma * torch.outer(*halves).flatten()).sort(descending=True).values


def _face_split(p: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(B, A) with B A = (w1_a w1_b) ∘ (w2_a w2_b): (out, r²) and (r², in), every column times every other one."""
    B = torch.einsum("or,os->ors", p["hada_w1_a"], p["hada_w2_a"]).flatten(1)
    return B, torch.einsum("ri,si->rsi", p["hada_w1_b"], p["hada_w2_b"]).flatten(0, 1)


def _half_values(p: Mapping[str, Tensor], name: str) -> Tensor:
    """Singular values of one factor of a Kronecker product, full or itself a product."""
    if name in p:
        return _svdvals(p[name].flatten(1))
    return _values(p[f"{name}_a"].flatten(1), p[f"{name}_b"].flatten(1))


def _values(B: Tensor, A: Tensor) -> Tensor:
    """The singular values of B A, (out, r) and (r, in)."""
    if B.shape[1] >= min(len(B), A.shape[1]):
        return _svdvals(B @ A)  # the product is the smaller one
    return _svdvals(torch.linalg.qr(B, mode="r")[1] @ torch.linalg.qr(A.T, mode="r")[1].T)


def _svdvals(matrix: Tensor) -> Tensor:
    values: Tensor = torch.linalg.svdvals(matrix)
    return values


def factors(update: Update) -> tuple[Tensor, Tensor]:
    """(B, A) with delta = B A as matrices: (out, r) and (r, in · window). Raises AdapterError."""
    p = update.parts
    if "magnitude" in p or update.kind not in ("lora", "loha", "lokr", "full"):
        raise AdapterError(f"{update.label} can't be done without its base model's weights: only LoRA, LoHa and LoKr.")
    if _BIASES & set(p):
        raise AdapterError("An adapter with biases can't be written as a plain LoRA.")
    if update.kind == "lora":
        A = p["A"] if "mid" not in p else torch.einsum("mn...,nj->mj...", p["mid"], p["A"].flatten(1))
        return update.sigma * p["B"].flatten(1), A.flatten(1)
    out, width = _matrix_shape(update)
    if out * width > LARGEST:
        raise AdapterError(f"A layer of {out} × {width} is too large to be written out.")
    delta = KINDS[update.kind](torch.empty(update.shape), dict(p), update.sigma).flatten(1)
    return (delta, torch.eye(width)) if width <= out else (torch.eye(out), delta)


def spectrum(B: Tensor, A: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V with B A = U diag(S) V, in the time of the small side: QR of each, SVD of what is between."""
    Qb, Rb = torch.linalg.qr(B)
    Qa, Ra = torch.linalg.qr(A.T)
    U, S, V = torch.linalg.svd(Rb @ Ra.T, full_matrices=False)
    return Qb @ U, S, V @ Qa.T


def _cut(factors: tuple[Tensor, Tensor], like: Update, rank: int) -> tuple[Update, float, float]:
    """The best LoRA of this rank, the energy it lacks, and the total energy."""
    U, S, V = spectrum(*factors)
    root = S[:rank].sqrt()
    new = _lora(U[:, :rank] * root, root[:, None] * V[:rank], like)
    return new, S[rank:].square().sum().item(), S.square().sum().item()


def _lora(B: Tensor, A: Tensor, like: Update) -> Update:
    """A plain LoRA with its scale in B, of the window that `like` has."""
    window = like.shape[2:]
    A = A.reshape(len(A), like.shape[1], *window)
    B = B.reshape(len(B), -1, *(1 for _ in window))
    return Update("lora", {"A": A.contiguous(), "B": B.contiguous()}, float(len(A)))


def _matrix_shape(update: Update) -> tuple[int, int]:
    out, *rest = update.shape
    return out, int(torch.Size(rest).numel())


def _check_rank(rank: int) -> None:
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise AdapterError(f"The rank must be a whole number from 1 to {MAX_RANK} (you gave {rank!r}).")
