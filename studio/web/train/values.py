"""Between the settings of a run and what the fields of the form hold."""

from typing import Any

from studio.training.setting_groups import LABELS
from studio.web.components.fields import setting

NOT_CHOSEN = {
    "data.held_out": "a share of the dataset",
    "data.regularisation": "none",
    "adapter.init_from": "a new adapter",
    "training.training_adapter": "none",
}
PATTERNS = "adapter.patterns"
LISTS = (
    "preview.prompts",
    "adapter.patterns",
    "data.folders",
    "data.more_resolutions",
    "slider.preserve",
)  # a line each
NUMBERS = ("data.more_resolutions",)  # in one line, with commas or spaces
OWN = ("base", "data.trigger", "preview.prompts", *NOT_CHOSEN)  # what no preset changes


def defaults() -> dict[str, Any]:
    return {key: setting(key).default for key in LABELS}


def as_shown(key: str, value: Any) -> Any:
    """A setting's value as its field shows it."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) if key in NUMBERS else "\n".join(value)
    return f"{value:.10g}" if setting(key).kind is float else value


def typed(dataset, name, *values) -> dict[str, Any]:
    """What `runs.config_of` takes, from the values of `TrainForm.inputs`. An empty field is left out."""
    found = {"dataset": dataset, "name": (name or "").strip()} | dict(zip(LABELS, values, strict=True))
    return listed(found)


def listed(found: dict[str, Any]) -> dict[str, Any]:
    """Values of fields as settings: lists as such, empty fields left out."""
    for key in LISTS:
        if key in found:
            text = found[key] or ""
            lines = text.replace(",", " ").split() if key in NUMBERS else text.splitlines()
            found[key] = [line.strip() for line in lines if line.strip()]
    return {key: value for key, value in found.items() if value not in ("", None) or key == "dataset"}


def standard_of(preset: dict[str, Any]) -> dict[str, Any]:
    """A preset's values as the fields show them; without what is each run's own: base, trigger and prompts."""
    values = defaults() | preset
    return {key: as_shown(key, value) for key, value in values.items() if key in LABELS and key not in OWN[:3]}
