"""From noise to latents: the loop of every diffusion and flow model, over a family's own steps."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.basemodels.family import Conditions


@torch.no_grad()
def sample(
    base: Family,
    scheduler: Any,
    latents: Tensor,
    wanted: Conditions,
    unwanted: Conditions | None,
    guidance: float,
    generators: list[torch.Generator],
    on_step: Callable[[int, Tensor], None] | None = None,
    *,
    skipped: int = 0,
    before: Callable[[int], None] | None = None,
    hold: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Denoise `latents` (B, C, h, w) along the scheduler's timesteps, which are set.

    wanted, unwanted  conditions of B rows each; with both, classifier-free guidance (arXiv:2207.12598):
                      e = e_unwanted + guidance (e_wanted - e_unwanted)
                      families that guide themselves are told it instead, in one prediction
    generators        of ancestral schedulers' own noise, one a picture
    on_step           told (timesteps done, the clean latents that the denoiser has in mind), may raise to break off
    skipped           timesteps at the beginning that are left out, for latents that are only partly noise
    before            told the number of timesteps done, before each
    hold              called with (latents, index of the next timestep) after each; its answer goes on
    """
    if base.guides_itself:
        wanted, unwanted = base.guided(wanted, guidance), None
    both = wanted if unwanted is None else {k: torch.cat([unwanted[k], wanted[k]]) for k in wanted}
    extra: dict[str, Any] = {}
    accepted = inspect.signature(scheduler.step).parameters
    if "eta" in accepted:  # no noise but that which a scheduler always adds, as in diffusers' pipelines
        extra["eta"] = 0.0
    if "generator" in accepted:
        extra["generator"] = generators if len(generators) > 1 else generators[0]
    if skipped and hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(skipped)
    for index, t in enumerate(scheduler.timesteps[skipped:], skipped):
        if before:
            before(index)
        noisy = latents if unwanted is None else torch.cat([latents] * 2)
        if hasattr(scheduler, "scale_model_input"):
            noisy = scheduler.scale_model_input(noisy, t)
        said = base.predict(noisy, t, both)
        if unwanted is not None:
            without, with_ = said.chunk(2)
            said = without + guidance * (with_ - without)
        latents = scheduler.step(said, t, latents, **extra, return_dict=False)[0]
        if hold:
            latents = hold(latents, index + 1)
        if on_step:
            on_step(index + 1, base.clean(noisy[: len(latents)], said, t))
    return latents
