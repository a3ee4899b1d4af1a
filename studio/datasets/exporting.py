"""Export of a dataset: images and captions as new files, for other programs or another machine."""

import io
import json
import shutil
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from PIL import ImageColor

from studio.datasets.analysis import Progress
from studio.datasets.captions import text_lines
from studio.datasets.dataset import MASKS, Dataset, Item
from studio.datasets.images import has_alpha, open_image
from studio.errors import DatasetError
from studio.workspace import temporary_in

KINDS = ("sidecars", "metadata.jsonl", "zip")


def export(
    dataset: Dataset,
    target: Path,
    kind: str = "sidecars",
    background: str = "",
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Copy images, captions and masks to `target` and return it. Existing files are never overwritten.

    kind        "sidecars": a folder, each caption as `.txt` beside its image; "metadata.jsonl": a folder, the
                captions in one file as Hugging Face's imagefolder has them; "zip": a zip with sidecars
    background  a colour such as "white" or "#808080" behind transparent images, which become PNG;
                "": images are copied byte by byte
    progress    called with (done, total, name) after each image
    stop        ends it early: what was written until then is deleted

    The files are written under a hidden name beside the target (see `workspace.sweep`), which is renamed when all are
    there. Raises DatasetError when the target exists, the place can't be written, or it was stopped.
    """
    target = Path(target).expanduser().absolute()
    _check(dataset, target, kind, background)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_in(target.parent)
        if kind == "zip":
            made = temporary / target.name
            with zipfile.ZipFile(made, "x", zipfile.ZIP_STORED) as archive:
                _write(dataset, "sidecars", background, archive.writestr, progress, stop)
        else:
            made = temporary

            def put(name: str, data: bytes) -> None:
                path = made / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with open(path, "xb") as stream:
                    stream.write(data)

            _write(dataset, kind, background, put, progress, stop)
        _check(dataset, target, kind, background)  # the target may exist by now
        if target.exists():
            target.rmdir()  # it is empty, and some systems can't rename onto a folder
        made.rename(target)
    except OSError as error:
        raise DatasetError(f"{dataset.name} can't be written to {target} ({error.strerror or error}).") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
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
        raise DatasetError(f"{target.name} is inside the dataset: choose a place outside.")
    if taken:
        raise DatasetError(f"{target} already exists and is never overwritten: choose another place.")


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
            raise DatasetError("The export was stopped: nothing of it was kept.")
        name, data = _image(file, item, background)
        path, count = PurePosixPath(name), 1
        while {name, str(PurePosixPath(name).with_suffix(".txt"))} & names:  # two of a stem would share a caption
            count += 1
            name = str(path.with_stem(f"{path.stem}-{count}"))
        put(name, data)
        sidecar = str(PurePosixPath(name).with_suffix(".txt"))
        mask, mask_name = (
            item.mask_file,
            str(PurePosixPath(name).with_name(f"{PurePosixPath(name).stem}{MASKS[0]}.png")),
        )
        if kind == "sidecars":
            if item.caption:
                put(sidecar, f"{item.caption}\n".encode())
            for variant in item.variants:
                lines = "\n".join(text_lines(item.path.with_name(variant)))
                variant_name = sidecar.removesuffix(".txt") + variant.removeprefix(item.path.stem)
                put(variant_name, f"{lines}\n".encode())
                names.add(variant_name)
        if mask is not None and mask.resolve().is_relative_to(dataset.folder):
            put(mask_name, mask.read_bytes())
        names |= {name, sidecar, mask_name}
        table.append({"file_name": name, "text": item.caption})
        if progress:
            progress(done, len(dataset.items), file)
    if kind == "metadata.jsonl":
        put(kind, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode())


def _image(file: str, item: Item, background: str) -> tuple[str, bytes]:
    """(name, content) of the exported file."""
    try:
        if not (background and has_alpha(item.path)):
            return file, item.path.read_bytes()
    except FileNotFoundError as error:
        raise DatasetError(f"{file}: the file is gone, open the dataset again.") from error
    stream = io.BytesIO()
    open_image(item.path, background=background).save(stream, "PNG")
    return str(PurePosixPath(file).with_suffix(".png")), stream.getvalue()
