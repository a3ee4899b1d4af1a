"""How many parameters a run trains, known before its base is loaded."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from studio.adapters import AdapterSpec
from studio.training.config_sections import AdapterConfig
from studio.training.patterns import parsed, ranks_and_alphas

TARGETS = ("attention", "attention+feed-forward", "all")  # those that each hold the one before
_OF_THE_DENOISER = ("all", "sdxl-style", "sdxl-content")  # choices that say nothing about a text encoder


def specs_of(wanted: AdapterConfig, base: Any) -> dict[str, AdapterSpec]:
    """{component: what is attached to it}. base: a Family, loaded or its class.

    On text encoders never the embeddings: no other program reads an adapter there.
    """
    patterns = parsed(wanted.patterns)
    ranks, alphas = ranks_and_alphas(patterns, wanted.rank, wanted.alpha)
    targets = tuple(ranks) if wanted.targets == "patterns" else wanted.targets
    spec = AdapterSpec(
        wanted.rank,
        wanted.alpha,
        wanted.kind,
        targets,
        wanted.dropout,
        stabilised=wanted.rank_stabilized,
        init=wanted.init,
        ranks=ranks,
        alphas=alphas,
    )
    text = replace(spec, targets="attention+feed-forward") if wanted.targets in _OF_THE_DENOISER else spec
    return {base.denoiser: spec} | (dict.fromkeys(base.trained_encoders, text) if wanted.text_encoder else {})


@dataclass(frozen=True)
class CaughtLayers:
    """What a line of `adapter.patterns` trains, or `adapter.targets` of what no line fits."""

    line: str
    layers: int
    parameters: int  # 0 for layers that are left out


def _of_base(base: str) -> tuple[Any, dict[str, Any]]:
    from studio.basemodels import BaseChoice, base_folder, family_class
    from studio.basemodels.skeleton import skeleton

    return family_class(base_folder(base), BaseChoice.of(base).family), skeleton(base)


def _count(adapter: AdapterConfig, family: Any, modules: Mapping[str, Any]) -> tuple[int, int]:
    from studio.basemodels.skeleton import count_trainable

    found = [
        count_trainable(modules[part], spec) for part, spec in specs_of(adapter, family).items() if part in modules
    ]
    return sum(layers for layers, _ in found), sum(numbers for _, numbers in found)


def layer_table(wanted: AdapterConfig, base: str) -> list[CaughtLayers]:
    """How much each line of `adapter.patterns` catches, then what `adapter.targets` adds, then the sum.

    base: a line as for `load_base`. Raises BaseModelError.
    """
    family, modules = _of_base(base)
    lines = [one for one in wanted.patterns if one.strip()]
    rows = [CaughtLayers(line, *found) for line, found in zip(lines, caught(wanted, family, modules).values())]
    layers, numbers = _count(wanted, family, modules)
    trained = sum(row.layers for row in rows if row.parameters)
    if wanted.targets != "patterns":
        rest = layers - trained, numbers - sum(row.parameters for row in rows)
        rows.append(CaughtLayers(f"adapter.targets = {wanted.targets}", *rest))
    return [*rows, CaughtLayers("together", layers, numbers)]


def parameter_line(wanted: AdapterConfig, base: str, by_line: bool = True) -> str:
    """What trains, and what each other choice of layers would come to. base: a line as for `load_base`.

    by_line: also what each line of `adapter.patterns` catches. Raises BaseModelError.
    """
    family, modules = _of_base(base)

    def count(adapter: AdapterConfig) -> tuple[int, int]:
        return _count(adapter, family, modules)

    layers, numbers = count(wanted)
    plain = {"text_encoder": False, "patterns": []}
    others = [
        f"{targets} {_millions(count(wanted.model_copy(update={**plain, 'targets': targets}))[1])}"
        for targets in TARGETS
    ]
    if family.trained_encoders:
        both, alone = (wanted.model_copy(update={"text_encoder": on}) for on in (True, False))
        others.append(f"text encoder {_millions(count(both)[1] - count(alone)[1])} more")
    fits = caught(wanted, family, modules) if by_line else {}
    lines = "".join(f" {pattern}: {_caught(*found)}." for pattern, found in fits.items())
    return f"{_millions(numbers)} trainable parameters in {layers:,} layers. By layers: {', '.join(others)}.{lines}"


def catching(wanted: AdapterConfig, base: Any, modules: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """{pattern: [(component, path)]} of each line of `adapter.patterns`: layers that no earlier line catches.

    modules: {component: module}, perhaps of `skeleton`.
    """
    from studio.adapters.layers import can_train

    found: dict[str, list[tuple[str, str]]] = {one.pattern: [] for one in parsed(wanted.patterns)}
    for part in specs_of(wanted, base) if found else ():
        for path, layer in modules[part].named_modules() if part in modules else ():
            fits = next((pattern for pattern in found if re.search(pattern, path)), None)
            if fits is not None and path and can_train(layer):
                found[fits].append((part, path))
    return found


def caught(wanted: AdapterConfig, base: Any, modules: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """{pattern: (layers, trainable parameters)}, 0 parameters for those left out. modules: of `skeleton`."""
    from studio.basemodels.skeleton import count_trainable

    specs, found = specs_of(wanted, base), {}
    for pattern, places in catching(wanted, base, modules).items():
        count = 0
        for part, spec in specs.items():
            paths = {path for where, path in places if where == part}
            if paths and spec.ranks[pattern]:
                count += count_trainable(modules[part], spec, paths)[1]
        found[pattern] = len(places), count
    return found


def _caught(layers: int, numbers: int) -> str:
    return f"{layers:,} layers, {_millions(numbers)}" if numbers or not layers else f"{layers:,} layers left out"


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 950_000 else f"{count / 1e3:,.0f} k"
