"""The loss, as formulas."""

import math

import torch
from torch import Tensor

from studio.basemodels import StableDiffusion
from studio.training.examples import Examples


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(B,) weights min(snr, gamma) / snr for epsilon, / (snr + 1) for v (arXiv:2303.09556)."""
    clipped = snr.clamp(max=gamma)
    # At zero signal the epsilon weight tends to 1; the floor only keeps the division finite.
    return clipped / (snr + 1) if prediction_type == "v_prediction" else clipped / snr.clamp(min=1e-8)


def loss_of(
    base: StableDiffusion, latents: Tensor, states: Tensor, noise: Tensor, t: Tensor, gamma: float = 0.0
) -> Tensor:
    """(B,) mean squared error of each picture, weighted when gamma is above 0. t: (B,) whole timesteps."""
    said = base.predict(base.add_noise(latents, noise, t), t, states)
    error = (said - base.target(latents, noise, t)).float().square().mean((1, 2, 3))
    return error * min_snr_weight(base.snr(t), gamma, base.prediction_type) if gamma else error


@torch.no_grad()
def held_out_loss(base: StableDiffusion, held: Examples, draws: int = 8, batch: int = 8) -> float:
    """Mean loss on held-out pictures at `draws` fixed timesteps each, spread over the schedule, with fixed noise."""
    total, count = 0.0, 0
    for number in range(draws):
        draw = torch.Generator().manual_seed(1000 + number)
        noise = torch.randn(held.latents.shape, generator=draw).to(base.device)
        at = int((number + 0.5) * base.timesteps / draws)
        for start in range(0, len(held), batch):
            rows = slice(start, start + batch)
            latents = held.latents[rows]
            t = torch.full((len(latents),), at, device=base.device)
            total += loss_of(base, latents, held.states[rows], noise[rows], t).sum().item()
            count += len(latents)
    return total / count


def rate_at(step: int, steps: int, peak: float, warmup: int, schedule: str) -> float:
    """The learning rate of step 1..steps: linear warm-up, then constant or half a cosine down to a tenth."""
    if step <= warmup:
        return peak * step / max(1, warmup)
    if schedule == "constant":
        return peak
    through = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * through)) / 2)
