"""Paired differences: of losses on the same images, timesteps and noise, with and without something. No torch here."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST = 3  # images below which nothing is said to be clear
# Student's t at 97.5 % for 1, 2, … degrees of freedom, so that a difference is called clear by chance once in twenty.
_T = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13, 2.12, 2.11, 2.10)
_T_MANY = 2.0


@dataclass(frozen=True)
class Difference:
    """The mean of `count` differences and its standard error."""

    value: float = 0.0
    error: float = 0.0
    count: int = 0

    @property
    def margin(self) -> float:
        """Half the width of the 95 % interval."""
        if self.count < 2:
            return math.inf
        return self.error * (_T[self.count - 2] if self.count - 2 < len(_T) else _T_MANY)

    @property
    def is_clear(self) -> bool:
        """Whether it is on one side of 0, by enough images."""
        return self.count >= LEAST and abs(self.value) > self.margin

    def over(self, whole: float) -> "Difference":
        """As a share of `whole`."""
        return Difference(self.value / whole, abs(self.error / whole), self.count) if whole else Difference()


def difference(values: Sequence[float]) -> Difference:
    """Of one value an image."""
    count = len(values)
    if not count:
        return Difference()
    mean = sum(values) / count
    if count == 1:
        return Difference(mean, 0.0, 1)
    variance = sum((one - mean) ** 2 for one in values) / (count - 1)
    return Difference(mean, math.sqrt(variance / count), count)
