"""A dataset is a folder: pictures, and beside each its caption as `.txt`."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from studio.datasets.captions import TABLE, read_caption, read_table
from studio.datasets.pictures import SUFFIXES, format_of, open_alpha, open_picture
from studio.errors import DatasetError

MASKS = ("-masklabel", "-condlabel")  # OneTrainer's masks are no pictures of their own


@dataclass(frozen=True)
class Item:
    """One picture and its caption ("" when it has none)."""

    path: Path
    caption: str

    def load(self, at_least: int = 0) -> Image.Image:
        """Upright RGB, whole or perhaps smaller but no smaller than `at_least` a side. Raises DatasetError."""
        return open_picture(self.path, at_least=at_least)

    def load_mask(self) -> Image.Image | None:
        """Where to learn, as grey: NAME-masklabel.png beside the picture, else its alpha. Raises DatasetError."""
        label = self.mask_file
        return open_picture(label).convert("L") if label else open_alpha(self.path)

    @property
    def mask_file(self) -> Path | None:
        """NAME-masklabel.png, as OneTrainer keeps them."""
        file = self.path.with_name(f"{self.path.stem}{MASKS[0]}.png")
        return file if file.is_file() else None

    @property
    def repeats(self) -> int:
        """How often a round shows it, as kohya's folder names say: 10 in `10_name`."""
        found = re.match(r"([1-9]\d{0,3})_", self.path.parent.name)
        return int(found[1]) if found else 1


@dataclass(frozen=True)
class Dataset:
    """items in the order of their names; problems: one line for each file that was left out."""

    folder: Path
    items: list[Item]
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.folder.name


def open_dataset(folder: Path) -> Dataset:
    """Read a folder and the folders in it. Raises DatasetError when there is no picture."""
    folder = _existing(folder)
    tables: dict[Path, dict[str, str]] = {}
    items, problems = [], []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem.endswith(MASKS) or path.is_dir():
            continue
        if not path.is_file():
            problems.append(f"{path.name}: not a file that can be read.")
            continue
        if not path.resolve().is_relative_to(folder):
            problems.append(f"{path.name}: a link to another folder, copy the picture here instead.")
            continue
        try:
            format_of(path)
        except DatasetError as error:
            problems.append(str(error))
            continue
        caption = read_caption(path)
        items.append(Item(path, _from_tables(folder, path, tables) if caption is None else caption))
    if not items:
        more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
        what = f"{problems[0].rstrip('.')}{more}" if problems else "put some in, as JPEG, PNG or WebP"
        raise DatasetError(f"No pictures in {folder.name}: {what}.")
    return Dataset(folder, items, problems)


def _existing(folder: Path) -> Path:
    try:
        found = Path(folder).expanduser().resolve()
        if found.is_dir():
            return found
    except (OSError, ValueError, RuntimeError):  # a name that no folder can have, or a home that is unknown
        pass
    raise DatasetError(f"There is no folder {Path(folder).name[:60]!r}: choose a folder of pictures.")


def _from_tables(root: Path, path: Path, tables: dict[Path, dict[str, str]]) -> str:
    """The picture's caption in the metadata.jsonl of its folder or of one above, up to the root; each read once."""
    for folder in path.parents:
        if folder not in tables:
            try:
                tables[folder] = read_table((folder / TABLE).read_bytes())
            except OSError:
                tables[folder] = {}
        caption = tables[folder].get(path.relative_to(folder).as_posix())
        if caption is not None:
            return caption
        if folder == root:
            break
    return ""
