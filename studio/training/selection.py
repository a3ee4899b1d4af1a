"""Which pictures a run learns from, which it is measured on, and with what words. No torch here."""

import random
from dataclasses import dataclass
from pathlib import Path

from studio.datasets import Item, open_dataset
from studio.datasets.captions import with_trigger
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
    """Read the run's folders. Raises DatasetError."""
    warnings: list[str] = []

    def read(folder: str) -> list[Item]:
        dataset = open_dataset(Path(folder))
        warnings.extend(f"Left out: {problem}" for problem in dataset.problems)
        return list(dataset.items)

    items, held_out = read(config.data.folder), []
    missing = [item.path.name for item in items if not item.caption.strip()]
    if missing and not config.data.trigger:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"No caption: {missing[0]}{more}. Caption them, or set a trigger word.")
    if config.data.held_out:
        held_out = read(config.data.held_out)
    elif config.validation.every:
        count = min(MOST_HELD_OUT, int(len(items) * config.validation.fraction))
        held = set(random.Random(config.training.seed).sample(range(len(items)), count))
        held_out = [items[i] for i in sorted(held)]
        items = [item for i, item in enumerate(items) if i not in held]
    ordinary = read(config.data.regularisation) if config.data.regularisation else []
    return Selection(items, ordinary, held_out if config.validation.every else [], warnings)


def name_of(item: Item, ordinary: str = "") -> str:
    """What the run calls a picture: its name in the dataset, and that of an ordinary one behind its folder's name.

    ordinary: the folder of ordinary pictures that it is from, "" for the dataset itself.
    """
    return f"{Path(ordinary).name}/{item.file}" if ordinary else item.file


def caption_of(item: Item, trigger: str) -> str:
    """The caption as trained on: with the trigger in front where it lacks it."""
    return with_trigger(item.caption.strip(), trigger)


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
