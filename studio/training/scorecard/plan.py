"""What a scorecard costs, and what of it fits into a run's budget. No torch here.

The unit is a row: one image through the denoiser once. A budget in rows gives the same scorecards on every machine, so
that a run is repeated exactly; a budget in seconds would not. The seconds it took are measured and reported.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from studio.training.config import RunConfig

BACKWARD = 2  # a backward pass costs about two forward passes
DECODED = 2  # rows that decoding and comparing an image count as
LOOKED_AT = 4  # times `checked` images are looked at for noise, each small and half a row


@dataclass(frozen=True)
class Size:
    """How much a scorecard draws.

    held_out, trained, unrelated  prompts of each kind
    plain                         of the first two kinds, how many are drawn without the trigger as well
    steps                         sampling steps of an image
    losses                        images each, held out and trained, whose loss is measured
    checked                       trained images that the base checks with their captions, once a run
    others                        captions of others that an own caption is held against
    """

    held_out: int
    trained: int
    unrelated: int
    plain: int
    steps: int
    losses: int
    checked: int
    others: int = 2

    def drawn(self, guidance: bool = True) -> int:
        """Rows of an image."""
        return self.steps * (2 if guidance else 1) + DECODED

    def once(self, guidance: bool = True) -> int:
        """Rows of what is measured once a run, of the base alone."""
        judged = 2 * (self.held_out + self.trained) + self.checked
        images = self.held_out + self.trained + self.unrelated
        return images * self.drawn(guidance) + self._losses() + self._judged(judged) + LOOKED_AT * self.checked // 2

    def each(self, guidance: bool = True) -> int:
        """Rows of each scorecard."""
        own = self.held_out + self.trained
        return (
            (own + self.unrelated + self.plain) * self.drawn(guidance)
            + self._losses()
            + self._judged(own + (self.losses if self.checked else 0))
        )

    def strengths(self) -> int:
        """Rows of finding the strength."""
        return NOISES * self.losses * len(STRENGTHS)

    def _losses(self) -> int:
        return NOISES * 2 * self.losses

    def _judged(self, images: int) -> int:
        return NOISES * (1 + self.others) * images


NOISES = 4  # noise levels at which a loss is measured
STRENGTHS = (0.6, 0.8, 1.2)  # tried beside 1
FULL = Size(6, 3, 3, 3, 15, 8, 16)  # on demand
SIZES = (
    FULL,
    Size(4, 2, 2, 2, 12, 6, 12),
    Size(4, 1, 2, 1, 8, 4, 8),
    Size(3, 0, 1, 1, 8, 4, 6),
    Size(3, 0, 0, 0, 8, 2, 0, 1),
)
MOST = 6  # scorecards a run
UNTIL = 3  # scorecards before its end of a run that ends by the verdict, where they fit


@dataclass(frozen=True)
class Plan:
    """size: of each card; moments: the validations after which one is filled, beside the last; None: nothing fits."""

    size: Size | None
    moments: tuple[int, ...] = ()
    budget: int = 0


def budget_of(config: RunConfig) -> int:
    """Rows that the run may spend on scorecards."""
    training = config.training
    again = 1 if training.gradient_checkpointing else 0
    rows = training.steps * training.batch_size * training.accumulation * (1 + BACKWARD + again)
    return int(config.validation.scorecard * rows)


def plan_of(config: RunConfig, pixels: float = 1.0) -> Plan:
    """The largest scorecards that fit, at the end and, where there is room, at validations before it.

    pixels: of an image that is drawn, over those of one that is trained on. A run that ends by the verdict has smaller
    ones rather than fewer than UNTIL before its end.
    """
    budget = budget_of(config)
    guidance = config.preview.guidance > 1
    for least in (UNTIL, 0) if config.validation.until_verdict else (0,):
        for size in SIZES:
            room = budget - pixels * (size.once(guidance) + size.each(guidance) + size.strengths())
            more = min(MOST - 1, math.floor(room / (pixels * size.each(guidance))))
            if more >= least:
                return Plan(size, moments(config.training.steps, config.validation.every, more), budget)
    return Plan(None, (), budget)


def moments(steps: int, every: int, count: int) -> tuple[int, ...]:
    """`count` validations before the end, evenly spread over the run."""
    due: Sequence[int] = range(every, steps, every) if every else ()
    if count >= len(due):
        return tuple(due)
    return tuple(sorted({due[round((place + 1) * len(due) / (count + 1)) - 1] for place in range(count)}))
