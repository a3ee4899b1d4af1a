"""Which images a run learns from, which it is measured on, and with what words. No torch here."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from studio.datasets import Item, open_dataset
from studio.datasets.buckets import Frame
from studio.datasets.captions import with_trigger
from studio.datasets.syntax import caption_syntax
from studio.errors import DatasetError
from studio.text import pluralize
from studio.training.config import RunConfig
from studio.training.config_sections import DataConfig
from studio.training.made_of import ImageRecord, short

MOST_HELD_OUT = 64  # of a share; a validation must stay short
ORDERS = 8  # how many orders of its tags a caption is encoded in, when they are shuffled


def is_too_small(width: int, height: int, frame: Frame, data: DataConfig) -> bool:
    """Whether an image of this size is left out: its bucket has more pixels a side, and enlarging is off."""
    return not data.upscale and (width < frame.size[0] or height < frame.size[1])


@dataclass(frozen=True)
class Selection:
    """items to train on, regularization images, held-out images to measure on, and what a person should know.

    accounts: a line for each folder that says what became of all its files
    """

    items: list[Item]
    regularization: list[Item]
    held_out: list[Item]
    warnings: list[str]
    accounts: list[str] = field(default_factory=list)


def split(
    config: RunConfig, digest: Callable[[Item], str] | None = None, record: ImageRecord | None = None
) -> Selection:
    """Read the run's folders and choose what is held out. Raises DatasetError.

    digest  gives the SHA-256 of an image's file, raises OSError or DatasetError. With it, no image that is trained on
            is held out as well, under whichever name; without it, names alone decide
    record  what the run has trained on and held out before: a trained image never becomes a held-out one, and what was
            held out stays so
    """
    warnings: list[str] = []
    accounts: list[str] = []

    def read(folder: str) -> list[Item]:
        dataset = open_dataset(Path(folder))
        accounts.append(f"{dataset.name}: {dataset.account()}.")
        warnings.extend(f"Left out: {problem}" for problem in dataset.problems)
        warnings.extend(dataset.warnings)
        warnings.extend(caption_syntax(dataset.items))
        return list(dataset.items)

    items, held_out = read(config.data.folder), []
    missing = [item.path.name for item in items if not item.caption.strip()]
    if missing and not config.data.trigger:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        warnings.append(f"No caption: {missing[0]}{more}. Caption them, or set a trigger word.")
    content = _Content(digest)
    if config.data.held_out:
        held_out = read(config.data.held_out)
    elif config.validation.every:
        count = min(MOST_HELD_OUT, int(len(items) * config.validation.fraction))
        held = _held_out_places(items, count, config.training.seed, content, record)
        held_out = [items[i] for i in sorted(held)]
        items = [item for i, item in enumerate(items) if i not in held]
    regularization = read(config.data.regularisation) if config.data.regularisation else []
    if digest and config.validation.every:
        trained = {content.of(item) for item in items + regularization} | (record.trained if record else set())
        also_trained = [item for item in held_out if content.of(item) in trained]
        if also_trained:
            many = pluralize(len(also_trained), "image")
            warnings.append(f"Not held out: {many}, {also_trained[0].file} among them, is or was trained on as well.")
            held_out = [item for item in held_out if item not in also_trained]
            items += [] if config.data.held_out else also_trained
    return Selection(items, regularization, held_out if config.validation.every else [], warnings, accounts)


def _held_out_places(
    items: list[Item], count: int, seed: int, content: "_Content", record: ImageRecord | None
) -> set[int]:
    """Which of the items are held out: those that were, then new ones, `count` in all where there are so many."""
    if record is None:
        return set(random.Random(seed).sample(range(len(items)), count))
    known = [content.of(item) for item in items]
    held = {i for i, one in enumerate(known) if one in record.held_out and one not in record.trained}
    new = [i for i, one in enumerate(known) if one not in record.held_out and one not in record.trained]
    return held | set(random.Random(seed).sample(new, max(0, min(len(new), count - len(held)))))


class _Content:
    """Short hashes of images; the path of one that can't be read, or where nothing hashes."""

    def __init__(self, digest: Callable[[Item], str] | None):
        self._digest = digest

    def of(self, item: Item) -> str:
        try:
            return short(self._digest(item)) if self._digest else str(item.path)
        except (DatasetError, OSError):
            return str(item.path)


def name_of(item: Item, folder: str = "") -> str:
    """What the run calls an image: its name in the dataset; a regularization image's stands behind its folder's name.

    folder: that of the regularization images, "" for the dataset itself.
    """
    return f"{Path(folder).name}/{item.file}" if folder else item.file


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
