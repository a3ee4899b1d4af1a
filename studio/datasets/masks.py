"""Masks for masked training: white where an image is learned from, written as NAME-masklabel.png and undoable."""

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image

from studio.datasets.dataset import MASKS, Dataset, Item
from studio.datasets.history import Change, change_masks
from studio.datasets.images import open_image, size_of
from studio.datasets.mask_files import keep, keep_present
from studio.datasets.phrases import PERSON
from studio.errors import DatasetError

OTHER_SHAPE = 0.03  # how much the aspect of a mask may differ from its image's: rounding of a small copy, no more
UNSEEN = 0.8  # share of its light that a preview takes from what does not count at all
_STROKE = 8  # of 255: less is a rounding of the browser's, not paint
Size = tuple[int, int]


def write_masks(
    dataset: Dataset,
    masks: Mapping[str, Image.Image | None],
    label: str,
    author: str = PERSON,
    batch: str = "",
) -> Change:
    """Give images their masks, {file: grey PIL image, or None for no mask}, as one undoable change.

    A mask is brought to its image's size; one without any white is as good as None, since nothing would be learned.
    author, batch: see `history.write_captions`. Raises DatasetError when a file is not in the dataset or the folder
    can't be written.
    """
    items = dataset.by_file()
    for file in masks:
        if file not in items:
            raise DatasetError(f"There is no image called {file[:60]!r} in {dataset.name}: open the dataset again.")

    def plan() -> tuple[dict[str, tuple[str, str]], list[str]]:
        changes, left = {}, []
        for file, mask in masks.items():
            try:
                found = _change(dataset.folder, items[file], file, mask)
            except DatasetError as error:
                left.append(str(error))
                continue
            if found[0] != found[1]:
                changes[file] = found
        return changes, left

    return change_masks(dataset, plan, label, author, batch)


def _change(folder: Path, item: Item, file: str, mask: Image.Image | None) -> tuple[str, str]:
    """(name of the mask now, of the one to come); both are in the store. Raises DatasetError."""
    if item.shares_stem:
        raise DatasetError(f"{file}: its mask would be another image's of the same name, rename it.")
    if not item.path.is_file():
        raise DatasetError(f"{file}: the image is gone.")
    new = "" if mask is None or mask.getbbox() is None else keep(folder, as_png(mask, size_of(item.path)))
    return keep_present(folder, file), new


def as_png(mask: Image.Image, size: Size) -> bytes:
    """A grey mask of this size as a PNG file."""
    grey = mask if mask.mode == "L" else mask.convert("L")
    if grey.size != size:
        grey = grey.resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    grey.save(stream, "PNG", optimize=grey.width * grey.height < 4_000_000)
    return stream.getvalue()


def open_mask(source: Path | bytes, name: str, image: Size) -> Image.Image:
    """A mask from anywhere, grey, for an image of this size; what is transparent counts as black.

    Raises DatasetError where it can't be read, is too large to open safely or is of another shape than the image.
    """
    mask = open_image(source, name, background="black").convert("L")
    if has_other_shape(mask.size, image):
        sizes = f"{mask.width} × {mask.height}, the image {image[0]} × {image[1]}"
        raise DatasetError(f"{name}: the mask has another shape than its image ({sizes}): make it anew.")
    return mask


def has_other_shape(mask: Size, image: Size) -> bool:
    """Whether a mask can't be meant for an image of this size: it would be stretched over it."""
    ratio = mask[0] * image[1] / max(1, mask[1] * image[0])
    return abs(ratio - 1) > OTHER_SHAPE + 1 / max(1, min(mask))


def image_of(mask_name: str) -> str:
    """The stem of the image that a mask's file is for: "a" of "a-masklabel.png" and of "a.png"."""
    return Path(mask_name).stem.removesuffix(MASKS[0])


def mask_now(item: Item) -> Image.Image | None:
    """What training reads as the mask, grey; None where all of the image counts, or it can't be read."""
    with suppress(DatasetError):
        return item.load_mask()
    return None


def painted_over(item: Item, painted: Image.Image) -> Image.Image:
    """The mask after a person painted on a small copy of it: where nothing was painted, it stays as fine as it was.

    painted: grey, the whole mask as the person sees it now. Raises DatasetError.
    """
    size, before = size_of(item.path), mask_now(item)
    new = painted.convert("L")
    if before is None or before.size == new.size:
        return new
    small = before.resize(new.size, Image.Resampling.BILINEAR)
    touched = abs(np.asarray(small, np.int16) - np.asarray(new, np.int16)) > _STROKE
    where = Image.fromarray(touched.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
    return Image.composite(new.resize(size, Image.Resampling.BILINEAR), before.resize(size), where)


def as_trained(image: Image.Image, mask: Image.Image | None, outside: float = 0.0) -> Image.Image:
    """The RGB image as masked training weighs it: what counts less is darker. outside: `data.outside`."""
    if mask is None:
        return image
    weight = np.asarray(mask.resize(image.size, Image.Resampling.BILINEAR), np.float32)[..., None] / 255
    light = 1 - UNSEEN * (1 - (outside + (1 - outside) * weight))
    return Image.fromarray((np.asarray(image.convert("RGB"), np.float32) * light).round().astype(np.uint8))


def mask_stamp(item: Item) -> str:
    """Another text whenever the mask's file is another one: for what is kept of it."""
    file = item.mask_file
    try:
        stat = file.stat() if file else None
    except OSError:
        stat = None
    return f"{stat.st_mtime_ns} {stat.st_size}" if stat else "no file"
