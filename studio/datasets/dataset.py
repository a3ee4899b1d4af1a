"""A dataset in memory: its images, their captions, sizes and masks. `folder` reads one from the disk."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from studio.datasets.captions import read_caption
from studio.datasets.images import open_alpha, open_image
from studio.text import pluralize

KOHYA = re.compile(r"([1-9]\d{0,3})_")  # the repeats in a folder's name: 10 in `10_name`
MASKS = ("-masklabel", "-condlabel")  # OneTrainer's masks and control images, which are no images of the dataset


@dataclass(frozen=True)
class Item:
    """One image and its caption ("" when it has none).

    size         width and height as it is seen, in pixels
    file         its name in the dataset it was read from, "10_cat/a.png"
    shares_stem  another image of the same name without suffix comes first: caption file and mask are that one's
    lines        how many lines of its caption file hold words
    variants     names of more caption files beside it, NAME.1.txt and so on
    """

    path: Path
    caption: str
    size: tuple[int, int] = field(default=(0, 0), compare=False)
    file: str = field(default="", compare=False)
    shares_stem: bool = field(default=False, compare=False)
    lines: int = field(default=0, compare=False)
    variants: tuple[str, ...] = field(default=(), compare=False)

    def load(self, at_least: int = 0) -> Image.Image:
        """Upright RGB, whole or perhaps smaller but no smaller than `at_least` a side. Raises DatasetError."""
        return open_image(self.path, at_least=at_least)

    def caption_now(self) -> str:
        """The caption on the disk, which may be newer than the one read when the dataset was opened."""
        sidecar = None if self.shares_stem else read_caption(self.path)
        return self.caption if sidecar is None else sidecar

    def load_mask(self) -> Image.Image | None:
        """Where to learn, as grey: NAME-masklabel.png beside the image, else its alpha. Raises DatasetError."""
        label = self.mask_file
        return open_image(label).convert("L") if label else open_alpha(self.path)

    @property
    def mask_file(self) -> Path | None:
        """NAME-masklabel.png, as OneTrainer keeps them."""
        file = self.path.with_name(f"{self.path.stem}{MASKS[0]}.png")
        return file if file.is_file() and not self.shares_stem else None

    @property
    def repeats(self) -> int:
        """How often a round shows it, as kohya's folder names say: 10 in `10_name`."""
        found = KOHYA.match(self.path.parent.name)
        return int(found[1]) if found else 1


@dataclass(frozen=True)
class Dataset:
    """items in the order of their names.

    problems   one line for each file that was left out
    warnings   one line for each file that is used otherwise than its owner may think
    unrelated  names of files that have nothing to do with images
    """

    folder: Path
    items: list[Item]
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    unrelated: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name

    def account(self) -> str:
        """Every file of the folder, counted: "24 images, 2 files left out, 1 file of another kind (notes.md)"."""
        return ", ".join(filter(None, (pluralize(len(self.items), "image"), self.account_of_others())))

    def account_of_others(self) -> str:
        """Of `account`, what is no image that is used; "" where there is nothing else."""
        parts = []
        if self.problems:
            parts.append(f"{pluralize(len(self.problems), 'file')} left out")
        if self.unrelated:
            more = ", …" if len(self.unrelated) > 1 else ""
            parts.append(f"{pluralize(len(self.unrelated), 'file')} of another kind ({self.unrelated[0]}{more})")
        return ", ".join(parts)

    def file_of(self, item: Item) -> str:
        """The image's name in the dataset: "a.png", or "10_cat/a.png" when it lies in a folder of it."""
        return str(item.path)[len(str(self.folder)) :].lstrip(os.sep).replace(os.sep, "/")

    def by_file(self) -> dict[str, Item]:
        """{"10_cat/a.png": its item}."""
        return {self.file_of(item): item for item in self.items}
