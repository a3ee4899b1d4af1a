"""How long an image will take, estimated from the images drawn since the start."""

from studio.generation.recipe import Recipe

_seconds: dict[str, float] = {}  # {base: seconds for one pass of the denoiser over one pixel}


def record(recipe: Recipe, seconds: float) -> None:
    """Remember how many seconds one image of this recipe took."""
    _seconds[recipe.base] = seconds / _passes(recipe)


def estimate(recipe: Recipe) -> float | None:
    """Seconds for one image of this recipe; None while no image was drawn with its base."""
    known = _seconds.get(recipe.base)
    return None if known is None else known * _passes(recipe)


def _passes(recipe: Recipe) -> float:
    """Passes of the denoiser, times pixels."""
    share = recipe.denoising if recipe.source else 1.0
    return max(1.0, recipe.steps * share) * (2 if recipe.guidance > 1 else 1) * recipe.width * recipe.height
