"""Base models by name. One file a family; nothing above knows a family by name.

The families bring torch and diffusers, so they are imported when first asked for; finding a folder does not.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from studio.errors import BaseModelError
from studio.workspace import ASSETS

if TYPE_CHECKING:
    from studio.basemodels.stable_diffusion import StableDiffusion

__all__ = ["StableDiffusion", "base_folder", "load_base"]

_shared: "dict[str, StableDiffusion]" = {}
_loading = threading.Lock()


def base_folder(name: str) -> Path:
    """The folder of the base `name`: "starter", or a diffusers folder. Raises BaseModelError."""
    folder = ASSETS / "starter" if name == "starter" else Path(name).expanduser()
    if not (folder / "model_index.json").is_file():
        raise BaseModelError(f"There is no base model {name!r}: use starter, or a folder in the diffusers layout.")
    return folder


def load_base(name: str = "starter", shared: bool = True, precision: str = "fp32") -> "StableDiffusion":
    """Load a base. `shared` gives everyone the same copy; a run takes its own, so that its adapter stays its own."""
    from studio.basemodels.stable_diffusion import StableDiffusion

    folder = base_folder(name)
    if not shared:
        return StableDiffusion(folder, precision)
    with _loading:
        if name not in _shared:
            _shared.clear()  # one base in memory at a time
            _shared[name] = StableDiffusion(folder)
        return _shared[name]


def __getattr__(name: str):
    if name == "StableDiffusion":
        from studio.basemodels.stable_diffusion import StableDiffusion

        return StableDiffusion
    raise AttributeError(name)
