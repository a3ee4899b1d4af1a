"""Which pictures a run learns from, which it is measured on, and with what words. No torch here."""

import random
from dataclasses import dataclass
from pathlib import Path

from studio.datasets import Item, has_trigger, open_dataset
from studio.errors import RunError
from studio.training.config import RunConfig

MOST_HELD_OUT = 64  # of a share; a look at them must stay short
ORDERS = 8  # how many orders of its tags a caption is encoded in, when they are shuffled


@dataclass(frozen=True)
class Selection:
    """items to learn from, ordinary ones to stay near, held-out ones to measure on, and what a person should know."""

    items: list[Item]
    ordinary: list[Item]
    held_out: list[Item]
    warnings: list[str]


def split(config: RunConfig) -> Selection:
    """Read the run's folders. Raises DatasetError, RunError."""
    dataset = open_dataset(Path(config.data.folder))
    warnings = [f"Left out: {problem}" for problem in dataset.problems]
    items, held_out = list(dataset.items), []
    missing = [item.path.name for item in items if not item.caption.strip()]
    if missing and not config.data.trigger:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"No caption: {missing[0]}{more}. Caption them, or set a trigger word.")
    if config.data.held_out:
        held_out = list(open_dataset(Path(config.data.held_out)).items)
    elif config.validation.every:
        count = min(MOST_HELD_OUT, int(len(items) * config.validation.fraction))
        if count >= len(items):
            raise RunError("There are too few pictures to hold some out: set validation.fraction to 0.")
        held = set(random.Random(config.training.seed).sample(range(len(items)), count))
        held_out = [items[i] for i in sorted(held)]
        items = [item for i, item in enumerate(items) if i not in held]
    ordinary = list(open_dataset(Path(config.data.regularisation)).items) if config.data.regularisation else []
    return Selection(items, ordinary, held_out if config.validation.every else [], warnings)


def caption_of(item: Item, trigger: str) -> str:
    """The caption as trained on: with the trigger in front where it lacks it."""
    caption = item.caption.strip()
    if not trigger or has_trigger(caption, trigger):
        return caption
    return f"{trigger}, {caption}" if caption else trigger


def orders_of(caption: str, keep: int, seed: int) -> list[str]:
    """The caption with its tags in ORDERS orders, the first `keep` ones staying; once when there is nothing to move."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    if len(tags) - keep < 2:
        return [caption]
    first, rest, out = tags[:keep], tags[keep:], []
    for number in range(ORDERS):
        moved = list(rest)
        random.Random(f"{seed} {number} {caption}").shuffle(moved)
        out.append(", ".join(first + moved))
    return list(dict.fromkeys(out))
