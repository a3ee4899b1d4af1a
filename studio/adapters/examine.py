"""An adapter measured on a base: what fits, where it acts, how much of its rank it uses, how it overlaps others."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from studio.adapters.attach import MatchReport, match_report, place_layers
from studio.adapters.baking import factors_on, inner, is_matrix, values_on
from studio.adapters.block_map import BlockMap, block_map, kind_of
from studio.adapters.files import AdapterFile
from studio.adapters.layers import plain_weight
from studio.adapters.report import describe
from studio.adapters.reshape import singular_values
from studio.errors import AdapterError

ALL = "all of it"
NEARLY_ALL = 0.99  # of the energy: what a smaller rank should keep
_GROUPS = {
    "self-attention": "attention",
    "cross-attention": "attention",
    "conv": "convolutions",
    "feed-forward": "feed-forward",
}


@dataclass(frozen=True)
class Examination:
    """What is known of an adapter on a base.

    facts     `report.describe`'s
    where     None when nothing fits
    kept      {group of layers: share of its energy in the first 1, 2, … directions of each layer}, ALL first; empty
              where nothing fits and the kind is nothing without its base
    overlaps  {name of another adapter: cosine of the two}
    """

    facts: dict[str, Any]
    fit: MatchReport
    where: BlockMap | None
    kept: dict[str, tuple[float, ...]]
    overlaps: dict[str, float]

    def rank_for(self, share: float = NEARLY_ALL) -> int:
        """The smallest rank that keeps so much of the energy; 0 when that is not known."""
        return next((k for k, kept in enumerate(self.kept.get(ALL, ()), 1) if kept >= share), 0)


@torch.no_grad()
def examine(
    file: AdapterFile,
    modules: Mapping[str, nn.Module],
    others: Mapping[str, AdapterFile] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Examination:
    """Nothing is attached and nothing changed, so a run may train on the base meanwhile.

    others: the adapters that it is to be compared with. Raises whatever `progress` raises.
    """
    facts = describe(file, spectrum=False)
    placed, unused = place_layers(file, dict(modules))
    fit = match_report(file, unused)
    if file.not_finite:
        return Examination(facts, fit, None, {}, {})
    energies: dict[str, list[Tensor]] = defaultdict(list)
    norms = {}
    theirs = {name: place_layers(other, dict(modules))[0] for name, other in (others or {}).items()}
    meets = {name: [0.0, 0.0, 0.0] for name in theirs}  # inner product, and both squared lengths
    for done, ((component, path), update) in enumerate(placed.items()):
        if progress:
            progress(done, len(placed))
        base = modules[component].get_submodule(path)
        if not is_matrix(update):
            norms[component, path] = (0.0, plain_weight(base).square().sum().item())
            continue
        values = values_on(update, base).square()
        norms[component, path] = (values.sum().item(), plain_weight(base).square().sum().item())
        energies[_group(component, path)].append(values)
        for name, layers in theirs.items():
            if (component, path) in layers and is_matrix(layers[component, path]):
                mine = factors_on(update, base)
                yours = factors_on(layers[component, path], base)
                found = inner(mine, yours), norms[component, path][0], inner(yours, yours)
                meets[name] = [sum(pair) for pair in zip(meets[name], found)]
    if not placed:
        energies = _without_base(file)
    where = block_map(modules, norms, [key for key, _ in unused]) if placed else None
    overlaps = {name: cross / (a * b) ** 0.5 for name, (cross, a, b) in meets.items() if a and b}
    return Examination(facts, fit, where, _kept(energies), overlaps)


def _group(component: str, path: str) -> str:
    if component.startswith("text_encoder"):
        return "text encoder"
    return _GROUPS.get(kind_of(path).split(" ")[0], "the rest")


def _without_base(file: AdapterFile) -> dict[str, list[Tensor]]:
    energies: dict[str, list[Tensor]] = defaultdict(list)
    for (component, key), update in file.layers.items():
        try:
            energies[_group(component, key)].append(singular_values(update).square())
        except AdapterError:
            return {}
    return energies


def _kept(energies: Mapping[str, list[Tensor]]) -> dict[str, tuple[float, ...]]:
    """Of squared singular values, largest first, to the share that the first k of every layer hold together."""
    groups = {ALL: [values for group in energies.values() for values in group], **energies}
    out = {}
    for name, layers in groups.items():
        longest = max((len(values) for values in layers), default=0)
        sums = torch.zeros(longest, dtype=torch.float64)
        for values in layers:
            sums[: len(values)] += values.double()
        if sums.sum() > 0:
            out[name] = tuple((sums.cumsum(0) / sums.sum()).tolist())
    return out if len(out) > 2 else {name: kept for name, kept in out.items() if name == ALL}
