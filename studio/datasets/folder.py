"""A dataset is a folder: pictures, and beside each its caption as `.txt`."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from studio.datasets.pictures import SUFFIXES, looks_like_picture, open_picture
from studio.errors import DatasetError
from studio.workspace import write_whole

CAPTION_SUFFIXES = (".txt", ".caption")
_MASKS = ("-masklabel", "-condlabel")  # OneTrainer's masks are no pictures of their own
_MAX_CAPTION_BYTES = 100_000


@dataclass(frozen=True)
class Item:
    """One picture and its caption ("" when it has none)."""

    path: Path
    caption: str

    def load(self) -> Image.Image:
        """Upright RGB. Raises DatasetError."""
        return open_picture(self.path)


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
    folder = Path(folder).expanduser().resolve()
    if not folder.is_dir():
        raise DatasetError(f"There is no folder {folder.name!r}: choose a folder of pictures.")
    table = _metadata(folder)
    items, problems = [], []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts) or path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem.endswith(_MASKS) or not path.is_file() or not path.resolve().is_relative_to(folder):
            continue
        try:
            looks_like_picture(path)
        except DatasetError as error:
            problems.append(str(error))
            continue
        caption = _sidecar(path)
        items.append(Item(path, table.get(inside.as_posix(), "") if caption is None else caption))
    if not items:
        what = f" ({problems[0]})" if problems else ": put some in, as JPEG, PNG or WebP"
        raise DatasetError(f"No pictures in {folder.name}{what}.".replace("..", "."))
    return Dataset(folder, items, problems)


def set_caption(path: Path, caption: str) -> None:
    """Write the caption as one line of UTF-8 into the picture's `.txt`; an empty one removes the sidecars."""
    text = " ".join(caption.split())
    sidecar = path.with_suffix(".txt")
    if text:
        write_whole(sidecar, text + "\n")
        return
    for suffix in CAPTION_SUFFIXES:
        path.with_suffix(suffix).unlink(missing_ok=True)


def _sidecar(path: Path) -> str | None:
    for suffix in CAPTION_SUFFIXES:
        try:
            data = path.with_suffix(suffix).read_bytes()[:_MAX_CAPTION_BYTES]
        except OSError:
            continue
        for encoding in ("utf-8-sig", "cp1252"):  # Windows' Notepad wrote many of them
            try:
                return " ".join(data.decode(encoding).split())
            except UnicodeDecodeError:
                continue
        return " ".join(data.decode("utf-8", errors="replace").split())
    return None


def _metadata(folder: Path) -> dict[str, str]:
    """{file: caption} of an imagefolder's metadata.jsonl; bad lines are passed over."""
    out = {}
    try:
        lines = (folder / "metadata.jsonl").read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in lines:
        try:
            row = json.loads(line)
            text = next(row[key] for key in ("text", "caption", "prompt") if isinstance(row.get(key), str))
            out[str(row["file_name"])] = " ".join(text.split())
        except (ValueError, KeyError, AttributeError, StopIteration, RecursionError):
            continue
    return out
