"""Ways to take from a process what it needs: room, rights, memory, files. For forked children alone, see starved.py."""

import ctypes
import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.errors import user_message

BALLAST = "ballast"  # the file that fills the disk
NOT_TRIED = "not tried, no disk of its own is allowed here"
_NEWNS, _NEWUSER = 0x00020000, 0x10000000  # of unshare(2)
_READ_ONLY, _REMOUNT, _RECURSIVE, _PRIVATE = 1, 32, 16384, 1 << 18  # of mount(2)
_libc = ctypes.CDLL(None, use_errno=True)


def refused(work: Callable[[], Any]) -> str:
    """The one sentence that `work` was refused with. AssertionError when it was not, or not in a sentence."""
    try:
        work()
    except Exception as error:
        return sentence(error)
    raise AssertionError("nothing was said")


def sentence(error: BaseException) -> str:
    line = user_message(error)
    assert line is not None, f"no sentence for {type(error).__name__}: {error}"
    assert "\n" not in line and len(line) < 400 and "Errno" not in line, line
    return line


# The disk -----------------------------------------------------------------------------------------------------------


def small_disk(root: Path, megabytes: int) -> None:
    """A disk of its own size at `root`, which only this process and its children see, and which goes with them.

    Raises OSError where a process may have no mounts of its own.
    """
    user, group = os.getuid(), os.getgid()
    if _libc.unshare(_NEWNS):  # only root may; anyone may as root of a user namespace, where the system has them
        _check(_libc.unshare(_NEWNS | _NEWUSER))
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount(None, "/", None, _RECURSIVE | _PRIVATE)
    root.mkdir(parents=True, exist_ok=True)
    _mount("tmpfs", str(root), "tmpfs", 0, f"size={megabytes}m")


def _mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text.encode() if text is not None else None for text in (source, target, kind, options)]
    _check(_libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]))


def _check(failed: int) -> None:
    if failed:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def read_only(root: Path, yes: bool = True) -> None:
    """The disk at `root`, from `small_disk`, can't be written to."""
    _mount(None, str(root), None, _REMOUNT | (_READ_ONLY if yes else 0))


def fill(root: Path, leave: int = 0) -> None:
    """Fill the disk at `root` but for `leave` bytes, in pages of 4096."""
    with open(root / BALLAST, "ab", buffering=0) as stream:
        try:
            while stream.write(b"\0" * 65536) == 65536:
                pass
        except OSError:
            pass
        stream.truncate(max(0, stream.tell() - leave))


def free(root: Path) -> None:
    (root / BALLAST).unlink()


# Memory and files ---------------------------------------------------------------------------------------------------


@contextmanager
def little_memory(more: int, process: int = 0) -> Iterator[None]:
    """`process` (0: this one) may take only `more` bytes of address space beyond what it has."""
    lines = Path(f"/proc/{process or 'self'}/status").read_text().splitlines()
    has = int(next(line for line in lines if line.startswith("VmSize")).split()[1]) * 1024
    with _limit(resource.RLIMIT_AS, has + more, process):
        yield


@contextmanager
def few_files(more: int, process: int = 0) -> Iterator[None]:
    """`process` (0: this one) may open only `more` files beyond those that it has open."""
    folder = f"/proc/{process or 'self'}/fd"
    taken = {int(name) for name in os.listdir(folder) if os.path.lexists(f"{folder}/{name}")}  # without the listing's
    most = left = 0
    while left < more or most in taken:  # what is limited is the number that a file gets, and there are gaps
        left += most not in taken
        most += 1
    with _limit(resource.RLIMIT_NOFILE, most, process):
        yield


@contextmanager
def _limit(kind: int, most: int, process: int) -> Iterator[None]:
    before = resource.prlimit(process, kind)
    resource.prlimit(process, kind, (most, before[1]))
    try:
        yield
    finally:
        resource.prlimit(process, kind, before)
