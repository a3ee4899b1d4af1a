"""Bringing pictures in: samples, dropped files, zips. What comes in is a copy; nothing outside is changed."""

import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from studio.datasets.folder import CAPTION_SUFFIXES, Dataset, open_dataset, set_caption
from studio.datasets.pictures import FORMATS, SUFFIXES, open_picture
from studio.errors import DatasetError, WorkspaceError
from studio.workspace import ASSETS, Workspace, free_path, safe_name, write_whole

MAX_FILES = 20_000
MAX_FILE_BYTES = 200_000_000
MAX_ZIP_BYTES = 8_000_000_000  # unpacked
MAX_RATIO = 200  # unpacked to packed, of one entry
SAMPLES = ASSETS / "datasets"


def list_samples() -> list[str]:
    """Names of the sample datasets that come with the studio."""
    if not SAMPLES.is_dir():
        return []
    return sorted(f.name for f in SAMPLES.iterdir() if f.is_dir() and f.name != "held-out")


def copy_sample(workspace: Workspace, name: str) -> Dataset:
    """The sample in the workspace: copied the first time, as the person left it after that. Raises DatasetError."""
    if name not in list_samples():
        raise DatasetError(f"There is no sample dataset {name!r}: choose {', '.join(list_samples())}.")
    target = workspace.datasets / name
    if not target.exists():
        part = workspace.datasets / f".{name}.part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(SAMPLES / name, part)
        part.rename(target)
    return open_dataset(target)


def import_pictures(workspace: Workspace, name: str, paths: list[Path]) -> tuple[Dataset, list[str]]:
    """Copy pictures and zips of pictures, with their captions, into the dataset `name` (made if missing).

    Returns it and one line for each file left out. Raises DatasetError when nothing could be taken.
    """
    folder = workspace.datasets / safe_name(name)
    skipped: list[str] = []
    captions: dict[tuple[str, str], str] = {}  # (where it came from, stem): caption
    taken: dict[tuple[str, str], Path] = {}
    for origin, inside, data in _contents(paths, skipped):
        key = (origin, str(inside.with_suffix("")))
        if inside.suffix.lower() in CAPTION_SUFFIXES:
            captions[key] = data.decode("utf-8", errors="replace")
            continue
        try:
            suffix = _suffix_of(data, inside.name)
        except DatasetError as error:
            skipped.append(str(error))
            continue
        target = free_path(folder, _usable(inside.stem) + suffix)
        write_whole(target, data)
        taken[key] = target
    for key, target in taken.items():
        if key in captions:
            set_caption(target, captions[key])
    if not taken:
        raise DatasetError(f"No picture could be added. {skipped[0] if skipped else 'The files hold none.'}")
    return open_dataset(folder), skipped


def _suffix_of(data: bytes, name: str) -> str:
    """The suffix that fits the content; the picture is decoded once to know that it is whole."""
    open_picture(data, name)
    suffix = Path(name).suffix.lower()
    return suffix if suffix in SUFFIXES else ".png"


def _usable(stem: str) -> str:
    """A name for the file: its own, shortened to 60 bytes of any script, or one that every system takes."""
    while len(stem.encode()) > 60:
        stem = stem[:-1]
    try:
        return safe_name(stem)
    except WorkspaceError:
        return f"picture-{stem}"


def _contents(paths: list[Path], skipped: list[str]) -> Iterator[tuple[str, PurePosixPath, bytes]]:
    """(source, name in it, bytes) of each file that may be a picture or a caption."""
    for path in map(Path, paths):
        if path.suffix.lower() == ".zip":
            yield from _unzip(path, skipped)
        elif path.suffix.lower() in SUFFIXES | set(CAPTION_SUFFIXES):
            try:
                if path.stat().st_size > MAX_FILE_BYTES:
                    skipped.append(f"{path.name}: larger than {MAX_FILE_BYTES // 10**6} MB.")
                    continue
                yield "", PurePosixPath(path.name), path.read_bytes()
            except OSError:
                skipped.append(f"{path.name}: can't be read.")
        else:
            skipped.append(f"{path.name}: not a picture or a zip (use {', '.join(FORMATS)}).")


def _unzip(path: Path, skipped: list[str]) -> Iterator[tuple[str, PurePosixPath, bytes]]:
    """The files of a zip, bounded in count, size and ratio. Names that point outside make the whole zip suspect."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES:
                raise DatasetError(f"{path.name}: holds more than {MAX_FILES:,} files: split it.")
            for entry in entries:
                inside = PurePosixPath(entry.filename.replace("\\", "/"))
                if inside.is_absolute() or ".." in inside.parts or (inside.parts and ":" in inside.parts[0]):
                    raise DatasetError(f"{path.name}: refused, a name in it points outside: {entry.filename[:60]!r}.")
            total = 0
            for entry in entries:
                inside = PurePosixPath(entry.filename.replace("\\", "/"))
                hidden = any(part.startswith((".", "__MACOSX")) for part in inside.parts)
                if entry.is_dir() or hidden or inside.suffix.lower() not in SUFFIXES | set(CAPTION_SUFFIXES):
                    continue
                if stat.S_ISLNK(entry.external_attr >> 16):
                    skipped.append(f"{inside.name}: a link, not a file.")
                    continue
                total += entry.file_size
                if entry.file_size > MAX_FILE_BYTES or entry.file_size > MAX_RATIO * max(entry.compress_size, 1024):
                    skipped.append(f"{inside.name}: unpacks to a suspicious size.")
                    continue
                if total > MAX_ZIP_BYTES:
                    raise DatasetError(f"{path.name}: unpacks to more than {MAX_ZIP_BYTES // 10**9} GB: split it.")
                try:
                    with archive.open(entry) as stream:
                        data = stream.read(entry.file_size + 1)
                except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError, OSError, ValueError):
                    skipped.append(f"{inside.name}: can't be unpacked.")
                    continue
                if len(data) > entry.file_size:
                    skipped.append(f"{inside.name}: larger than the zip says.")
                    continue
                yield path.name, inside, data
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DatasetError(f"{path.name}: not a zip that can be read.") from error
