"""Several adapters at their strengths, on their base, as one plain LoRA."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from studio.adapters.layers import Layer, plain_weight, shape_of
from studio.adapters.reshape import factors, singular_values, spectrum, with_one_alpha
from studio.adapters.update import Update
from studio.errors import AdapterError

Place = tuple[str, str]  # component, path of the layer in it
Layers = Mapping[Place, Update]
Strength = Callable[[str, str], float]  # of a layer, by component and path
_BIASES = {"bias", "diff_b"}


@dataclass(frozen=True)
class Baked:
    """layers    plain LoRAs whose sum at strength 1 is what was given
    cut       layers whose change had no small rank and was cut
    lost      share of the change's energy (sum of squares) that is lost by the cut
    left_out  biases and norms, for which a LoRA has no place
    """

    layers: dict[Place, Update]
    cut: int
    lost: float
    left_out: int


def bake(
    stack: Sequence[tuple[Layers, Strength]],
    modules: Mapping[str, nn.Module],
    rank: int,
    progress: Callable[[int, int], None] | None = None,
) -> Baked:
    """Plain LoRAs are put side by side, exactly; the sum of all other kinds is cut to `rank`, layer by layer.

    stack: placed layers (see `attach.place_layers`), each adapter with its strengths. Raises AdapterError when nothing
    is left, and whatever `progress` raises.
    """
    places = list(dict.fromkeys(place for layers, _ in stack for place in layers))
    out: dict[Place, Update] = {}
    cut = left_out = 0
    lost = energy = 0.0
    for done, place in enumerate(places):
        if progress:
            progress(done, len(places))
        parts = [(layers[place], strength(*place)) for layers, strength in stack if place in layers]
        parts = [(update, strength) for update, strength in parts if strength]
        left_out += sum(has_bias(update) for update, _ in parts)
        base = modules[place[0]].get_submodule(place[1])
        thin: list[tuple[Tensor, Tensor]] = []
        dense: list[tuple[Tensor, Tensor]] = []
        for update, strength in parts:
            if is_matrix(update):
                B, A = factors_on(update, base)
                (thin if is_thin(update) else dense).append((strength * B, A))
        if dense:
            U, S, V = spectrum(*_beside(dense))
            thin.append((U[:, :rank] * S[:rank], V[:rank]))
            missing = S[rank:].square().sum().item()
            cut, lost, energy = cut + (missing > 0), lost + missing, energy + missing
        if thin:
            B, A = _beside(thin)
            energy += inner((B, A), (B, A))
            out[place] = _plain(B, A, shape_of(base))
    if not out:
        raise AdapterError("Nothing would be left in the file: turn an adapter on and give it a strength.")
    return Baked(with_one_alpha(out), cut, lost / energy if energy else 0.0, left_out)


def factors_on(update: Update, base: nn.Module) -> tuple[Tensor, Tensor]:
    """(B, A) with B A what the update adds to this layer's weight, as matrices on the CPU: (out, r), (r, in · window).

    Of any kind; where it is not thin, r is the smaller side. Biases are left out.
    """
    update = _without_biases(update)
    try:
        return factors(update)
    except AdapterError:  # what is nothing without the base's weight
        layer = Layer(update).to(plain_weight(base).device)
        with torch.no_grad():
            delta = layer.delta(plain_weight(base)).flatten(1).cpu()
    out, width = delta.shape
    return (delta, torch.eye(width)) if width <= out else (torch.eye(out), delta)


def values_on(update: Update, base: nn.Module) -> Tensor:
    """The singular values of what the update adds to this layer's weight, largest first; biases are left out.

    From its factors, where it is something without the base's weight: no product is written out.
    """
    try:
        return singular_values(_without_biases(update))
    except AdapterError:
        return spectrum(*factors_on(update, base))[1]


def _without_biases(update: Update) -> Update:
    return replace(update, parts={part: tensor for part, tensor in update.parts.items() if part not in _BIASES})


def inner(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> float:
    """The sum of the products of B A and B' A', number by number, without writing them out."""
    return ((one[0].T @ other[0]) * (one[1] @ other[1].T)).sum().item()


def is_matrix(update: Update) -> bool:
    """Whether it changes a weight that is a matrix: no norm, and not a bias alone."""
    return update.kind != "norm" and not (update.kind == "full" and "diff" not in update.parts)


def is_thin(update: Update) -> bool:
    """Whether it is a plain product B A already."""
    return update.kind == "lora" and set(update.parts) <= {"A", "B"} | _BIASES


def has_bias(update: Update) -> bool:
    return not is_matrix(update) or bool(_BIASES & set(update.parts))


def _beside(pairs: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([B for B, _ in pairs], 1), torch.cat([A for _, A in pairs])


def _plain(B: Tensor, A: Tensor, shape: torch.Size) -> Update:
    """Exactly B A, with no more directions than the layer has; its scale is 1."""
    if len(A) > min(len(B), A.shape[1]):
        U, S, V = spectrum(B, A)
        B, A = U * S, V
    A = A.reshape(len(A), *shape[1:])
    B = B.reshape(len(B), -1, *(1 for _ in shape[2:]))
    return Update("lora", {"A": A.contiguous(), "B": B.contiguous()}, float(len(A)))
