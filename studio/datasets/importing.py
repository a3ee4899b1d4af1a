"""Bringing images in: samples, dropped files, zips, folders. What comes in is a copy; nothing outside is changed."""

import shutil
import tempfile
import threading
from pathlib import Path, PurePosixPath

from studio.datasets.analysis import Progress, in_parallel
from studio.datasets.captions import put_caption
from studio.datasets.dataset import KOHYA, MASKS, Dataset
from studio.datasets.folder import open_dataset
from studio.datasets.images import FORMATS, SUFFIXES, format_of, open_image
from studio.datasets.meta_dir import unwritable
from studio.datasets.sources import Captions, File, contents, count_in
from studio.errors import DatasetError, WorkspaceError
from studio.workspace import ASSETS, Room, Workspace, atomic_write, safe_name, temporary_in

SAMPLES = ASSETS / "datasets"
_SUFFIXES_OF = {
    "JPEG": (".jpg", ".jpeg"),
    "MPO": (".jpg", ".jpeg"),  # what some phones and cameras write: a JPEG with another behind it
    "TIFF": (".tif", ".tiff"),
    "HEIF": (".heic", ".heif"),
}  # of the others, the format's own name


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
        part = temporary_in(workspace.datasets)  # should two ask at once
        try:
            shutil.copytree(SAMPLES / name, part, copy_function=shutil.copyfile, dirs_exist_ok=True)
            part.rename(target)
        except OSError as error:
            if not target.exists():
                raise DatasetError(f"Can't copy the sample {name} into the workspace: {error}.") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return open_dataset(target)


def import_images(
    workspace: Workspace,
    name: str,
    paths: list[Path],
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> tuple[Dataset, list[str]]:
    """Copy images, zips and folders of images, with captions and masks, into the dataset `name` (made if missing).

    What a file is is known by its content, not by its name. Folders called like kohya's `10_name` are kept as folders.
    progress is called with (done, total, name); stop ends it early, and what was copied stays. Images wait in a hidden
    folder until all captions are known, so that none is ever there without its own.

    Returns the dataset and one line for each file left out. Raises DatasetError when nothing could be taken or the
    dataset's folder can't be written.
    """
    folder = workspace.datasets / safe_name(name)
    skipped: list[str] = []
    captions = Captions()
    taken: list[tuple[Path, File, Path]] = []  # where it goes, what it was, where it waits
    stems: dict[Path, set[str]] = {}
    total, done, room = count_in(paths), 0, Room(workspace)
    full = ["Your workspace is full, the rest was not added."]
    try:
        beside = folder if folder.is_dir() else workspace.datasets  # on the same disk
        with tempfile.TemporaryDirectory(dir=beside, prefix=".", suffix=".tmp") as aside:
            masks = _Masks(Path(aside))
            for (file, data), suffix in in_parallel(
                _suffix, contents(paths, skipped), stop, weigh=lambda one: len(one[1])
            ):
                done += 1
                if progress:
                    progress(done, max(done, total), file.inside.name)
                if suffix is None:
                    captions.take(file, data, skipped)
                elif not suffix.startswith("."):
                    skipped.append(suffix)
                elif not room.takes(len(data)):
                    skipped[:0] = full
                    break
                elif file.inside.stem.endswith(MASKS):
                    masks.take(file, data, skipped)
                else:
                    target = _target(folder, stems, file, suffix)
                    waiting = Path(aside) / str(done)
                    waiting.write_bytes(data)
                    taken.append((target, file, waiting))
            came = {file.stem for _, file, _ in taken}
            for target, file, waiting in taken:
                target.parent.mkdir(parents=True, exist_ok=True)
                if caption := captions.of(file):
                    put_caption(target, caption, lasting=False)
                for end, variant in captions.variants_of(file, came).items():
                    atomic_write(target.with_name(target.stem + end), f"{variant}\n", lasting=False)
                masks.put(target, file)
                waiting.replace(target)
            skipped += masks.unclaimed()
    except OSError as error:
        raise unwritable(folder, error) from error
    stopped = stop is not None and stop.is_set()
    cut = stopped or skipped[:1] == full
    skipped += ["Stopped, the rest was not added."] if stopped else [] if cut else captions.unclaimed()
    if not taken:
        raise DatasetError(f"No image could be added. {skipped[0] if skipped else 'The files hold none.'}")
    return open_dataset(folder), skipped


class _Masks:
    """Masks that came along, kept on the disk until their images are known."""

    def __init__(self, aside: Path):
        self._aside = aside
        self._kept: dict[tuple[str, str], tuple[str, Path]] = {}  # (source, "folder/stem"): (its name, where it lies)

    def take(self, file: File, data: bytes, skipped: list[str]) -> None:
        stem, kind, _ = str(file.inside.with_suffix("")).rpartition(MASKS[0])
        if not kind:
            skipped.append(f"{file.inside.name}: a control image, those are not used.")
            return
        place = self._aside / f"{len(self._kept)}.png"
        if format_of(data, file.inside.name) != "PNG":
            open_image(data, file.inside.name).save(place)
        else:
            place.write_bytes(data)
        for source in file.sources:
            self._kept[source, stem] = (file.inside.name, place)

    def put(self, target: Path, file: File) -> None:
        """Write the image's mask beside it, under its name."""
        found = [self._kept.pop((source, file.stem), None) for source in file.sources]
        for _, place in filter(None, found[:1] if found[0] else found):
            atomic_write(target.with_name(f"{target.stem}{MASKS[0]}.png"), place.read_bytes(), lasting=False)

    def unclaimed(self) -> list[str]:
        names = dict.fromkeys(name for (source, _), (name, _) in self._kept.items() if source)
        return [f"{name}: a mask of no image here." for name in names]


def _suffix(thing: tuple[File, bytes]) -> str | None:
    """The suffix that fits the image's content, one line on why it can't be taken, or None: it holds captions."""
    file, data = thing
    if Captions.is_one(file):
        return None
    try:
        return _suffix_of(data, file.inside)
    except DatasetError as error:
        return str(error)


def _target(folder: Path, stems: dict[Path, set[str]], file: File, suffix: str) -> Path:
    """Where the image goes: into the dataset, or into a folder of it that says how often to show it."""
    parent = file.inside.parent.name
    if KOHYA.match(parent):
        folder = folder / safe_name(parent)
    if folder not in stems:
        stems[folder] = {path.stem.lower() for path in folder.iterdir()} if folder.is_dir() else set()
    return folder / (_free_stem(stems[folder], file.inside.stem) + suffix)


def _suffix_of(data: bytes, inside: PurePosixPath) -> str:
    """The suffix that fits the content; the image is decoded once to know that it is whole."""
    suffix = inside.suffix.lower()
    try:
        form = format_of(data, inside.name)
    except DatasetError as error:
        if data.startswith(b"PK\x03\x04"):
            raise DatasetError(f"{inside.name}: a zip inside, unpack it or add it by itself.") from error
        if suffix in SUFFIXES or "not an image" not in str(error):
            raise
        raise DatasetError(f"{inside.name}: not an image or a zip (use {', '.join(FORMATS)}).") from error
    open_image(data, inside.name, at_least=64)
    fitting = _SUFFIXES_OF.get(form, (f".{form.lower()}",))
    return suffix if suffix in fitting else fitting[0]


def _free_stem(stems: set[str], wanted: str) -> str:
    """A stem that no file there has, whatever its suffix: two images with one stem would share a caption."""
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
        return safe_name(f"image-{stem.encode('ascii', 'ignore').decode()}")
