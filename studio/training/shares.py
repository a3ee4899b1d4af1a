"""How often each image stands in a run's plan, in whole numbers. No torch here.

Without folders' weights, and with one resolution, that is its repeats. A folder's weight is its share of all samples;
an image that is trained in several sizes stands in each of them with an equal part of what it has.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

FINEST = 64  # of shares that no small whole numbers have: as near as one with this many parts
ROOM = 4096  # places of a plan that are always allowed
MOST = 64  # places an image on average, above that


def places_of(
    repeats: Sequence[int], sizes: Sequence[int], folders: Sequence[str], weights: Sequence[float | None]
) -> list[int]:
    """Places of each row, a row being an image in one of its sizes.

    repeats, sizes: of the row's image, how often it counts and in how many sizes it is trained; folders, weights: of
    the row. A folder without a weight has 1 where another one has one.
    """
    weighted = any(weight is not None for weight in weights)
    if not weighted and all(count == 1 for count in sizes):
        return list(repeats)
    wanted = [Fraction(count, parts) for count, parts in zip(repeats, sizes)]
    if weighted:
        whole: dict[str, Fraction] = {}
        for folder, share in zip(folders, wanted):
            whole[folder] = whole.get(folder, Fraction(0)) + share
        exact = [Fraction("1" if weight is None else f"{weight:.10g}") for weight in weights]
        wanted = [share * weight / whole[folder] for share, weight, folder in zip(wanted, exact, folders)]
    return whole_numbers(wanted)


def whole_numbers(shares: Sequence[Fraction]) -> list[int]:
    """Numbers of at least 1 in these proportions: exactly where that takes few, else as near as FINEST allows."""
    if not shares:
        return []
    least, most = min(shares), max(ROOM, MOST * len(shares))
    ratios = {share: share / least for share in set(shares)}
    common = math.lcm(*(ratio.denominator for ratio in ratios.values()))
    total = sum(ratios[share] for share in shares)
    if common * total <= most:
        return [int(ratios[share] * common) for share in shares]

    def error(parts: int) -> float:
        return max(abs(float(round(ratio * parts) / (ratio * parts)) - 1) for ratio in ratios.values())

    fine = [parts for parts in range(1, FINEST + 1) if parts * total <= most] or [1]
    parts = min(fine, key=lambda one: (error(one), one))
    return [round(ratios[share] * parts) for share in shares]
