"""What a step minimises, as formulas. u is a share of the noise schedule, 0 (no noise) to 1 (noise alone)."""

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.errors import RunError
from studio.training.config import TrainingConfig


def timesteps(shares: Tensor, settings: TrainingConfig, usual: str = "uniform") -> Tensor:
    """(B,) uniform random numbers to shares u of the schedule, by the run's distribution within its range.

    logit-normal: u = sigmoid(n), n normal (arXiv:2403.03206, sec. 3.1). usual: what "auto" means for the base.
    """
    if (usual if settings.timesteps == "auto" else settings.timesteps) == "logit-normal":
        shares = torch.sigmoid(torch.special.ndtri(shares.clamp(1e-6, 1 - 1e-6)))
    return settings.least_noise + (settings.most_noise - settings.least_noise) * shares


def stratified(count: int, draw: torch.Generator) -> Tensor:
    """(count,) random numbers, one in each of `count` equal parts of 0..1: each batch sees the whole schedule."""
    return (torch.arange(count) + torch.rand(count, generator=draw)) / count


def offset_noise(noise: Tensor, offset: float, draw: torch.Generator) -> Tensor:
    """Noise whose mean varies by channel, so that brightness is learned (Guttenberg, "Diffusion with Offset Noise")."""
    shift = torch.randn(*noise.shape[:2], *(1 for _ in noise.shape[2:]), generator=draw)
    return noise + offset * shift


def min_snr_weight(snr: Tensor, gamma: float, prediction_type: str) -> Tensor:
    """(B,) weights min(snr, gamma) / snr for epsilon, / (snr + 1) for v (arXiv:2303.09556)."""
    clipped = snr.clamp(max=gamma)
    if prediction_type == "v_prediction":
        return clipped / (snr + 1)
    least = 1e-8  # at no signal at all the quotient tends to 1
    return clipped.clamp(min=least) / snr.clamp(min=least)


def pseudo_huber(error: Tensor, c: float) -> Tensor:
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
    error = pseudo_huber(error, settings.huber_c) if settings and settings.loss == "huber" else error.square()
    error = (error if weight is None else error * weight).mean((1, 2, 3))
    if settings and settings.min_snr_gamma:
        snr = base.snr(t)
        if snr is None:
            raise RunError(f"Min-SNR weighting has no meaning for {base.title}: set training.min_snr_gamma to 0.")
        error = error * min_snr_weight(snr, settings.min_snr_gamma, base.prediction_type)
    return error
