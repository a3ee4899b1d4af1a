"""What a step minimises, as formulas. u is a share of the noise schedule, 0 (no noise) to 1 (noise alone)."""

import math

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.errors import RunError
from studio.training.config_sections import TrainingConfig


def timesteps(shares: Tensor, settings: TrainingConfig, usual: str = "uniform") -> Tensor:
    """(B,) uniform random numbers to shares u of the schedule, by the run's distribution within its range.

    The distributions are those of arXiv:2403.03206, sec. 3.1. usual: what "auto" means for the base.
    """
    match usual if settings.timesteps == "auto" else settings.timesteps:
        case "logit-normal":
            normal = torch.special.ndtri(shares.clamp(1e-6, 1 - 1e-6))
            shares = torch.sigmoid(settings.logit_mean + settings.logit_std * normal)
        case "mode":
            shares = mode_sampling(shares, settings.mode_scale)
        case "cosmap":
            shares = 1 - 1 / (torch.tan(math.pi / 2 * shares.clamp(0, 1 - 1e-6)) + 1)
    return settings.least_noise + (settings.most_noise - settings.least_noise) * shares


def mode_sampling(u: Tensor, scale: float) -> Tensor:
    """1 - u - s (cos² (πu / 2) - 1 + u) (arXiv:2403.03206, eq. 20): mid noise for s above 0, both ends below."""
    return 1 - u - scale * (torch.cos(math.pi / 2 * u).square() - 1 + u)


def stratified(count: int, draw: torch.Generator) -> Tensor:
    """(count,) random numbers, one in each of `count` equal parts of 0..1: each batch sees the whole schedule."""
    return (torch.arange(count) + torch.rand(count, generator=draw)) / count


def offset_noise(noise: Tensor, offset: float, draw: torch.Generator) -> Tensor:
    """Noise whose mean varies by channel, so that brightness is learned (Guttenberg, "Diffusion with Offset Noise")."""
    shift = torch.randn(*noise.shape[:2], *(1 for _ in noise.shape[2:]), generator=draw)
    return noise + offset * shift


def pyramid_noise(noise: Tensor, levels: int, discount: float, draw: torch.Generator) -> Tensor:
    """Noise with coarser noise on it, of the same variance in all (Whitaker, "Multi-Resolution Noise").

    Level i is 2 to 4 times coarser than the one before and weighs discount^i, as in kohya's `pyramid_noise_like`.
    """
    shape, size = noise.shape[:2], noise.shape[2:]
    for level in range(levels):
        coarser = (2 + 2 * torch.rand(1, generator=draw).item()) ** level
        small = [max(1, int(side / coarser)) for side in size]
        fresh = torch.randn(*shape, *small, generator=draw)
        noise = noise + discount**level * torch.nn.functional.interpolate(fresh, size, mode="bilinear")
        if max(small) == 1:
            break
    return noise / noise.std()


def debiased_weight(snr: Tensor, prediction_type: str) -> Tensor:
    """(B,) weights 1 / sqrt(snr) for epsilon, 1 / (snr + 1) for v (arXiv:2310.08442); snr between 0.001 and 1000."""
    snr = snr.clamp(1e-3, 1000)
    return 1 / (snr + 1) if prediction_type == "v_prediction" else snr.rsqrt()


def huber_at(settings: TrainingConfig, u: Tensor, sigma: Tensor) -> Tensor:
    """(B, 1, 1, 1) Huber c of each image (arXiv:2403.16728), as diffusers' and kohya's scripts have it.

    u: (B,) share of the schedule; sigma: (B,) noise to signal. At no noise both schedules are 1, at noise alone
    `huber_c`.
    """
    c = settings.huber_c
    match settings.huber_schedule:
        case "exponential":
            found = c**u
        case "snr":
            found = (1 - c) / (1 + sigma).square() + c
        case _:
            found = torch.full_like(u, c)
    return found.float().reshape(-1, 1, 1, 1)


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(B,) weights min(snr, gamma) / snr for epsilon, / (snr + 1) for v (arXiv:2303.09556)."""
    clipped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    least = 1e-8  # at no signal at all the quotient tends to 1
    return clipped.clamp(min=least) / snr.clamp(min=least)


def pseudo_huber(error: Tensor, c: float | Tensor) -> Tensor:
    """2c (sqrt(e² + c²) - c): as e² / 1 near 0, as 2c |e| far out (as diffusers' and kohya's scripts have it)."""
    return 2 * c * ((error.square() + c * c).sqrt() - c)


def loss_of(
    base: Family,
    latents: Tensor,
    conditions: dict[str, Tensor],
    noise: Tensor,
    t: Tensor,
    weight: Tensor | None = None,
    settings: TrainingConfig | None = None,
    perturbation: Tensor | None = None,
) -> Tensor:
    """(B,) error of each image, weighted as the run asks; plain mean squared error without settings.

    t: (B,) as `base.times` gives it; weight: (B, 1, h, w); perturbation: (B, C, h, w) noise that only the input gets,
    so that the model learns to mend its own errors (arXiv:2301.11706).
    """
    seen = noise if perturbation is None else noise + perturbation
    model_output = base.predict(base.add_noise(latents, seen, t), t, conditions)
    error = (model_output - base.target(latents, noise, t)).float()
    if settings and settings.loss == "huber":
        error = pseudo_huber(error, huber_at(settings, base.shares(t), base.noise_to_signal(t)))
    else:
        error = error.square()
    error = (error if weight is None else error * weight).mean((1, 2, 3))
    if settings and settings.min_snr_gamma:
        snr = base.snr(t)
        if snr is None:
            raise RunError(f"Min-SNR weighting has no meaning for {base.title}: set training.min_snr_gamma to 0.")
        error = error * min_snr_weight(snr, settings.min_snr_gamma, base.prediction_type)
    if settings and settings.debiased_estimation:
        snr = base.snr(t)
        if snr is None:
            raise RunError(f"Debiased estimation has no meaning for {base.title}: leave it out.")
        error = error * debiased_weight(snr, base.prediction_type)
    return error
