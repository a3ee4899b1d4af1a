"""What a step minimises, against formulas written down elsewhere: diffusers' schedulers, scipy's distributions."""

import numpy as np
import pytest
import scipy.stats
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from studio.basemodels import load_base
from studio.training.config_sections import TrainingConfig
from studio.training.objective import loss_of, min_snr_weight, offset_noise, pseudo_huber, stratified, timesteps


@pytest.fixture(scope="module")
def base():
    return load_base("starter", shared=False)


@pytest.fixture(scope="module")
def batch(base):
    draw = torch.Generator().manual_seed(3)
    shape = (4, *base.latent_shape(128, 128))
    latents, noise = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
    with torch.no_grad():
        conditions = base.encode_prompt(["a red apple", "a fish", "", "a cat"])
    return latents, noise, torch.tensor([3, 300, 600, 999]), conditions


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_noise_and_target_are_those_of_diffusers_scheduler(base, batch, prediction, monkeypatch):
    latents, noise, t, _ = batch
    monkeypatch.setattr(base, "prediction_type", prediction)
    scheduler = DDPMScheduler.from_config(base.pipeline.scheduler.config)
    assert torch.allclose(base.add_noise(latents, noise, t), scheduler.add_noise(latents, noise, t), atol=1e-6)
    wanted = noise if prediction == "epsilon" else scheduler.get_velocity(latents, noise, t)
    assert torch.allclose(base.target(latents, noise, t), wanted, atol=1e-6)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_those_of_diffusers_training_script(base, prediction):
    """The script's rule: min(snr, gamma) / snr, and / (snr + 1) for v-prediction."""
    t = torch.arange(0, 1000, 37)
    snr = compute_snr(DDPMScheduler.from_config(base.pipeline.scheduler.config), t)
    clipped = torch.stack([snr, 5.0 * torch.ones_like(t)], dim=1).min(dim=1)[0]
    wanted = clipped / snr if prediction == "epsilon" else clipped / (snr + 1)
    wanted = wanted.nan_to_num(1.0)  # 0 / 0 at no signal at all, where the starter's schedule ends
    assert torch.allclose(min_snr_weight(base.snr(t), 5.0, prediction), wanted, rtol=1e-4)


@torch.no_grad()
def test_plain_loss_is_the_mean_squared_error_of_each_image(base, batch):
    latents, noise, t, conditions = batch
    scheduler = DDPMScheduler.from_config(base.pipeline.scheduler.config)
    noisy = scheduler.add_noise(latents, noise, t)
    said = base.pipeline.unet(noisy, t, encoder_hidden_states=conditions["states"]).sample
    wanted = base.target(latents, noise, t)
    mse = torch.nn.functional.mse_loss(said, wanted, reduction="none").mean((1, 2, 3))
    assert torch.allclose(loss_of(base, latents, conditions, noise, t), mse, rtol=1e-4)


@torch.no_grad()
def test_a_mask_and_a_weight_scale_the_loss_where_they_say(base, batch):
    latents, noise, t, conditions = batch
    plain = loss_of(base, latents, conditions, noise, t)
    half = torch.full((4, 1, 16, 16), 0.5)
    assert torch.allclose(loss_of(base, latents, conditions, noise, t, half), 0.5 * plain, rtol=1e-5)
    none = torch.zeros(4, 1, 16, 16)
    assert torch.equal(loss_of(base, latents, conditions, noise, t, none), torch.zeros(4))
    left, right = torch.zeros(4, 1, 16, 16), torch.zeros(4, 1, 16, 16)
    left[..., :8], right[..., 8:] = 1, 1
    both = [loss_of(base, latents, conditions, noise, t, weight) for weight in (left, right)]
    assert torch.allclose(both[0] + both[1], plain, rtol=1e-5)


@torch.no_grad()
def test_input_perturbation_changes_what_is_seen_and_not_what_is_wanted(base, batch, monkeypatch):
    latents, noise, t, conditions = batch
    seen = {}

    def predict(noisy, t, conditions):
        seen["noisy"] = noisy
        return torch.zeros_like(noisy)

    monkeypatch.setattr(base, "predict", predict)
    plain = loss_of(base, latents, conditions, noise, t)
    before = seen["noisy"]
    moved = loss_of(base, latents, conditions, noise, t, perturbation=torch.full_like(noise, 0.1))
    assert torch.equal(plain, moved) and not torch.allclose(before, seen["noisy"])


def test_huber_is_quadratic_near_zero_and_linear_far_out():
    small, large, c = torch.tensor(1e-3), torch.tensor(1e3), 0.1
    assert pseudo_huber(small, c).item() == pytest.approx(small.item() ** 2, rel=1e-2)
    assert pseudo_huber(large, c).item() == pytest.approx(2 * c * large.item(), rel=1e-3)


def test_timesteps_have_the_distribution_that_was_asked_for():
    draw = torch.Generator().manual_seed(0)
    shares = torch.rand(20_000, generator=draw)
    uniform = timesteps(shares, TrainingConfig(least_noise=0.2, most_noise=0.6))
    assert uniform.min() >= 0.2 and uniform.max() <= 0.6
    assert scipy.stats.kstest(uniform.numpy(), scipy.stats.uniform(0.2, 0.4).cdf).pvalue > 0.01
    logit = timesteps(shares, TrainingConfig(timesteps="logit-normal")).numpy().astype(np.float64)
    assert scipy.stats.kstest(np.log(logit / (1 - logit)), scipy.stats.norm.cdf).pvalue > 0.01


def test_every_batch_sees_the_whole_schedule():
    draw = torch.Generator().manual_seed(0)
    for count in (1, 2, 5, 16):
        assert (stratified(count, draw) * count).long().tolist() == list(range(count))


def test_offset_noise_moves_whole_channels():
    noise = torch.zeros(64, 4, 8, 8)
    moved = offset_noise(noise, 0.05, torch.Generator().manual_seed(0))
    assert torch.equal(moved.std((2, 3)), torch.zeros(64, 4))
    assert moved[..., 0, 0].std().item() == pytest.approx(0.05, rel=0.15)
