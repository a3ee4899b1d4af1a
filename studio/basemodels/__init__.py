"""Base models by name. One file a family; nothing above knows a family by name."""

from importlib import import_module
from typing import TYPE_CHECKING

from studio.basemodels.choice import BaseChoice
from studio.basemodels.loading import load_base
from studio.basemodels.registry import base_folder, family_class

if TYPE_CHECKING:
    from studio.basemodels.family import Family
    from studio.basemodels.stable_diffusion import StableDiffusion

__all__ = ["BaseChoice", "Family", "StableDiffusion", "base_folder", "family_class", "load_base"]

_HOMES = {"Family": "family", "StableDiffusion": "stable_diffusion"}  # these bring torch: imported when asked for


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"studio.basemodels.{_HOMES[name]}"), name)
