"""What a run's own folders come to: how many images each has, its share of the samples, how often each is shown."""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.text import pluralize
from studio.training.config_sections import DataConfig
from studio.training.selection import Selection
from studio.training.shares import places_of


@dataclass(frozen=True)
class FolderRow:
    """Of one folder: its label, the images that are trained on, those held out, what of all samples are of it (0 to 1),
    how often each of its images is shown an epoch on average, and its trigger.
    """

    folder: str
    images: int
    held_out: int
    share: float
    shown: float
    trigger: str


def folder_rows(chosen: Selection, data: DataConfig) -> list[FolderRow]:
    """A row for each of the run's own folders, `data.folder` first. An epoch has as many samples as there are images,
    each with its repeats.
    """
    known = [(item, chosen.data_of(item, data), chosen.source_of(item)) for item in chosen.items]
    repeats = [item.repeats * own.repeats for item, own, _ in known]
    labels = [source.label if source else "" for _, _, source in known]
    weights = [source.line.weight if source else None for _, _, source in known]
    places = places_of(repeats, [1] * len(known), labels, weights)
    rows = []
    for source in chosen.sources:
        mine = [place for place, label in zip(places, labels) if label == source.label]
        share = sum(mine) / max(1, sum(places))
        held_out = sum(chosen.source_of(item) is source for item in chosen.held_out)
        shown = share * sum(repeats) / len(mine) if mine else 0.0
        rows.append(FolderRow(source.label, len(mine), held_out, share, shown, source.data.trigger))
    return rows


def about_folders(rows: Sequence[FolderRow], epochs: float) -> list[str]:
    """A line for each folder where there are several. epochs: of the run."""
    if len(rows) < 2:
        return []
    return [
        f"{row.folder}: {pluralize(row.images, 'image')}, {row.share:.1%} of the samples, each image shown "
        f"{row.shown:.3g} times an epoch, {row.shown * epochs:.3g} times in all."
        for row in rows
    ]
