"""Bringing pictures in: samples, dropped files, zips. What comes in is a copy; nothing outside is changed."""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from studio.datasets.captions import CAPTION_SUFFIXES, TABLE, decode_caption, read_caption, read_table, set_caption
from studio.datasets.folder import MASKS, Dataset, open_dataset
from studio.datasets.pictures import FORMATS, SUFFIXES, format_of, open_picture
from studio.datasets.zips import MAX_FILE_BYTES, unzip
from studio.errors import DatasetError, WorkspaceError
from studio.workspace import ASSETS, Workspace, safe_name, write_whole

SAMPLES = ASSETS / "datasets"
_SUFFIXES_OF = {"JPEG": (".jpg", ".jpeg"), "TIFF": (".tif", ".tiff")}  # of the others, the format's own name


def list_samples() -> list[str]:
    """Names of the sample datasets that come with the studio."""
    if not SAMPLES.is_dir():
        return []
    return sorted(f.name for f in SAMPLES.iterdir() if f.is_dir() and f.name != "held-out")


def copy_sample(workspace: Workspace, name: str) -> Dataset:
    """The sample in the workspace: copied the first time, as the person left it after that. Raises DatasetError."""
    if name not in list_samples():
        raise DatasetError(f"There is no sample dataset {name[:60]!r}: choose {', '.join(list_samples())}.")
    target = workspace.datasets / name
    if not target.exists():
        part = Path(tempfile.mkdtemp(dir=workspace.datasets, prefix="."))  # its own, should two ask at once
        try:
            shutil.copytree(SAMPLES / name, part, copy_function=shutil.copyfile, dirs_exist_ok=True)
            part.chmod(0o755)
            part.rename(target)
        except OSError as error:
            if not target.exists():
                raise DatasetError(f"Can't copy the sample {name} into the workspace: {error}.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return open_dataset(target)


def import_pictures(workspace: Workspace, name: str, paths: list[Path]) -> tuple[Dataset, list[str]]:
    """Copy pictures and zips of pictures, with their captions, into the dataset `name` (made if missing).

    A picture is known by its content, not by its name. Returns the dataset and one line for each file left out.
    Raises DatasetError when nothing could be taken.
    """
    folder = workspace.datasets / safe_name(name)
    skipped: list[str] = []
    captions = _Captions()
    taken: list[tuple[Path, _File]] = []
    stems = {path.stem.lower() for path in folder.iterdir()} if folder.is_dir() else set()
    for file, data in _contents(paths, skipped):
        if captions.take(file, data):
            continue
        if file.inside.stem.endswith(MASKS):
            skipped.append(f"{file.inside.name}: a mask, masks are not used.")
            continue
        try:
            suffix = _suffix_of(data, file.inside)
        except DatasetError as error:
            skipped.append(str(error))
            continue
        target = folder / (_free_stem(stems, file.inside.stem) + suffix)
        try:
            write_whole(target, data)
        except OSError as error:
            raise DatasetError(f"Can't write into {folder.name}: {error.strerror}.") from error
        taken.append((target, file))
    for target, file in taken:
        set_caption(target, captions.of(file))
    skipped += captions.unclaimed()
    if not taken:
        raise DatasetError(f"No picture could be added. {skipped[0] if skipped else 'The files hold none.'}")
    return open_dataset(folder), skipped


@dataclass(frozen=True)
class _File:
    """`inside` the source: a zip or a folder. `loose` is where a file that came by itself lies, else None."""

    source: str
    inside: PurePosixPath
    loose: Path | None = None


class _Captions:
    """The captions that came with the pictures, found again by where they lay and by name."""

    def __init__(self):
        self._sidecars: dict[tuple[str, str], str] = {}  # (source, "folder/stem.txt"): caption
        self._tables: dict[tuple[str, str], dict[str, str]] = {}  # (source, folder): {file in it: caption}
        self._unclaimed: dict[str, str] = {}  # "folder/stem": the sidecar's name

    def take(self, file: _File, data: bytes) -> bool:
        """Whether this file is one that holds captions."""
        suffix = file.inside.suffix.lower()
        # A browser puts every dropped file into a folder of its own, so loose ones are found by name alone as well.
        sources = (file.source, "") if file.loose else (file.source,)
        if file.inside.name == TABLE:
            self._tables |= {(source, str(file.inside.parent)): read_table(data) for source in sources}
        elif suffix in CAPTION_SUFFIXES:
            key = str(file.inside.with_suffix(suffix))
            self._sidecars |= {(source, key): decode_caption(data) for source in sources}
            self._unclaimed[_stem(file)] = file.inside.name
        else:
            return False
        return True

    def of(self, file: _File) -> str:
        """The caption of a picture, "" when it has none."""
        self._unclaimed.pop(_stem(file), None)
        for key in (_stem(file) + suffix for suffix in CAPTION_SUFFIXES):
            for source in (file.source, ""):
                if (source, key) in self._sidecars:
                    return self._sidecars[source, key]
        for parent in file.inside.parents:
            for source in (file.source, ""):
                found = self._tables.get((source, str(parent)), {}).get(str(file.inside.relative_to(parent)))
                if found:
                    return found
        return (read_caption(file.loose) if file.loose else None) or ""

    def unclaimed(self) -> list[str]:
        return [f"{name}: a caption of no picture here." for name in self._unclaimed.values()]


def _stem(file: _File) -> str:
    return str(file.inside.with_suffix(""))


def _contents(paths: list[Path], skipped: list[str]) -> Iterator[tuple[_File, bytes]]:
    """Each file given, and each file in each zip given, one at a time."""
    for number, path in enumerate(map(Path, paths)):
        if path.suffix.lower() == ".zip":
            for inside, data in unzip(path, skipped):
                yield _File(f"zip {number}", inside), data
            continue
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                skipped.append(f"{path.name}: larger than {MAX_FILE_BYTES // 10**6} MB.")
                continue
            data = path.read_bytes()
        except (OSError, ValueError):
            skipped.append(f"{path.name}: can't be read.")
            continue
        yield _File(str(path.parent), PurePosixPath(path.name), path), data


def _suffix_of(data: bytes, inside: PurePosixPath) -> str:
    """The suffix that fits the content; the picture is decoded once to know that it is whole."""
    suffix = inside.suffix.lower()
    try:
        form = format_of(data, inside.name)
    except DatasetError as error:
        if suffix in SUFFIXES or "not a picture" not in str(error):
            raise
        raise DatasetError(f"{inside.name}: not a picture or a zip (use {', '.join(FORMATS)}).") from error
    open_picture(data, inside.name)
    fitting = _SUFFIXES_OF.get(form, (f".{form.lower()}",))
    return suffix if suffix in fitting else fitting[0]


def _free_stem(stems: set[str], wanted: str) -> str:
    """A stem that no file there has, whatever its suffix: two pictures with one stem would share a caption."""
    stem = free = _usable(wanted)
    count = 1
    while free.lower() in stems:
        count += 1
        free = f"{stem}-{count}"
    stems.add(free.lower())
    return free


def _usable(stem: str) -> str:
    """A name for the file: its own, shortened to 60 bytes of any script, or one that every system takes."""
    while len(stem.encode("utf-8", "replace")) > 60:
        stem = stem[:-1]
    try:
        return safe_name(stem)
    except (WorkspaceError, UnicodeEncodeError):
        return safe_name(f"picture-{stem.encode('ascii', 'ignore').decode()}")
