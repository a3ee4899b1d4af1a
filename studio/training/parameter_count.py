"""How many parameters a run trains, known before its base is loaded."""

from dataclasses import replace
from typing import Any, get_args

from studio.adapters import AdapterSpec
from studio.training.config import AdapterConfig

TARGETS = get_args(AdapterConfig.model_fields["targets"].annotation)


def specs_of(wanted: AdapterConfig, base: Any) -> dict[str, AdapterSpec]:
    """{component: what is attached to it}. base: a Family, loaded or its class.

    On text encoders never the embeddings: no other program reads an adapter there.
    """
    spec = AdapterSpec(wanted.rank, wanted.alpha, wanted.kind, wanted.targets, wanted.dropout)
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
    others = [
        f"{targets} {_millions(count(wanted.model_copy(update={'targets': targets, 'text_encoder': False}))[1])}"
        for targets in TARGETS
    ]
    if family.trained_encoders:
        both, alone = (wanted.model_copy(update={"text_encoder": on}) for on in (True, False))
        others.append(f"text encoder {_millions(count(both)[1] - count(alone)[1])} more")
    return f"{_millions(numbers)} trainable parameters in {layers:,} layers. By layers: {', '.join(others)}."


def _millions(count: int) -> str:
    return f"{count / 1e6:,.1f} M" if count >= 950_000 else f"{count / 1e3:,.0f} k"
