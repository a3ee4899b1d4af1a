"""The folders a person owns, names that are safe in them, and atomic writes."""

import functools
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from studio.errors import WorkspaceError
from studio.server.permissions import OWN, Capabilities

ASSETS = Path(__file__).resolve().parent.parent / "assets"
SHOWN_ASSETS = (ASSETS / "datasets", ASSETS / "drawn")  # what a browser may read of them
FOLDERS = ("datasets", "runs", "outputs", "adapters", "exports", "cache")
SERVED = ("outputs", "exports", "cache/thumbnails", "cache/downloads")  # what a browser may read of it
_RECOUNT = 50_000_000  # bytes
_LEFT = re.compile(r"\.[a-z0-9_]{8}\.tmp|\..+\.gone")  # names that tempfile and `remove_folder` give
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Workspace:
    """`root` holds datasets/, runs/, outputs/ (images), adapters/ (dropped files), exports/ and cache/."""

    root: Path
    allows: Capabilities = OWN  # what may be done in it

    @classmethod
    def open(cls, root: str | os.PathLike | None = None) -> "Workspace":
        """The workspace at `root`, else at STUDIO_WORKSPACE, else in the user's data folder; made if missing."""
        chosen = root or os.environ.get("STUDIO_WORKSPACE") or _usual()
        workspace = cls(Path(chosen).expanduser().resolve())
        try:
            make_folders(workspace.root)
        except OSError as error:
            raise WorkspaceError(f"Can't use {workspace.root} as the workspace: {error.strerror}.") from error
        return workspace

    def refuse_if_full(self, coming: int = 0) -> None:
        """Raises WorkspaceError when it can't take `coming` bytes more. Asked before anything large is written."""
        if self.allows.room and (size := size_of(self.root)) + coming > self.allows.room:
            raise WorkspaceError(
                f"Your workspace is full ({size / 1e9:.1f} of {self.allows.room / 1e9:.1f} GB): "
                "clear its cache under About, or delete what you no longer need."
            )

    @property
    def datasets(self) -> Path:
        return self.root / "datasets"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def outputs(self) -> Path:
        return self.root / "outputs"

    @property
    def adapters(self) -> Path:
        return self.root / "adapters"

    @property
    def exports(self) -> Path:
        return self.root / "exports"

    @property
    def cache(self) -> Path:
        return self.root / "cache"


class Room:
    """What may still be written into a workspace, for work that writes file after file."""

    def __init__(self, workspace: Workspace):
        self._workspace, self._counted = workspace, _RECOUNT

    def takes(self, size: int) -> bool:
        """Whether `size` bytes more have room there; they are counted as written."""
        most = self._workspace.allows.room
        if most is None:
            return True
        self._counted += size
        if self._counted >= _RECOUNT:  # others write there as well
            self._held, self._counted = size_of(self._workspace.root), size
        return self._held + self._counted <= most


def _usual() -> Path:
    import platformdirs  # here, so that adapters are read and written with torch and safetensors alone

    return platformdirs.user_data_path("lora-studio")


def make_folders(root: Path) -> None:
    """The folders of a workspace, where they are missing, closed to other users of the machine. Raises OSError."""
    root.mkdir(mode=0o700, parents=True, exist_ok=True)  # parents get the usual rights
    mode = 0o777 if _shared(root) else 0o700
    for name in FOLDERS:
        (root / name).mkdir(mode=mode, exist_ok=True)


def keep_private(root: Path) -> list[str]:
    """What this process writes from now on is for its user alone; where the group may write to `root`, for it too.

    Folders that release 0.1 made open to all users of the machine are closed; returns their names.
    """
    shared = _shared(root)
    os.umask(0o007 if shared else 0o077)
    return [] if shared else [name for name in FOLDERS if _closed(root / name)]


def _closed(folder: Path) -> bool:
    """Close a folder of this user to others; whether that changed anything."""
    with suppress(OSError, AttributeError):  # Windows has no such rights
        state = folder.lstat()
        if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and state.st_mode & 0o077:
            folder.chmod(0o700)
            return True
    return False


def _shared(root: Path) -> bool:
    """Whether a workspace is shared: its owner let the group write to it."""
    with suppress(OSError):
        return bool(root.stat().st_mode & stat.S_IWGRP)
    return False


def temporary_in(folder: Path) -> Path:
    """A new folder in `folder` under a hidden name, to be renamed when it is complete; see `sweep`. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    made = _hidden(folder)
    made.mkdir()  # unlike tempfile's, with the rights of other new folders
    return made


def _hidden(folder: Path) -> Path:
    return folder / f".{secrets.token_hex(4)}.tmp"


def size_of(folder: Path) -> int:
    """Bytes of all files below `folder`; links are not followed, what goes away meanwhile is not counted."""
    total = 0
    for entry in _below(folder):
        with suppress(OSError):
            if not entry.is_dir(follow_symlinks=False):
                total += entry.stat(follow_symlinks=False).st_size
    return total


def holds_files(folder: Path) -> bool:
    """Whether there is any file at or below `folder`."""
    return is_file(folder) or any(not entry.is_dir(follow_symlinks=False) for entry in _below(folder))


def sweep(folder: Path, before: float) -> None:
    """Delete what killed programs left below `folder`: `.xxxxxxxx.tmp` of writes, `.NAME.gone` of deletions.

    before: seconds since 1970; what was touched later may still be in use and stays. Raises nothing.
    """
    for entry in _below(folder):
        with suppress(OSError):
            # Not by st_mtime: a copy is given that of its source.
            if _LEFT.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_ctime < before:
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                elif entry.name.endswith(".tmp"):
                    os.unlink(entry.path)


def _below(folder: Path) -> Iterator[os.DirEntry]:
    """Everything below `folder`, a folder before what is in it; links are not followed."""
    left = [str(folder)]
    while left:
        with suppress(OSError), os.scandir(left.pop()) as entries:
            for entry in entries:
                yield entry
                with suppress(OSError):
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, remembered while its size and time stay; "" when it is not there."""
    try:
        stat = path.stat()
        return _sha256_of(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return ""


@functools.lru_cache(256)
def _sha256_of(path: Path, size: int, changed: int) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def expanded(name: str | Path) -> Path:
    """The path with ~ for a home folder; as it stands where there is no such user."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_file(path: Path) -> bool:
    """Whether it is there; False also for a name that is too long for a file."""
    try:
        return path.is_file()
    except OSError:
        return False


def with_older_name(path: Path, name: str) -> Path:
    """`path`, or the file of its older name beside it where only that is there."""
    older = path.with_name(name)
    return older if is_file(older) and not is_file(path) else path


def is_valid_unicode(*texts: str) -> bool:
    """Whether they hold no half character (a lone surrogate, which JSON can say and no file or page can hold)."""
    return all(text.isascii() or text.encode("utf-8", "ignore").decode() == text for text in texts)


def safe_name(text: str) -> str:
    """A file name made from what a person typed: letters of any script, digits, `-`, `_`, `.`; at most 80.

    Raises WorkspaceError when nothing usable is left.
    """
    name = re.sub(r"[^\w.-]+", "-", text.strip(), flags=re.UNICODE).strip("-. ")
    while len(name.encode()) > 80:
        name = name[:-1]
    if not name or name.split(".")[0].lower() in _RESERVED:
        raise WorkspaceError(f"{text[:40]!r} can't be used as a name: use letters or digits.")
    return name


def free_path(folder: Path, name: str) -> Path:
    """`folder/name`, or `folder/name-2`, `-3`, … when it is taken. `name` is made safe first."""
    stem, suffix = os.path.splitext(name)
    if not 1 < len(suffix) <= 12 or not suffix[1:].isalnum() or suffix[1].isdigit():  # a dot in a name, as in v1.5
        stem, suffix = name, ""
    stem = safe_name(stem)
    while len(stem.encode()) > 74 - len(suffix):  # room for the suffix and a number: both are needed to find it again
        stem = stem[:-1]
    path, count = folder / f"{stem}{suffix}", 1
    while path.exists():
        count += 1
        path = folder / f"{stem}-{count}{suffix}"
    return path


def remove_folder(folder: Path) -> None:
    """Delete a folder: it goes under a hidden name first, so that nothing is taken for whole when this is cut short.

    What an earlier one left beside it goes too. Raises nothing.
    """
    for left in folder.parent.glob(".*.gone"):
        shutil.rmtree(left, ignore_errors=True)
    gone = folder.with_name(f".{folder.name}.gone")
    with suppress(OSError):
        folder.rename(gone)
    for left in (gone, folder):
        shutil.rmtree(left, ignore_errors=True)


def atomic_copy(source: Path, target: Path) -> None:
    """As `atomic_write`, from a file of any size; the copy has the time of its source. Raises OSError."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(target.parent)
    try:
        shutil.copyfile(source, temporary)  # without its rights: the copy has those of other new files
        times = source.stat()
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def atomic_write(path: Path, data: bytes | str, lasting: bool = True) -> None:
    """Write to a temporary neighbour, flush to the disk, rename: a reader sees the old file or the new one.

    lasting=False leaves out the flush, for what can be made again: faster, and after a power cut perhaps torn.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(path.parent)
    try:
        with open(temporary, "xb") as stream:
            stream.write(data.encode("utf-8") if isinstance(data, str) else data)
            if lasting:
                stream.flush()
                os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def checked_name(name: str, what: str) -> str:
    """`name` if it is a plain name of the workspace's own making, else WorkspaceError."""
    if not name or not isinstance(name, str):
        raise WorkspaceError(f"Choose {'an' if what[0] in 'aeiou' else 'a'} {what} first.")
    strange = not is_valid_unicode(name) or len(name.encode()) > 255  # no file is called so
    if strange or name in (".", "..") or "/" in name or "\\" in name or "\0" in name or name.startswith("."):
        raise WorkspaceError(f"{name[:40]!r} is not the name of {'an' if what[0] in 'aeiou' else 'a'} {what}.")
    return name
