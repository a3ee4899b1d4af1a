"""How long a run is: in steps, or in epochs, which come to steps by what there is to train on. No torch here."""

import math
from fractions import Fraction

from studio.training.config import RunConfig, config_from, dotted
from studio.training.selection import split

FINEST = 16  # of the ratio in which own and regularization images are balanced: exact to 1 part in this or better


def balance(own: int, regularization: int) -> tuple[int, int]:
    """(a, b) so that a · own is about b · regularization; (1, 1) where there is only one kind."""
    if not own or not regularization:
        return 1, 1
    few, many = sorted((own, regularization))
    ratio = Fraction(many, few).limit_denominator(FINEST)
    turns = ratio.numerator, ratio.denominator
    return turns if own <= regularization else turns[::-1]


def steps_for(epochs: float, own: int, regularization: int, images_per_step: int) -> int:
    """Steps in which each own image is shown `epochs` times. own, regularization: images, each with its repeats."""
    own_turns, other_turns = balance(own, regularization)
    shown = own + Fraction(other_turns * regularization, own_turns)  # images of an epoch
    return max(1, math.ceil(Fraction(str(epochs)) * shown / images_per_step))


def with_steps(config: RunConfig) -> RunConfig:
    """The settings with the steps that their epochs come to; as they are where no epochs are set.

    A warm-up that would be longer becomes a tenth of the steps. Raises DatasetError, ConfigError.
    """
    training = config.training
    if training.epochs is None:
        return config
    chosen = split(config)
    own, regularization = (
        sum(item.repeats * chosen.data_of(item, config.data).repeats for item in items)
        for items in (chosen.items, chosen.regularization)
    )
    regularization += config.data.class_images
    steps = steps_for(training.epochs, own, regularization, training.batch_size * training.accumulation)
    warmup = training.warmup if training.warmup < steps else steps // 10
    return config_from(dotted(config) | {"training.steps": steps, "training.warmup": warmup})
