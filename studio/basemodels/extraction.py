"""A LoRA out of a full checkpoint: the differences to its base, layer by layer, cut to a rank by SVD.

The truncated SVD is the best matrix of its rank (Eckart–Young); it is what kohya's `extract_lora_from_models` and
LyCORIS' `extract_locon` take. One layer is in memory at a time.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from studio import devices
from studio.adapters.baking import Layers, Place
from studio.adapters.layers import CONVOLUTIONS, can_carry, can_train
from studio.adapters.update import Update
from studio.basemodels.checkpoint import Checkpoint
from studio.errors import AdapterError, BaseModelError

Progress = Callable[[int, int], None]
EXACT = 1024  # smaller side of a matrix up to which the SVD is whole; larger ones by random projection
_FINE, _SUBNORMAL = 1e-6, 2.0**-24  # the eps up to which nothing counts as rounding; fp16's smallest number
_MORE, _ITERATIONS = 32, 4  # of the random projection (arXiv:0909.4061): directions more, subspace iterations


@dataclass(frozen=True)
class Extraction:
    """layers    plain LoRAs
    errors    {component.path: ‖difference − LoRA‖ / ‖difference‖}
    error     the same of all layers together
    same      layers that both checkpoints have alike, or alike but for the rounding of one of them
    left_out  {component.path: share of the whole change's energy} of what a LoRA has no place for: norms, biases
    missing   layers that one of the two files lacks
    """

    layers: Layers
    errors: dict[str, float]
    error: float
    same: int
    left_out: dict[str, float]
    missing: int


def extract(
    tuned: Checkpoint,
    base: Checkpoint,
    rank: int,
    conv_rank: int | None = None,
    keep: float = 1.0,
    text_encoder: bool = True,
    dtype: torch.dtype = torch.float16,
    progress: Progress | None = None,
) -> Extraction:
    """What `tuned` adds to `base`, as a LoRA.

    rank, conv_rank  the largest of a layer; conv_rank of windows above 1 × 1, None: as rank, 0: without them
    keep             a layer keeps no more directions than hold this share of its difference's energy
    dtype            of the result; the errors are those of the rounded numbers

    Raises BaseModelError where the two are not of one architecture, AdapterError where they are alike, and whatever
    `progress` raises.
    """
    _refuse_others(tuned, base)
    found: dict[Place, Update] = {}
    errors: dict[str, float] = {}
    rest: dict[str, float] = {}
    lost = energy = 0.0
    same = missing = 0
    alpha = float(max(rank, conv_rank or 0))  # one for all layers, as diffusers needs it; the scale goes into B
    wanted = [name for name in base.modules if text_encoder or not name.startswith("text_encoder")]
    places = [
        (name, path) for name in wanted for path, m in base.modules[name].named_modules() if path and can_carry(m)
    ]
    for done, (component, path) in enumerate(places):
        if progress:
            progress(done, len(places))
        module, label = base.modules[component].get_submodule(path), f"{component}.{path}"
        for name in ("weight", "bias"):
            if module._parameters.get(name) is None:
                continue
            delta = _difference(tuned, base, component, path, name)
            if delta is None:
                missing += name == "weight"
                continue
            total = delta.square().sum().item()
            most = _most(module, rank, conv_rank) if name == "weight" else 0
            if not total:
                same += name == "weight"
            elif not most:
                rest[label if name == "weight" else f"{label} (its bias)"] = total
            else:
                found[component, path] = update = _cut(delta, most, keep, dtype, alpha)
                B, A = (update.parts[part].float().flatten(1) for part in "BA")
                error = (delta.flatten(1) - update.sigma * (B @ A)).square().sum().item()
                errors[label] = (error / total) ** 0.5
                lost, energy = lost + error, energy + total
    if not found:
        raise AdapterError("The two checkpoints have the same weights: there is nothing to extract.")
    whole = energy + sum(rest.values())
    shares = {label: part / whole for label, part in rest.items()}
    return Extraction(found, errors, (lost / energy) ** 0.5, same, shares, missing)


def _refuse_others(tuned: Checkpoint, base: Checkpoint) -> None:
    mine, theirs = (
        {(name, path): m._parameters["weight"].shape for path, m in one.modules[name].named_modules() if can_carry(m)}
        for one in (tuned, base)
        for name in [next(iter(one.modules))]
    )
    if mine != theirs:
        raise BaseModelError(
            f"{tuned.choice.short} and {base.choice.short} are models of different architectures: choose the base that "
            "the checkpoint was trained from."
        )


def _difference(tuned: Checkpoint, base: Checkpoint, component: str, path: str, name: str) -> Tensor | None:
    """float32; None where one of them lacks the parameter. Raises BaseModelError for NaN and infinity."""
    if component not in tuned.modules or not (tuned.holds(component, path, name) and base.holds(component, path, name)):
        return None
    new, old = tuned.read(component, path, name), base.read(component, path, name)
    if new is None or old is None or new.shape != old.shape:
        return None
    delta = new - old
    coarse = max(torch.finfo(one.dtype(component, path, name)).eps for one in (tuned, base))
    if coarse > _FINE and (delta.abs() <= coarse * old.abs() + _SUBNORMAL).all():
        return torch.zeros_like(delta)  # the same numbers, rounded: a checkpoint in fp16 of a base in fp32
    if not torch.isfinite(delta).all():
        raise BaseModelError(f"{component}.{path} holds NaN or infinity in one of the checkpoints: download it again.")
    return delta


def _most(module: torch.nn.Module, rank: int, conv_rank: int | None) -> int:
    """The largest rank of this layer; 0: it gets no LoRA."""
    if not can_train(module) or isinstance(module, torch.nn.Embedding):
        return 0
    wide = isinstance(module, CONVOLUTIONS) and torch.Size(module.kernel_size).numel() > 1
    return rank if not wide or conv_rank is None else conv_rank


def _cut(delta: Tensor, rank: int, keep: float, dtype: torch.dtype, alpha: float) -> Update:
    """The best plain LoRA of at most this rank, on the CPU."""
    U, S, V = _svd(delta.flatten(1).to(devices.for_singular_values()), rank)
    if keep < 1:
        reached = S.square().cumsum(0) >= keep * delta.square().sum().item()
        rank = min(rank, int((~reached).sum().item()) + 1)
    root = S[:rank].sqrt()
    B, A = U[:, :rank] * (root * len(root) / alpha), root[:, None] * V[:rank]
    A = A.reshape(len(A), *delta.shape[1:]).to("cpu", dtype).contiguous()
    B = B.reshape(len(B), -1, *(1 for _ in delta.shape[2:])).to("cpu", dtype).contiguous()
    return Update("lora", {"A": A, "B": B}, alpha)


def _svd(delta: Tensor, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U, S, V with the largest `rank` singular values at least."""
    side = min(delta.shape)
    if side <= EXACT or 4 * (rank + _MORE) >= side:
        return torch.linalg.svd(delta, full_matrices=False)
    with devices.seeded(0):
        U, S, V = torch.svd_lowrank(delta, q=rank + _MORE, niter=_ITERATIONS)
    return U, S, V.T
