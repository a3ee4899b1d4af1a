"""ZeroGPU: a Space that gives a GPU for the length of one call, to a process of its own.

Drawing goes there, through the `spaces` package's decorator; training takes longer than such a call and stays on the
CPU, where this process's torch only reports a GPU.
"""

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

SECONDS = 60  # that one call may ask the GPU for
_here = False  # whether this process has the GPU now
_carry: list[Callable[[], Callable[[], Any]]] = []  # how a face above finds the request that is answered now


def on_zero_gpu() -> bool:
    """Whether this is a ZeroGPU Space with the `spaces` package."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "true") and find_spec("spaces") is not None


def is_cpu_process() -> bool:
    """Whether this process of a ZeroGPU Space has no GPU now and computes on the CPU."""
    return on_zero_gpu() and not _here


def carry(how: Callable[[], Callable[[], Any]]) -> None:
    """From now on `how()` is called where a visitor asks, and what it returns in the thread that draws for them."""
    _carry[:] = [how]


def carried() -> Callable[[], Any]:
    """To be called in another thread that works for who asks now: ZeroGPU finds the visitor, whose quota it counts, in
    the request that Gradio answers, and one without a request is counted to the Space."""
    return _carry[0]() if _carry and on_zero_gpu() else lambda: None


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
