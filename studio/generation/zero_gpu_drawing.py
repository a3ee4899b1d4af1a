"""Drawing in a process that ZeroGPU gives a GPU for one call (see `studio.server.zero_gpu`): a whole recipe at once."""

from typing import TYPE_CHECKING

from studio.server.zero_gpu import on_gpu

if TYPE_CHECKING:
    from PIL import Image

    from studio.generation.recipe import Recipe


def _draw(recipe: "Recipe") -> "list[Image.Image]":
    from studio.generation.drawing import draw_all  # torch: not before the page is up

    return list(draw_all(recipe))


draw_on_gpu = on_gpu(_draw)
