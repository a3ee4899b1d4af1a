"""Small copies of images for a grid, made once."""

import hashlib
import io
from pathlib import Path

from studio.datasets.images import open_image
from studio.errors import DatasetError
from studio.workspace import atomic_write


def thumbnail(path: Path, cache_folder: Path, side: int = 192) -> Path:
    """A WebP copy of the image in `cache_folder`, at most `side` pixels wide and high; made again when it changes.

    Raises DatasetError when the image can't be opened.
    """
    try:
        stat = path.stat()
    except OSError as error:
        raise DatasetError(f"{path.name}: the file is gone.") from error
    key = f"{path.resolve()}|{stat.st_mtime_ns}|{stat.st_size}|{side}"
    target = Path(cache_folder) / f"{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.webp"
    if not target.exists():
        image, stream = open_image(path, at_least=side), io.BytesIO()
        image.thumbnail((side, side))
        image.save(stream, "WEBP", quality=88, method=2)
        atomic_write(target, stream.getvalue(), lasting=False)
    return target
