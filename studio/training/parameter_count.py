"""How many parameters a run trains, known before its base is loaded."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from studio.adapters import AdapterSpec
from studio.training.config import AdapterConfig
from studio.training.patterns import parsed, ranks_and_alphas

TARGETS = tuple(one for one in get_args(AdapterConfig.model_fields["targets"].annotation) if one != "patterns")


def specs_of(wanted: AdapterConfig, base: Any) -> dict[str, AdapterSpec]:
    """{component: what is attached to it}. base: a Family, loaded or its class.

    On text encoders never the embeddings: no other program reads an adapter there.
    """
    patterns = parsed(wanted.patterns)
    ranks, alphas = ranks_and_alphas(patterns, wanted.rank, wanted.alpha)
    targets = tuple(ranks) if wanted.targets == "patterns" else wanted.targets
    spec = AdapterSpec(wanted.rank, wanted.alpha, wanted.kind, targets, wanted.dropout, ranks=ranks, alphas=alphas)
    text = replace(spec, targets="attention+feed-forward") if wanted.targets == "all" else spec
    return {base.denoiser: spec} | (dict.fromkeys(base.trained_encoders, text) if wanted.text_encoder else {})


def parameter_line(wanted: AdapterConfig, base: str) -> str:
    """What trains, and what each other choice of layers would come to. base: a line as for `load_base`.

    Raises BaseModelError.
    """
    from studio.basemodels import BaseChoice, base_folder, family_class
    from studio.basemodels.skeleton import count_trainable, skeleton

    family = family_class(base_folder(base), BaseChoice.of(base).family)
    modules = skeleton(base)

    def count(adapter: AdapterConfig) -> tuple[int, int]:
        found = [
            count_trainable(modules[part], spec) for part, spec in specs_of(adapter, family).items() if part in modules
        ]
        return sum(layers for layers, _ in found), sum(numbers for _, numbers in found)

    layers, numbers = count(wanted)
    plain = {"text_encoder": False, "patterns": []}
    others = [
        f"{targets} {_millions(count(wanted.model_copy(update={**plain, 'targets': targets}))[1])}"
        for targets in TARGETS
    ]
    if family.trained_encoders:
        both, alone = (wanted.model_copy(update={"text_encoder": on}) for on in (True, False))
        others.append(f"text encoder {_millions(count(both)[1] - count(alone)[1])} more")
    lines = "".join(f" {pattern}: {_caught(*found)}." for pattern, found in caught(wanted, family, modules).items())
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
