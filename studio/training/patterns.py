"""A line of `adapter.patterns`: which layers, with what rank, alpha and learning rate. No torch here.

    attn2                          layers whose path holds it, at the run's own rank, alpha and rate
    up_blocks\\.0\\.attentions\\.1  rank=32 alpha=16 lr=5e-5
    \\.ff\\.                        rank=0          left out

The first line that fits a layer counts.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MOST = 50  # lines
MAX_ALPHA = 4000  # with rsLoRA times the root of the rank, which fp16 has to hold
_KEYS = {"rank": "rank", "alpha": "alpha", "lr": "learning_rate", "learning_rate": "learning_rate"}


@dataclass(frozen=True)
class LayerPattern:
    """pattern: a regular expression searched in a layer's path. None: as the run has it; rank 0: left out."""

    pattern: str
    rank: int | None = None
    alpha: float | None = None
    learning_rate: float | None = None


def parse(line: str) -> LayerPattern:
    """Raises ValueError in one sentence."""
    pattern, *rest = line.split()
    values: dict[str, float] = {}
    for word in rest:
        name, _, number = word.partition("=")
        if name not in _KEYS:
            raise ValueError(f"{word[:40]!r} is not rank=, alpha= or lr= behind the pattern {pattern[:40]!r}")
        try:
            values[_KEYS[name]] = float(number)
        except ValueError:
            raise ValueError(f"{word[:40]!r} holds no number") from None
    rank, alpha, rate = (values.get(name) for name in ("rank", "alpha", "learning_rate"))
    if rank is not None and (rank != int(rank) or not 0 <= rank <= 256):
        raise ValueError(f"the rank of {pattern[:40]!r} must be a whole number from 0 to 256")
    if alpha is not None and not 0 < alpha <= MAX_ALPHA or rate is not None and not 0 < rate <= 10:
        raise ValueError(f"alpha and lr of {pattern[:40]!r} must be above 0, alpha at most {MAX_ALPHA}, lr at most 10")
    try:
        re.compile(pattern).search("")
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern[:40]!r} is not a regular expression: {error}") from None
    return LayerPattern(pattern, None if rank is None else int(rank), alpha, rate)


def parsed(lines: Sequence[str]) -> list[LayerPattern]:
    """Of all lines but empty ones. Raises ValueError, also where a pattern stands twice."""
    found = [parse(line) for line in lines if line.strip()]
    twice = next((one.pattern for one in found if sum(other.pattern == one.pattern for other in found) > 1), None)
    if twice is not None:
        raise ValueError(f"the pattern {twice[:40]!r} stands there twice")
    return found


def ranks_and_alphas(
    patterns: Sequence[LayerPattern], rank: int, alpha: float | None
) -> tuple[dict[str, int], dict[str, float]]:
    """({pattern: rank}, {pattern: alpha}) as `AdapterSpec` takes them. alpha keeps its share of another rank."""
    ranks = {one.pattern: rank if one.rank is None else one.rank for one in patterns}
    share = 1.0 if alpha is None else alpha / rank
    alphas = {one.pattern: one.alpha or share * (ranks[one.pattern] or 1) for one in patterns}
    return ranks, alphas


def rates(patterns: Sequence[LayerPattern], own: float) -> Mapping[str, float]:
    """{pattern: learning rate}, in order; empty where none differs."""
    if all(one.learning_rate is None for one in patterns):
        return {}
    return {one.pattern: one.learning_rate or own for one in patterns}
