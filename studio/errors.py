"""What can go wrong because of what a person gave us. Each message says what is wrong and what to do, in one line.

StudioError
├── AdapterError        an adapter file or an adapter's settings
├── DatasetError        a folder, an image, a zip, a caption file
├── ConfigError         a setting out of range or unknown
├── BaseModelError      a base model that is missing or unfit
├── GenerationError     a prompt, a size, a recipe
├── RunError            a run that can't start, resume or go on
├── BusyError           the device is held by another job
├── NotAllowedError     what this server does not let people do
└── WorkspaceError      a name or a place outside what the person owns

The page shows the message, the command line prints it and exits 2; so too where the machine lacks what the work needs
(disk space, memory, rights, open files), for which `user_message` has a sentence. Anything else is a bug and keeps its
traceback.
"""

import errno


class StudioError(Exception):
    """The root: something a person can mend."""


class AdapterError(StudioError): ...


class DatasetError(StudioError): ...


class ConfigError(StudioError): ...


class BaseModelError(StudioError): ...


class GenerationError(StudioError): ...


class RunError(StudioError): ...


class BusyError(StudioError): ...


class NotAllowedError(StudioError): ...


class WorkspaceError(StudioError): ...


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LOCKED = (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "not enough memory",
    "bad_alloc",
    "start new thread",
    "could not create a primitive",  # oneDNN's, on the processor
)


def user_message(error: BaseException) -> str | None:
    """One sentence that says what to do: a StudioError's own, or for what the machine lacks. None: it is a bug."""
    if isinstance(error, StudioError):
        return str(error)
    if out_of_memory(error):
        return "There is not enough memory: close other programs, choose smaller sizes, or start the studio anew."
    code = error.errno if isinstance(error, OSError) else None
    if code in _FULL:
        return "The disk is full: free some space and try again."
    if code in _LOCKED:
        return f"{_place(error)} may not be written or read: change its permissions, or choose another workspace."
    if lacking(error):
        return "Too many files are open at once: close other programs, or raise the limit (ulimit -n)."
    return None


def out_of_memory(error: BaseException) -> bool:
    """Whether that is what it says: Python's, torch's on any device (the processor too), ONNX Runtime's."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(words in str(error).lower() for words in _NO_MEMORY)


def lacking(error: BaseException) -> bool:
    """Whether there was just no memory, or no file to be opened: nothing is wrong with what was to be read."""
    too_many_files = isinstance(error, RuntimeError) and "too many open files" in str(error).lower()  # safetensors'
    return (
        too_many_files
        or out_of_memory(error)
        or (isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE))
    )


def _place(error: BaseException) -> str:
    """What an OSError is about, by its name alone; by its folder's when it is a temporary file."""
    parts = [part for part in str(getattr(error, "filename", None) or "").replace("\\", "/").split("/") if part]
    while len(parts) > 1 and parts[-1].startswith("."):
        parts.pop()
    return parts[-1][:80] if parts else "A file"
