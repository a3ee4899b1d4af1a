"""The weights of a base as one hash: the same name, "starter" above all, stands for others in another release."""

import functools
import hashlib
from pathlib import Path

from studio.workspace import sha256_of

LARGE = 256 * 1024**2  # bytes; a larger file is sampled, so that no image waits for gigabytes to be read
_PIECES, _PIECE = 256, 65536
_NOT_DRAWN_WITH = ("image_encoder", "safety_checker", "feature_extractor")
SHORT = 10  # digits that a person is shown
STARTER_1 = (
    "647c14fb4f420bd6e26309c5bfbb085e448f981bc6450798f1f2c2185f7132b2"  # of release 0.1, whose files hold no hash
)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, of a large one of its size and 256 pieces of 64 KiB; "" when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return ""
    return sha256_of(path) if stat.st_size <= LARGE else _sampled(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(256)
def _sampled(path: Path, size: int, changed: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as stream:
        for number in range(_PIECES):
            stream.seek(number * (size - _PIECE) // (_PIECES - 1))
            digest.update(stream.read(_PIECE))
    return digest.hexdigest()


def weights_hash(place: Path) -> str:
    """One hash of all weights that a base draws with, wherever its folder (or single file) lies."""
    if place.is_file():
        return file_hash(place)
    digest = hashlib.sha256()
    for file in sorted(place.glob("*/*.safetensors")):
        if file.parent.name not in _NOT_DRAWN_WITH:
            digest.update(f"{file.relative_to(place).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()


def made_elsewhere(what: str, base: str, written: str, place: Path) -> str:
    """A sentence when `what` was made on other weights of the base of this name than those here; else "".

    written: the hash that the file holds; "" in files of release 0.1, which means Starter 1 if the base is the starter.
    """
    written = written or (STARTER_1 if base == "starter" else "")
    now = weights_hash(place)
    if not written or written == now:
        return ""
    if written == STARTER_1:
        remedy = "for the same result choose the folder assets/starter of release 0.1 as the base"
        return f"{what} was made on Starter 1, and this is another starter: {remedy}."
    return (
        f"{what} was made on other weights of {base} ({written[:SHORT]}; here {now[:SHORT]}): choose that version's "
        "folder as the base for the same result."
    )
