"""Prompt and adapters in, an image with its recipe inside out.

Modules that need torch are imported when first asked for; the names of schedulers, for example, do not need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.generation.applied_adapter import AppliedAdapter
    from studio.generation.dispatch import generate, generate_all
    from studio.generation.drawing import draw
    from studio.generation.found_recipe import FoundRecipe
    from studio.generation.image_metadata import read_recipe, save_image
    from studio.generation.recipe import Recipe

__all__ = ["AppliedAdapter", "FoundRecipe", "Recipe", "draw", "generate", "generate_all", "read_recipe", "save_image"]

_HOMES = {
    **dict.fromkeys(("generate", "generate_all"), "dispatch"),
    "draw": "drawing",
    **dict.fromkeys(("read_recipe", "save_image"), "image_metadata"),
    "FoundRecipe": "found_recipe",
    "Recipe": "recipe",
    "AppliedAdapter": "applied_adapter",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"studio.generation.{_HOMES[name]}"), name)
