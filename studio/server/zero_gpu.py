"""ZeroGPU: a Space whose GPU is lent for the length of one call, to a process of its own.

Drawing goes there, through the `spaces` package's decorator; training takes too long for what is lent and stays on the
processor, where this process's torch only pretends to have a GPU.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

SECONDS = 60  # that one call may ask the GPU for
_here = False  # whether this process is the one that was lent it


def lent() -> bool:
    """Whether this is such a Space, and the package is there."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true") and find_spec("spaces") is not None


def away() -> bool:
    """Whether the GPU is for others now, so that this process computes on the processor."""
    return lent() and not _here


def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, called where the GPU is. Its arguments and its answer travel between processes."""
    import spaces

    def there(*args: Any) -> Any:
        global _here
        before, _here = _here, True
        try:
            return function(*args)
        finally:
            _here = before

    return spaces.GPU(duration=SECONDS)(there)
