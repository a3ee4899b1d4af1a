"""Making a picture: hang the adapters on the base, draw, take them off."""

import threading
from collections.abc import Callable
from contextlib import ExitStack

from PIL import Image

from studio.adapters import attach_file, read_adapter
from studio.basemodels import StableDiffusion, load_base
from studio.errors import GenerationError
from studio.generation.recipe import Recipe


def generate(
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """The picture of a recipe. `progress(step, steps)` after each step; `stop` breaks off within one.

    Raises GenerationError when stopped, AdapterError when a file doesn't fit.
    """
    base = load_base(recipe.base)
    with ExitStack() as stack:
        for path, strength in recipe.adapters:
            adapter = attach_file(read_adapter(path), base.modules(), strength)
            stack.callback(adapter.detach)
        return draw(base, recipe, stop, progress)


def draw(
    base: StableDiffusion,
    recipe: Recipe,
    stop: threading.Event | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Image.Image:
    """The recipe on `base` as it is, with whatever hangs on it. Previews of a run and `generate` share this."""

    def on_step(done: int) -> None:
        if stop is not None and stop.is_set():
            raise GenerationError("Stopped.")
        if progress:
            progress(done, recipe.steps)

    fields = recipe.model_dump(exclude={"base", "adapters"})
    return base.draw(**fields, on_step=on_step)
