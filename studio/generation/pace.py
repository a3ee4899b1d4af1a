"""How long a picture takes here, as those that were drawn since the start tell."""

from studio.generation.recipe import Recipe

_seconds: dict[str, float] = {}  # base: for one pass over a pixel


def learn(recipe: Recipe, seconds: float) -> None:
    """One picture of this recipe took so long."""
    _seconds[recipe.base] = seconds / _passes(recipe)


def expected(recipe: Recipe) -> float | None:
    """Seconds for one picture of this recipe; None while no picture was drawn with its base."""
    known = _seconds.get(recipe.base)
    return None if known is None else known * _passes(recipe)


def _passes(recipe: Recipe) -> float:
    """Of the denoiser, times pixels."""
    share = recipe.denoising if recipe.source else 1.0
    return max(1.0, recipe.steps * share) * (2 if recipe.guidance > 1 else 1) * recipe.width * recipe.height
