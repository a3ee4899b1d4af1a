"""Settings that work, by base model and by what is to be learned: where a person begins. Dotted, as for `config_from`.

The figures are the bases' own (`basemodels.defaults`). A preset is called by a variant of a base and a purpose, such as
"SDXL, style", by the variant alone, or by the purpose alone, which changes only what it is about.
"""

from typing import Any

from studio.basemodels.defaults import PURPOSES, VARIANTS, Variant, variant_of
from studio.errors import ConfigError


def _names(variant: Variant) -> dict[str, dict[str, Any]]:
    """The variant's presets; its plain settings first where no purpose is the same."""
    found = {f"{variant.title}, {purpose}": variant.preset(purpose) for purpose in PURPOSES}
    return found if variant.settings in found.values() else {variant.title: variant.preset(), **found}


PRESETS: dict[str, dict[str, Any]] = {name: values for variant in VARIANTS for name, values in _names(variant).items()}


def presets_of(variant: Variant) -> dict[str, dict[str, Any]]:
    """{name: settings} of the presets for a base; the first is what is taken where nothing is said."""
    return _names(variant)


def preset(name: str, base: str = "starter") -> dict[str, Any]:
    """The settings of a preset. base: whose it is where the name is a purpose alone. Raises ConfigError."""
    title, _, purpose = name.partition(", ")
    if name in PURPOSES:
        return variant_of(base).preset(name)
    variant = next((one for one in VARIANTS if title in (one.title, *one.older)), None)
    if variant is None or (purpose and purpose not in PURPOSES):
        known = "; ".join([*PURPOSES, *PRESETS])
        raise ConfigError(f"There is no preset {name[:60]!r}: choose from {known}.")
    return variant.preset(purpose)
