"""Where a recipe is drawn: in this process, or on a GPU that ZeroGPU gives for the length of one call."""

import threading
from collections.abc import Iterator

from PIL import Image

from studio.generation.drawing import PreviewCallback, Progress, draw_all
from studio.generation.prompts import refuse_adapter_tags
from studio.generation.recipe import Recipe
from studio.server import zero_gpu


def generate(recipe: Recipe, stop: threading.Event | None = None, progress: Progress | None = None) -> Image.Image:
    """The first image of a recipe, on the shared base. See `generate_all`."""
    return next(generate_all(recipe.model_copy(update={"count": 1}), stop, progress))


def generate_all(
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
    preview: PreviewCallback | None = None,
) -> Iterator[Image.Image]:
    """The recipe's images, one after the other: the first with its seed, the next with the seed above.

    progress  called with (timesteps done, timesteps in all) of the image that is drawn
    preview   called with the predicted clean latents after each timestep
    stop      ends drawing within an image

    On a ZeroGPU Space the callbacks are not called: the images are drawn in another process.
    Raises GenerationError when stopped, AdapterError when a file doesn't fit.
    """
    refuse_adapter_tags(recipe.prompt)
    if zero_gpu.is_cpu_process():
        from studio.generation.zero_gpu_drawing import draw_on_gpu

        yield from draw_on_gpu(recipe)
    else:
        yield from draw_all(recipe, stop, progress, preview)
