"""`launch.py` as on a ZeroGPU Space, run by the environment's own Python: `python -m tests.rehearsal.zero_space`.

The `spaces` package itself forks the process that draws and asks its device service for a GPU; only what would touch
CUDA is replaced: in the forked process the pretend device is the accelerator. Where the package is missing,
`stand_in()` takes its place, without another process.
"""

import runpy
import sys
import types
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Any

_held = ExitStack()


def pretend_gpu() -> None:
    """Give the forked processes of `spaces` the pretend device. To be called before `spaces` is imported elsewhere."""
    import torch

    from tests.devices import second_device  # registers itself with torch

    # What the package expects of a build of torch with CUDA, where this one has none.
    if torch.version.cuda is None:
        torch.version.cuda = "13.0"  # type: ignore[assignment]
        torch._C._cuda_init = lambda: None
        torch.cuda._is_in_bad_fork = torch.cuda.is_initialized
    import spaces.zero.torch as patched

    patched.init = lambda uuid: _held.enter_context(second_device.pretend())
    patched.move = lambda callback=None: None


def stand_in() -> None:
    """A module `spaces` whose decorator calls the function in this process, with the pretend device meanwhile."""
    from tests.devices import second_device

    def GPU(duration: int = 60) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
            def called(*args: Any) -> Any:
                with second_device.pretend():
                    return function(*args)

            return called

        return decorate

    sys.modules["spaces"] = types.SimpleNamespace(GPU=GPU, __spec__=object())  # type: ignore[assignment]


if __name__ == "__main__":
    if find_spec("spaces"):
        pretend_gpu()
    else:
        stand_in()
    sys.argv = ["launch.py"]
    runpy.run_path("launch.py", run_name="__main__")
