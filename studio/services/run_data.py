"""What a run's data comes to: its folders, and its images and captions as the trainer will see them."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from studio.errors import DatasetError
from studio.services import base_models
from studio.services.operations import operation
from studio.services.parameters import DatasetName, Table
from studio.services.runs import config_of
from studio.workspace import Workspace, sha256_of

if TYPE_CHECKING:
    from studio.datasets import Frame, Item
    from studio.training.augmenting import Augmented
    from studio.training.config_sections import DataConfig
    from studio.training.folder_table import FolderRow

_MORE = 'Settings of a run, such as {"data.folders": ["pixel weight=2 trigger=pxl"]}.'


@operation()
def folder_table(
    workspace: Workspace,
    dataset: DatasetName = "",
    more: Annotated[Table | None, Field(description=_MORE)] = None,
) -> "list[FolderRow]":
    """Of each dataset folder of a run: its images, its share of the samples, how often each is shown an epoch."""
    from studio.training.folder_table import folder_rows
    from studio.training.selection import split

    config = config_of(workspace, {**(more or {}), "dataset": dataset})
    return folder_rows(split(config), config.data)


@dataclass(frozen=True)
class Crop:
    """An image as the trainer will see it at one of its sizes. frame: what is kept of it; data: as it follows it."""

    item: "Item"
    width: int
    height: int
    frame: "Frame"
    data: "DataConfig"
    seed: int

    def variants(self) -> "tuple[Augmented, ...]":
        """What augmentation makes of it; () where nothing augments. Reads the file, for its hash. Raises OSError."""
        from studio.training.augmenting import augments, variants_of

        if not augments(self.data):
            return ()
        return variants_of(self.frame, (self.width, self.height), self.data, self.seed, sha256_of(self.item.path))

    def captions(self) -> tuple[str, ...]:
        """The captions that a batch draws from."""
        from studio.training.caption_variants import captions_of

        return captions_of(self.item, self.data, self.seed)


def crops_of(workspace: Workspace, dataset: str, values: dict[str, Any]) -> tuple[list[Crop], Counter[tuple[int, int]]]:
    """(every image with its frame, in each of its sizes; how many are in each bucket). Reads headers only."""
    from studio.datasets import open_dataset, size_of
    from studio.training.selection import frames_of, is_too_small, sources_of

    config = config_of(workspace, {"dataset": dataset} | values)
    card = base_models.inspect_base(config.base)
    crops = []
    for source in sources_of(config.data):
        for item in open_dataset(Path(source.place)).items:
            try:
                width, height = size_of(item.path)
            except DatasetError:
                continue  # the Dataset tab says what is wrong with it
            frames = frames_of(width, height, config.data, card.resolution, card.multiple)
            if is_too_small(width, height, frames[0], config.data):
                continue  # left out of training; the check of a run names it
            crops += [Crop(item, width, height, frame, source.data, config.training.seed) for frame in frames]
    return crops, Counter(crop.frame.size for crop in crops)
