"""The masks' files: NAME-masklabel.png beside its image, and every mask there ever was in `.studio/masks`, by content.

A mask is named by the SHA-256 of its file; "" is no mask. So the history holds names only, and undo puts back the very
bytes that were there.
"""

import hashlib
import os
import re
from pathlib import Path

from studio.datasets.dataset import MASKS
from studio.datasets.meta_dir import META_DIR, meta_folder, unwritable, within
from studio.errors import DatasetError
from studio.workspace import atomic_write

MAX_BYTES = 50_000_000  # of one mask; of 89 megapixels in grey it has a few
_NAME = re.compile(r"[0-9a-f]{64}")


def is_mask_name(value: object) -> bool:
    """Whether this is the SHA-256 of a mask, or "" for none."""
    return isinstance(value, str) and (value == "" or _NAME.fullmatch(value) is not None)


def mask_path(image: Path) -> Path:
    """Where the mask of an image lies, as OneTrainer keeps them."""
    return image.with_name(f"{image.stem}{MASKS[0]}.png")


def keep(folder: Path, data: bytes) -> str:
    """Put a mask's file into the store; returns its name there. Raises DatasetError when it can't be written."""
    name = hashlib.sha256(data).hexdigest()
    place = meta_folder(folder, make=True) / "masks" / f"{name}.png"
    try:
        if not place.is_file():
            atomic_write(place, data)
    except OSError as error:
        raise unwritable(folder, error) from error
    return name


def present(folder: Path, file: str) -> tuple[str, bytes]:
    """(name, bytes) of the mask that the image `file` has now; ("", b"") for none.

    Raises DatasetError when it leads out of the dataset, is too large or can't be read.
    """
    path = mask_path(within(folder, file))
    if not os.path.lexists(path):
        return "", b""
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DatasetError(f"{path.name}: a link to another folder, copy the mask here instead.")
        if path.stat().st_size > MAX_BYTES:
            raise DatasetError(f"{path.name}: larger than {MAX_BYTES // 10**6} MB, which no mask is.")
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path.name}: it can't be read ({error.strerror or error}).") from error
    return hashlib.sha256(data).hexdigest(), data


def keep_present(folder: Path, file: str) -> str:
    """The name of the mask that the image has now, which is in the store afterwards. Raises DatasetError."""
    name, data = present(folder, file)
    return keep(folder, data) if name else ""


def bring(folder: Path, file: str, before: str, after: str, again: bool) -> list[str]:
    """Give an image the mask `after` from the store. again: it may have it already. A line where that can't be done."""
    try:
        path = within(folder, file)
        now = present(folder, file)[0]
        if now == after:
            return []
        if again and now != before:
            return [f"{file}: its mask was changed by something else, it is left as it is."]
        data = _stored(folder, after) if after else b""
    except DatasetError as error:
        return [str(error)]
    if not path.is_file():
        return [f"{file}: the image is gone."]
    try:
        if after:
            atomic_write(mask_path(path), data)
        else:
            mask_path(path).unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(folder, error) from error
    return []


def _stored(folder: Path, name: str) -> bytes:
    """A mask of the store, checked. Raises DatasetError."""
    place = within(folder, f"{META_DIR}/masks/{name}.png")
    try:
        if place.is_file() and not place.is_symlink() and place.stat().st_size <= MAX_BYTES:
            data = place.read_bytes()
            if hashlib.sha256(data).hexdigest() == name:
                return data
    except OSError:
        pass
    raise DatasetError(f"An earlier mask is gone from {folder.name}/{META_DIR}/masks, or damaged.")
