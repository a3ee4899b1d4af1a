"""Sizes of images that a base can draw. No torch here."""

from studio.errors import BaseModelError


def refuse_size(title: str, step: int, width: int, height: int) -> None:
    """Raises BaseModelError where a side does not divide by `step`; title: of the base, for the sentence."""
    if width % step or height % step:
        near = " × ".join(str(max(step, round(side / step) * step)) for side in (width, height))
        raise BaseModelError(f"{title} takes sides that divide by {step}: take {near} instead of {width} × {height}.")
