"""Is it learning? What the held-out losses say, in words.

Losses of two moments are compared cell by cell (the same image, noise and timestep in both), so that the luck of the
draw cancels; a difference counts when it is larger than twice its standard error.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the page reads these words, without torch
    from torch import Tensor

BANDS = 4  # quarters of the noise schedule
BAND_NAMES = ("fine detail", "texture", "shapes", "composition")  # what is decided there, least noise first
LEARNING, PLATEAU, OVERFITTING, NOTHING = "learning", "plateau", "over-fitting", "no better than the base"
WORDS = (LEARNING, PLATEAU, OVERFITTING, NOTHING)
PATIENCE = 3  # validations without a better one
SMALL = 0.01  # of the base's loss: less is no change


def judge(history: list[tuple[int, float]], now: Tensor, best: Tensor, base: Tensor) -> str:
    """One of WORDS. history: (step, loss) with this validation last; now, best, base: (images, draws) losses."""
    small = SMALL * base.mean().item()
    at = min(range(len(history)), key=lambda i: history[i][1])
    since_best = len(history) - 1 - at
    worse, error = difference(now, best)
    if since_best >= 2 and worse > max(2 * error, small):
        return OVERFITTING
    gain, error = difference(base, best)
    if gain < max(2 * error, small):
        return LEARNING if len(history) < PATIENCE else NOTHING
    return LEARNING if _fell(history, small) else PLATEAU


def difference(one: Tensor, other: Tensor) -> tuple[float, float]:
    """(mean of one - other, its standard error)."""
    cells = (one - other).flatten()
    return cells.mean().item(), cells.std().item() / math.sqrt(len(cells)) if len(cells) > 1 else 0.0


def _fell(history: list[tuple[int, float]], small: float) -> bool:
    """Whether the last PATIENCE validations brought a loss that is clearly lower than all before them."""
    before, lately = history[:-PATIENCE], history[-PATIENCE:]
    return not before or min(loss for _, loss in lately) < min(loss for _, loss in before) - small


def describe(now: Tensor, best: Tensor, base: Tensor) -> str:
    """Where in the noise schedule the adapter is better than the base, and where it has turned worse again."""
    better, worse = [], []
    for name, n, b, o in zip(BAND_NAMES, now.chunk(BANDS, 1), best.chunk(BANDS, 1), base.chunk(BANDS, 1)):
        gain, error = difference(o, n)
        if gain > max(2 * error, SMALL * o.mean().item()):
            better.append(f"{name} ({-100 * gain / o.mean().item():.0f} %)".replace("-", "−"))
        fall, error = difference(n, b)
        if fall > max(2 * error, SMALL * o.mean().item()):
            worse.append(name)
    text = f"Better than the base in {', '.join(better)}." if better else "Nowhere clearly better than the base."
    return text + (f" Worse than at its best in {', '.join(worse)}." if worse else "")
