"""From noise to latents: the loop of every diffusion and flow model, over a family's own steps."""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.basemodels.family import Conditioning


@torch.no_grad()
def sample(
    base: Family,
    scheduler: Any,
    latents: Tensor,
    cond: Conditioning,
    uncond: Conditioning | None,
    guidance: float,
    generators: list[torch.Generator],
    on_step: Callable[[int, Tensor], None] | None = None,
    *,
    rescale: float = 0.0,
    skipped: int = 0,
    before: Callable[[int], None] | None = None,
    blend_callback: Callable[[Tensor, int], Tensor] | None = None,
) -> Tensor:
    """Denoise `latents` (B, C, h, w) along the scheduler's timesteps, which are set.

    cond, uncond      conditioning of B rows each; with both, classifier-free guidance (arXiv:2207.12598):
                      e = e_uncond + guidance (e_cond - e_uncond)
                      families with embedded guidance get it as an input instead, in one prediction
    rescale           share in which the guided output gets back the spread of e_cond (CFG rescale, arXiv:2305.08891,
                      sec. 3.4); 0 is none
    generators        of ancestral schedulers' own noise, one per image
    on_step           called with (timesteps done, the predicted clean latents x0); may raise to stop
    skipped           timesteps at the beginning that are left out, for latents that are only partly noise
    before            called with the number of timesteps done, before each
    blend_callback    called with (latents, index of the next timestep) after each; returns the latents to go on with
    """
    if base.guidance_embedded:
        cond, uncond = base.guided(cond, guidance), None
    both = cond if uncond is None else {k: torch.cat([uncond[k], cond[k]]) for k in cond}
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
        noisy = latents if uncond is None else torch.cat([latents] * 2)
        if hasattr(scheduler, "scale_model_input"):
            noisy = scheduler.scale_model_input(noisy, t)
        model_output = base.predict(noisy, t, both)
        if uncond is not None:
            output_uncond, output_cond = model_output.chunk(2)
            model_output = output_uncond + guidance * (output_cond - output_uncond)
            if rescale:
                model_output = _rescaled(model_output, output_cond, rescale)
        latents = scheduler.step(model_output, t, latents, **extra, return_dict=False)[0]
        if blend_callback:
            latents = blend_callback(latents, index + 1)
        if on_step:
            on_step(index + 1, base.pred_x0(noisy[: len(latents)], model_output, t))
    return latents


def _rescaled(guided: Tensor, cond: Tensor, share: float) -> Tensor:
    """As diffusers' `rescale_noise_cfg`."""
    axes = tuple(range(1, cond.ndim))
    whole = guided * (cond.std(axes, keepdim=True) / guided.std(axes, keepdim=True))
    return share * whole + (1 - share) * guided
