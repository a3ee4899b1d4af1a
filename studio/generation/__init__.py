"""Prompt and adapters in, a picture with its recipe inside out."""

from studio.generation.draw import draw, generate
from studio.generation.recipe import Recipe, read_recipe, save_picture

__all__ = ["Recipe", "draw", "generate", "read_recipe", "save_picture"]
