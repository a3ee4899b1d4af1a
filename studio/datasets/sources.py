"""What was given to import: files, zips and folders as one stream, and the captions among them."""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from studio.datasets.captions import CAPTION_SUFFIXES, TABLES, decode_caption, read_caption, read_table
from studio.datasets.listing import VARIANT, visible_in
from studio.datasets.zips import MAX_FILE_BYTES, hidden_line, unzip
from studio.errors import DatasetError


@dataclass(frozen=True)
class File:
    """`inside` the source: a zip or a folder. `loose` is where a file that came by itself lies, else None."""

    source: str
    inside: PurePosixPath
    loose: Path | None = None

    @property
    def sources(self) -> tuple[str, ...]:
        """A browser puts every dropped file into a folder of its own, so loose ones are found by name alone as well."""
        return (self.source, "") if self.loose else (self.source,)

    @property
    def stem(self) -> str:
        """Where it lies, without the suffix."""
        return str(self.inside.with_suffix(""))


def contents(paths: list[Path], skipped: list[str]) -> Iterator[tuple[File, bytes]]:
    """Each file given, and each in the zips and folders given, one at a time; a line in `skipped` for what is not."""
    for number, path in enumerate(map(Path, paths)):
        if path.suffix.lower() == ".zip" and not path.is_dir():
            for inside, data in unzip(path, skipped):
                yield File(f"zip {number}", inside), data
        elif _is_folder(path):
            yield from _folder(path.resolve(), f"folder {number}", skipped)
        elif (loose := _read(path, skipped)) is not None:
            yield File(str(path.parent), PurePosixPath(path.name), path), loose


def count_in(paths: list[Path]) -> int:
    """About how many files `contents` will give, for showing progress."""
    count = 0
    for path in map(Path, paths):
        try:
            if path.suffix.lower() == ".zip":
                with zipfile.ZipFile(path) as archive:
                    count += sum(not entry.is_dir() for entry in archive.infolist())
            elif path.is_dir():
                count += sum(not entry.is_dir(follow_symlinks=False) for _, here in visible_in(path) for entry in here)
            else:
                count += 1
        except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
            count += 1
    return count


class Captions:
    """The captions that came with the images, found again by where they lay and by name."""

    def __init__(self):
        self._sidecars: dict[tuple[str, str], str] = {}  # (source, "folder/stem.txt"): caption
        self._tables: dict[tuple[str, str], dict[str, str]] = {}  # (source, folder): {file in it: caption}
        self._variants: dict[tuple[str, str], dict[str, str]] = {}  # (source, "folder/stem"): {".1.txt": caption}
        self._unclaimed: dict[str, str] = {}  # "folder/stem": the sidecar's name

    @staticmethod
    def is_one(file: File) -> bool:
        """Whether this file is one that holds captions."""
        return file.inside.name in TABLES or file.inside.suffix.lower() in CAPTION_SUFFIXES

    def take(self, file: File, data: bytes, skipped: list[str]) -> None:
        suffix = file.inside.suffix.lower()
        if file.inside.name in TABLES:
            try:
                table = read_table(data, file.inside.name)
            except DatasetError as error:
                skipped.append(str(error))
                return
            for source in file.sources:
                self._tables.setdefault((source, str(file.inside.parent)), {}).update(table)
        else:
            key = str(file.inside.with_suffix(suffix))
            try:
                caption = decode_caption(data)
            except DatasetError as error:
                skipped.append(f"{file.inside.name}: {error}")
                return
            self._sidecars |= {(source, key): caption for source in file.sources}
            if more := VARIANT.fullmatch(file.stem):
                for source in file.sources:
                    self._variants.setdefault((source, more[1]), {})[f".{more[2]}{suffix}"] = caption
            self._unclaimed[file.stem] = file.inside.name

    def of(self, file: File) -> str:
        """The caption of an image, "" when it has none."""
        self._unclaimed.pop(file.stem, None)
        for key in (file.stem + suffix for suffix in CAPTION_SUFFIXES):
            for source in (file.source, ""):
                if (source, key) in self._sidecars:
                    return self._sidecars[source, key]
        for parent in file.inside.parents:
            for source in (file.source, ""):
                found = self._tables.get((source, str(parent)), {}).get(str(file.inside.relative_to(parent)))
                if found:
                    return found
        return (read_caption(file.loose) if file.loose else None) or ""

    def variants_of(self, file: File, stems: set[str]) -> dict[str, str]:
        """{".1.txt": caption} of the further caption files beside an image. stems: of all images that came."""
        found = self._variants.get((file.source, file.stem)) or self._variants.get(("", file.stem), {})
        found = {end: caption for end, caption in found.items() if file.stem + end.rpartition(".")[0] not in stems}
        for end in found:
            self._unclaimed.pop(file.stem + end.rpartition(".")[0], None)
        return found

    def unclaimed(self) -> list[str]:
        return [f"{name}: a caption of no image here." for name in self._unclaimed.values()]


def _folder(root: Path, source: str, skipped: list[str]) -> Iterator[tuple[File, bytes]]:
    """The visible files of a folder and the folders in it, in the order of their names; links are not followed out."""
    hidden: list[str] = []
    found = sorted(
        ((*inside, entry.name), entry)
        for inside, entries in visible_in(root, skipped, hidden)
        for entry in entries
        if not entry.is_dir(follow_symlinks=False)
    )
    skipped += hidden_line(hidden)
    if not found:
        skipped.append(f"{root.name}: an empty folder.")
    for parts, entry in found:
        path = Path(entry.path)
        try:
            leads_out = entry.is_symlink() and not path.resolve().is_relative_to(root)
        except (OSError, RuntimeError):
            leads_out = True
        if leads_out:
            skipped.append(f"{entry.name}: a link to another place, copy the image here instead.")
        elif (data := _read(path, skipped)) is not None:
            yield File(source, PurePosixPath(root.name, *parts)), data


def _read(path: Path, skipped: list[str]) -> bytes | None:
    try:
        if path.is_file():
            with open(path, "rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)  # and no more, should it grow meanwhile
            if len(data) <= MAX_FILE_BYTES:
                return data
            skipped.append(f"{path.name}: larger than {MAX_FILE_BYTES // 10**6} MB.")
            return None
    except (OSError, ValueError):
        pass
    skipped.append(f"{path.name}: can't be read.")
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
