"""Which timesteps a run will draw, known before its base is loaded."""

import torch

from studio.basemodels import BaseChoice, base_folder, family_class
from studio.basemodels.card import describe_base
from studio.basemodels.configs import read_config
from studio.basemodels.flow import Flow, own_shift, shift_at_size, shifted
from studio.basemodels.single_file import config_folder, kind_of_file
from studio.training.config import RunConfig
from studio.training.objective import timesteps

BINS = 20
_DRAWS = 20_000


def timestep_histogram(config: RunConfig) -> list[float]:
    """Share of a run's draws in each of BINS equal parts of the noise schedule, from no noise to noise alone.

    With `shift_by_resolution` at the run's own resolution. Raises BaseModelError.
    """
    choice, place = BaseChoice.of(config.base), base_folder(config.base)
    family, settings = family_class(place, choice.family), config.training
    draws = (torch.arange(_DRAWS) + 0.5) / _DRAWS
    shares = timesteps(draws, settings, family.usual_timesteps)
    if issubclass(family, Flow):
        configs = config_folder(place, kind_of_file(place, choice.family)) if place.is_file() else place
        scheduler, card = read_config(configs / "scheduler" / "scheduler_config.json"), describe_base(config.base)
        shift = own_shift(scheduler) if settings.shift is None else settings.shift
        if settings.shift_by_resolution:
            side = config.data.resolution or card.resolution
            shift = shift_at_size(scheduler, (side / card.multiple) ** 2, (card.resolution / card.multiple) ** 2)
        shares = shifted(shares, shift)
    counts = torch.histc(shares, BINS, 0.0, 1.0)
    return [round(count, 5) for count in (counts / _DRAWS).tolist()]
