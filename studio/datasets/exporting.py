"""Handing a set on: images and captions as new files, for other programs or another machine."""

import io
import json
import shutil
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import ImageColor

from studio.datasets.analysis import Progress
from studio.datasets.dataset import MASKS, Dataset, Item
from studio.datasets.images import has_alpha, open_image
from studio.errors import DatasetError

KINDS = ("sidecars", "metadata.jsonl", "zip")


def export(
    dataset: Dataset,
    target: Path,
    kind: str = "sidecars",
    background: str = "",
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Copy images, captions and masks to `target`; nothing there is ever written over. Returns the target.

    kind        "sidecars": a folder, each caption as `.txt` beside its image; "metadata.jsonl": a folder, the
                captions in one file as Hugging Face's imagefolder has them; "zip": a zip with sidecars
    background  a colour such as "white" or "#808080" that transparent images are laid on, which makes them PNG;
                "": images are copied byte by byte
    progress    told (done, total, name) after each image
    stop        ends it early: what was written until then is taken away again

    It is made under a hidden name beside the target (see `workspace.sweep`) and renamed when it is whole. Raises
    DatasetError when something is in the way, the place can't be written, or it was stopped.
    """
    target = Path(target).expanduser().absolute()
    _check(dataset, target, kind, background)
    aside: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".", suffix=".tmp"))
        if kind == "zip":
            whole = aside / target.name
            with zipfile.ZipFile(whole, "x", zipfile.ZIP_STORED) as archive:
                _write(dataset, "sidecars", background, archive.writestr, progress, stop)
        else:
            whole = aside

            def put(name: str, data: bytes) -> None:
                path = whole / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as stream:
                    stream.write(data)

            _write(dataset, kind, background, put, progress, stop)
            whole.chmod(0o755)
        _check(dataset, target, kind, background)  # something may have come there meanwhile
        if target.exists():
            target.rmdir()  # it is empty, and some systems rename onto nothing that is there
        whole.rename(target)
    except OSError as error:
        raise DatasetError(f"{dataset.name} can't be written to {target} ({error.strerror or error}).") from error
    finally:
        if aside:
            shutil.rmtree(aside, ignore_errors=True)
    return target


def _check(dataset: Dataset, target: Path, kind: str, background: str) -> None:
    if kind not in KINDS:
        raise DatasetError(f"There is no export {kind[:40]!r}: choose {', '.join(KINDS)}.")
    try:
        if background:
            ImageColor.getrgb(background)
        inside = target.resolve().is_relative_to(dataset.folder.resolve())
        taken = (
            target.is_symlink() or target.is_file() or (target.exists() and (kind == "zip" or any(target.iterdir())))
        )
    except ValueError as error:
        raise DatasetError(f"{background[:40]!r} is not a colour: write white or #808080.") from error
    except OSError as error:
        raise DatasetError(f"{target} can't be used ({error.strerror or error}): choose another place.") from error
    if inside:
        raise DatasetError(f"{target.name} lies in the dataset itself: choose a place outside.")
    if taken:
        raise DatasetError(f"{target} is there already and nothing is written over: choose another place.")


def _write(
    dataset: Dataset,
    kind: str,
    background: str,
    put: Callable[[str, bytes], object],
    progress: Progress | None,
    stop: threading.Event | None,
) -> None:
    table = []
    names: set[str] = set()
    for done, (file, item) in enumerate(dataset.by_file().items(), 1):
        if stop is not None and stop.is_set():
            raise DatasetError("The export was stopped, nothing was kept of it.")
        name, data = _image(file, item, background)
        path, count = PurePosixPath(name), 1
        while {name, str(PurePosixPath(name).with_suffix(".txt"))} & names:  # two of one stem would share a caption
            count += 1
            name = str(path.with_stem(f"{path.stem}-{count}"))
        put(name, data)
        sidecar = str(PurePosixPath(name).with_suffix(".txt"))
        mask, mask_name = (
            item.mask_file,
            str(PurePosixPath(name).with_name(f"{PurePosixPath(name).stem}{MASKS[0]}.png")),
        )
        if kind == "sidecars" and item.caption:
            put(sidecar, f"{item.caption}\n".encode())
        if mask is not None and mask.resolve().is_relative_to(dataset.folder):
            put(mask_name, mask.read_bytes())
        names |= {name, sidecar, mask_name}
        table.append({"file_name": name, "text": item.caption})
        if progress:
            progress(done, len(dataset.items), file)
    if kind == "metadata.jsonl":
        put(kind, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode())


def _image(file: str, item: Item, background: str) -> tuple[str, bytes]:
    """(name, content) of what goes out."""
    try:
        if not (background and has_alpha(item.path)):
            return file, item.path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: the file is gone, open the dataset again.") from error
    stream = io.BytesIO()
    open_image(item.path, background=background).save(stream, "PNG")
    return str(PurePosixPath(file).with_suffix(".png")), stream.getvalue()
