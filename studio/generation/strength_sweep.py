"""Strength sweep: one image at several strengths of one adapter, in one batch and from the same noise."""

import threading
from collections.abc import Sequence

import torch
from PIL import Image

from studio.adapters import read_outline
from studio.basemodels import load_base
from studio.errors import AdapterError, out_of_memory
from studio.generation.adapter_cache import cache_of
from studio.generation.applied_adapter import AppliedAdapter
from studio.generation.drawing import Progress, draw_rows
from studio.generation.recipe import Recipe

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
OF_A_SLIDER = (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def strengths_for(adapter: AppliedAdapter) -> tuple[float, ...]:
    """From the base to beyond the adapter; from one end to the other of a slider."""
    try:
        slider = "studio.slider" in read_outline(adapter.file).metadata
    except AdapterError:  # a run under way has no file yet
        return STRENGTHS
    return OF_A_SLIDER if slider else STRENGTHS


def at_strength(recipe: Recipe, strength: float, index: int = 0) -> Recipe:
    """The recipe with another strength of one adapter; its text encoder's, where it stands apart, in proportion."""
    adapter = recipe.adapters[index]
    apart = None if adapter.text_strength is None else strength * _ratio(recipe, index)
    moved = adapter.model_copy(update={"strength": strength, "text_strength": apart})
    adapters = (*recipe.adapters[:index], moved, *recipe.adapters[index + 1 :])
    return recipe.model_copy(update={"adapters": adapters, "count": 1})


def draw_strength_sweep(
    recipe: Recipe,
    strengths: Sequence[float] = STRENGTHS,
    index: int = 0,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> list[Image.Image]:
    """An image at each of `strengths` of the recipe's adapter `index`: what `at_strength` would draw one by one.

    When memory runs out, it is drawn in two halves. Raises GenerationError when stopped, AdapterError like `generate`.
    """
    base = load_base(recipe.base)
    whole = at_strength(recipe, 1.0, index)
    rows = {index: torch.tensor([float(strength) for strength in strengths])}
    try:
        with cache_of(base).active(whole.adapters, rows) as step:
            return draw_rows(base, whole, len(strengths), stop, progress, before=step)
    except (RuntimeError, MemoryError) as error:
        if len(strengths) == 1 or not out_of_memory(error):
            raise
    half = len(strengths) // 2
    return [
        image
        for part in (strengths[:half], strengths[half:])
        for image in draw_strength_sweep(recipe, part, index, stop, progress)
    ]


def _ratio(recipe: Recipe, index: int) -> float:
    """Strength on the text encoders to that on the rest; 1 where there is none to compare with."""
    adapter = recipe.adapters[index]
    return adapter.text_strength / adapter.strength if adapter.text_strength is not None and adapter.strength else 1.0
