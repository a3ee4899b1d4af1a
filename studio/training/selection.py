"""Which pictures a run learns from, which it is measured on, and with what words. No torch here."""

import random
from pathlib import Path

from studio.datasets import Item, has_trigger, open_dataset
from studio.errors import RunError
from studio.training.config import RunConfig


def split(config: RunConfig) -> tuple[list[Item], list[Item], list[str]]:
    """(items to train on, held-out items, what a person should know). Raises DatasetError, RunError."""
    dataset = open_dataset(Path(config.data.folder))
    warnings = [f"Left out: {problem}" for problem in dataset.problems]
    items = list(dataset.items)
    missing = [item.path.name for item in items if not item.caption.strip()]
    if missing and not config.data.trigger:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"No caption: {missing[0]}{more}. Caption them, or set a trigger word.")
    if config.data.held_out:
        return items, list(open_dataset(Path(config.data.held_out)).items), warnings
    count = int(len(items) * config.validation.fraction) if config.validation.every else 0
    if not count:
        return items, [], warnings
    if count >= len(items):
        raise RunError("There are too few pictures to hold some out: set validation.fraction to 0.")
    held = set(random.Random(config.training.seed).sample(range(len(items)), count))
    return [x for i, x in enumerate(items) if i not in held], [items[i] for i in sorted(held)], warnings


def caption_of(item: Item, trigger: str) -> str:
    """The caption as trained on: with the trigger in front where it lacks it."""
    caption = item.caption.strip()
    if not trigger or has_trigger(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger
