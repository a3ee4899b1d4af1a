"""Prompt and adapters in, a picture with its recipe inside out.

What draws brings torch, so it is imported when first asked for; the names of schedulers, say, do not.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from studio.generation.drawing import draw, generate, generate_all
    from studio.generation.inside import Found, read_recipe, save_picture
    from studio.generation.recipe import Recipe
    from studio.generation.uses import AdapterUse

__all__ = ["AdapterUse", "Found", "Recipe", "draw", "generate", "generate_all", "read_recipe", "save_picture"]

_HOMES = {
    **dict.fromkeys(("draw", "generate", "generate_all"), "drawing"),
    **dict.fromkeys(("Found", "read_recipe", "save_picture"), "inside"),
    "Recipe": "recipe",
    "AdapterUse": "uses",
}


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(name)
    return getattr(import_module(f"studio.generation.{_HOMES[name]}"), name)
