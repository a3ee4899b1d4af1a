"""Drawing on a GPU that is lent by the call (see `studio.server.zero_gpu`): a whole recipe in one, unwatched."""

from typing import TYPE_CHECKING

from studio.server.zero_gpu import on_gpu

if TYPE_CHECKING:
    from PIL import Image

    from studio.generation.recipe import Recipe


def _drawn(recipe: "Recipe") -> "list[Image.Image]":
    from studio.generation.drawing import generate_all

    return list(generate_all(recipe))


drawn = on_gpu(_drawn)
