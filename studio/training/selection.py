"""Which images a run learns from, which it is measured on, and with what words. No torch here."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from studio.datasets import Item, open_dataset
from studio.datasets.buckets import Frame, frame_of
from studio.datasets.syntax import caption_syntax
from studio.errors import DatasetError
from studio.text import pluralize
from studio.training.config import RunConfig
from studio.training.config_sections import DataConfig
from studio.training.folders import DatasetFolder, labels_of, parsed
from studio.training.made_of import ImageRecord, short

MOST_HELD_OUT = 64  # of a share; a validation must stay short


def is_too_small(width: int, height: int, frame: Frame, data: DataConfig) -> bool:
    """Whether an image of this size is left out: its bucket has more pixels a side, and enlarging is off."""
    return not data.upscale and (width < frame.size[0] or height < frame.size[1])


def frames_of(width: int, height: int, data: DataConfig, resolution: int, multiple: int) -> list[Frame]:
    """How an image is trained at each resolution of the run: once where two of them come to the same.

    resolution, multiple: the base's. One that is too small for a resolution has the largest bucket that it fills, or
    none where it fills none; the first is that of `data.resolution`.
    """
    found: list[Frame] = []
    for side in (data.resolution or resolution, *data.more_resolutions):
        step = max(multiple, 64 if side >= 512 else 0)
        frame = frame_of(width, height, side, step, data.buckets, data.upscale)
        if not found or (frame not in found and not is_too_small(width, height, frame, data)):
            found.append(frame)
    return found


@dataclass(frozen=True)
class Source:
    """One of the run's own dataset folders. label: a short name, that of the folder where no other has the same."""

    place: Path
    label: str
    line: DatasetFolder
    data: DataConfig  # as its images follow it


@dataclass(frozen=True)
class Selection:
    """items to train on, regularization images, held-out images to measure on, and what a person should know.

    accounts: a line for each folder that says what became of all its files
    sources: the run's own folders; by_path: which of them an image is of
    """

    items: list[Item]
    regularization: list[Item]
    held_out: list[Item]
    warnings: list[str]
    accounts: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    by_path: dict[Path, Source] = field(default_factory=dict)

    def source_of(self, item: Item) -> Source | None:
        """None for regularization images, and for those of a validation folder."""
        return self.by_path.get(item.path)

    def data_of(self, item: Item, data: DataConfig) -> DataConfig:
        """The section as this image follows it."""
        source = self.by_path.get(item.path)
        return source.data if source else data


def sources_of(data: DataConfig) -> list[Source]:
    """The run's own folders, `data.folder` first. Raises DatasetError where one lies in another."""
    lines = {place_of(line.folder): line for line in parsed(data.folders)}
    if len(lines) < len(parsed(data.folders)):
        raise DatasetError("In data.folders, two lines name the same folder: keep one of them.")
    main = place_of(data.folder)
    places = [main, *(place for place in lines if place != main)]
    for place in places:
        inside = next((one for one in places if one != place and one.is_relative_to(place)), None)
        if inside:
            raise DatasetError(
                f"{inside.name} lies in {place.name}, so its images would count twice: name folders beside each other."
            )
    known = [lines.get(place, DatasetFolder(str(place))) for place in places]
    return [
        Source(place, label, line, line.settings(data)) for place, label, line in zip(places, labels_of(places), known)
    ]


def place_of(folder: str) -> Path:
    """Where a folder of a setting lies; as it is written where no folder can have this name."""
    try:
        return Path(folder).expanduser().resolve()
    except (OSError, ValueError, RuntimeError):
        return Path(folder)


def split(
    config: RunConfig, digest: Callable[[Item], str] | None = None, record: ImageRecord | None = None
) -> Selection:
    """Read the run's folders and choose what is held out. Raises DatasetError.

    digest  gives the SHA-256 of an image's file, raises OSError or DatasetError. With it, no image that is trained on
            is held out as well, under whichever name; without it, names alone decide
    record  what the run has trained on and held out before: a trained image never becomes a held-out one, and what was
            held out stays so
    """
    if config.slider.positive and config.slider.images:  # the base draws them when the run begins
        return Selection([], [], [], [], ["A slider: the base draws the images that it is trained on."])
    data, warnings, accounts = config.data, list[str](), list[str]()
    sources, by_path, items = sources_of(data), dict[Path, Source](), list[Item]()

    def read(folder: Path) -> list[Item]:
        dataset = open_dataset(folder)
        accounts.append(f"{dataset.name}: {dataset.account()}.")
        warnings.extend(f"Left out: {problem}" for problem in dataset.problems)
        warnings.extend(dataset.warnings)
        warnings.extend(caption_syntax(dataset.items, data.wildcards, data.keep_tags_separator))
        warnings.extend(_about_variants(dataset.items, data))
        return list(dataset.items)

    for source in sources:
        found = read(source.place)
        if source is not sources[0]:  # names of images are told apart by their folder's
            found = [replace(item, file=f"{source.label}/{item.file}") for item in found]
        if source.line.caption:
            found = [item if item.caption.strip() else replace(item, caption=source.line.caption) for item in found]
        by_path |= {item.path: source for item in found}
        items += found
    warnings += _about_missing(items, by_path)
    content, held_out = _Content(digest), list[Item]()
    if data.held_out:
        held_out = read(Path(data.held_out))
    elif config.validation.every:
        count = min(MOST_HELD_OUT, int(len(items) * config.validation.fraction))
        held = _held_out_of_each(items, by_path, sources, count, config.training.seed, content, record)
        held_out = [items[i] for i in sorted(held)]
        items = [item for i, item in enumerate(items) if i not in held]
    regularization = read(Path(data.regularisation)) if data.regularisation else []
    if digest and config.validation.every:
        trained = {content.of(item) for item in items + regularization} | (record.trained if record else set())
        also_trained = [item for item in held_out if content.of(item) in trained]
        if also_trained:
            many = pluralize(len(also_trained), "image")
            warnings.append(f"Not held out: {many}, {also_trained[0].file} among them, is or was trained on as well.")
            held_out = [item for item in held_out if item not in also_trained]
            items += [] if data.held_out else also_trained
    shown = held_out if config.validation.every else []
    return Selection(items, regularization, shown, warnings, accounts, sources, by_path)


def _about_missing(items: list[Item], by_path: dict[Path, Source]) -> list[str]:
    missing = [item.path.name for item in items if not item.caption.strip() and not by_path[item.path].data.trigger]
    if not missing:
        return []
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    return [f"No caption: {missing[0]}{more}. Caption them, or set a trigger word."]


def _about_variants(items: list[Item], data: DataConfig) -> list[str]:
    """A line on further caption files that are not read, or are wanted and not there."""
    having = [item for item in items if item.variants]
    if having and not data.caption_variants:
        count = sum(len(item.variants) for item in having)
        return [
            f"{pluralize(count, 'further caption file')}, {having[0].variants[0]} among them, not read: set "
            "data.caption_variants to true."
        ]
    return []


def _held_out_of_each(
    items: list[Item],
    by_path: dict[Path, Source],
    sources: list[Source],
    count: int,
    seed: int,
    content: "_Content",
    record: ImageRecord | None,
) -> set[int]:
    """Which of the items are held out, from each folder by its number of images."""
    if len(sources) == 1:
        return _held_out_places(items, count, seed, content, record)
    groups = [[i for i, item in enumerate(items) if by_path[item.path] is source] for source in sources]
    exact = [count * len(group) / len(items) for group in groups]
    counts = [int(one) for one in exact]
    for place in sorted(range(len(groups)), key=lambda n: counts[n] - exact[n])[: count - sum(counts)]:
        counts[place] += 1  # the largest remainders
    held: set[int] = set()
    for number, (group, some) in enumerate(zip(groups, counts)):
        found = _held_out_places([items[i] for i in group], some, seed + number, content, record)
        held |= {group[i] for i in found}
    return held


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
