"""A run takes its base's own settings wherever nothing else is set: on page, command line, endpoints and in Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.basemodels.defaults import VARIANTS, Variant, variant_of
from studio.datasets import open_dataset
from studio.datasets.captions import with_trigger
from studio.errors import BaseModelError, StudioError
from studio.text import pluralize
from studio.training.aliases import Report
from studio.training.config import RunConfig, config_from, dotted, resolved
from studio.training.config_sections import FIND_THEIR_RATE

SUGGESTED = 4  # preview prompts


def config_for(values: Mapping[str, Any], report: Report | None = None) -> RunConfig:
    """As `config_from`, with the base's own defaults instead of the schema's. Raises ConfigError, BaseModelError."""
    given = resolved(values, report)
    return config_from(defaults_for(given) | given)


def defaults_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """What the base brings along for settings that are not among `given` (dotted, by their own names)."""
    variant = variant_of(str(given.get("base") or "starter"))
    found = {key: value for key, value in variant.settings.items() if key not in given}
    steps = _number(given.get("training.steps"))
    if "training.warmup" in found and steps:  # of the steps that were asked for
        found["training.warmup"] = min(found["training.warmup"], steps // 10)
    if given.get("training.optimizer") in FIND_THEIR_RATE and "training.learning_rate" not in given:
        found["training.learning_rate"] = 1.0  # a factor on the rate that it finds
    rank = _number(given.get("adapter.rank"))
    if "adapter.alpha" in found and rank:  # the same share of the rank
        found["adapter.alpha"] = found["adapter.alpha"] * rank / variant.settings["adapter.rank"]
    target = given.get("slider.target")
    if given.get("slider.positive") and target and "preview.prompts" not in given:  # both ends and the middle
        found["preview.prompts"] = [f"{target} @{strength}" for strength in (-1, 0, 1)]
    elif "preview.prompts" not in given and (folder := str(given.get("data.folder") or "")):
        trigger = str(given.get("data.trigger") or "")
        found["preview.prompts"] = prompts_from(captions_of(folder), trigger, prompts_of(variant))
    return found


def prompts_from(captions: Sequence[str], trigger: str, others: Sequence[str]) -> list[str]:
    """What the previews of a run show best: two captions of its dataset and two other things, each with the trigger.

    Without captions and trigger they are `others`.
    """
    found = list(dict.fromkeys(caption.strip() for caption in captions if caption.strip()))
    front = " ".join(trigger.split())
    lines = [*found[:: max(1, len(found) // 2)][:2], *others]
    return list(dict.fromkeys(with_trigger(line, front) for line in lines))[:SUGGESTED]


def captions_of(folder: str) -> list[str]:
    """Of the images in a folder; none where it can't be read, which is reported where the run begins."""
    try:
        return [item.caption for item in open_dataset(Path(folder)).items]
    except (StudioError, OSError, ValueError):
        return []


def usual_line(config: RunConfig) -> str:
    """Which settings of a run are its base's defaults, and which of those were set otherwise. "" for a base that is
    gone.
    """
    from studio.basemodels.card import describe_base  # brings torch

    try:
        variant, card = variant_of(config.base), describe_base(config.base)
    except BaseModelError:
        return ""
    given, kept, other = dotted(config), [], 0
    if not config.data.resolution:
        kept.append(f"data.resolution {card.resolution}")
    for key, value in variant.settings.items():
        if given[key] != value:
            other += key != "preview.prompts"  # these come from the dataset
        elif key != "preview.prompts":
            kept.append(f"{key} {_plain(value)}")
        else:
            kept.append(f"{key} {'; '.join(value)}")
    line = f"Defaults of {variant.title}: {', '.join(kept)}." if kept else f"No defaults of {variant.title} are taken."
    return f"{line} {pluralize(other, 'other')} set by you or a preset." if other else line


def default_prompts() -> list[list[str]]:
    """The preview prompts that bases bring along."""
    schema = config_from({"data.folder": "x"}).preview.prompts
    return [schema, *(variant.settings["preview.prompts"] for variant in VARIANTS if variant.settings)]


def prompts_of(variant: Variant) -> list[str]:
    return list(variant.settings.get("preview.prompts", default_prompts()[0]))


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):  # reported where the settings are checked
        return 0
