"""Noise, timesteps and loss weights, against diffusers, scipy and the formulas of the papers."""

import math
import threading

import numpy as np
import pytest
import scipy.stats
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from diffusers.training_utils import (
    compute_density_for_timestep_sampling,
    compute_loss_weighting_for_sd3,
    compute_snr,
)

from studio.basemodels import load_base
from studio.basemodels.flow import shift_at_size, shifted
from studio.errors import ConfigError
from studio.services import base_models, runs
from studio.training import config_from
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.config_sections import TrainingConfig
from studio.training.distributed import Distributed
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.objective import debiased_weight, huber_at, pyramid_noise, timesteps
from studio.training.selection import split
from studio.training.timestep_plot import timestep_histogram
from studio.training.train_step import TrainStep
from tests.basemodels import tiny

GRID = (torch.arange(4000) + 0.5) / 4000


@pytest.mark.parametrize("scale", [-0.8, 0.5, 1.29])
def test_mode_timesteps_are_diffusers(scale):
    theirs = compute_density_for_timestep_sampling(
        "mode", 40_000, mode_scale=scale, generator=torch.Generator().manual_seed(0)
    )
    ours = timesteps(GRID, TrainingConfig(timesteps="mode", mode_scale=scale))
    assert scipy.stats.ks_2samp(ours.numpy(), theirs.numpy()).statistic < 0.015


def test_cosmap_timesteps_have_the_density_that_diffusers_weighs_with():
    ours = timesteps(GRID, TrainingConfig(timesteps="cosmap"))
    counts = torch.histc(ours, 20, 0, 1) / len(GRID) * 20
    middles = (torch.arange(20) + 0.5) / 20
    assert torch.allclose(counts, compute_loss_weighting_for_sd3("cosmap", middles), atol=0.02)


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (0.7, 0.5), (-1.0, 2.0)])
def test_logit_normal_timesteps_have_their_mean_and_width(mean, std):
    ours = timesteps(GRID, TrainingConfig(timesteps="logit-normal", logit_mean=mean, logit_std=std)).numpy()
    wanted = scipy.stats.norm.cdf((scipy.special.logit(ours.astype(float)) - mean) / std)
    assert np.allclose(wanted, GRID.numpy(), atol=1e-4)


@pytest.mark.parametrize("side", [32, 64, 128])
def test_shift_by_resolution_is_flux_own(side):
    """calculate_shift of the pipeline, time_shift of its scheduler, at a side in patches."""
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    sigmas = torch.linspace(0.01, 0.99, 9)
    wanted = scheduler.time_shift(calculate_shift(side * side), 1.0, sigmas)
    found = shifted(sigmas, shift_at_size(scheduler.config, side * side, 4096))
    assert torch.allclose(found, wanted, atol=1e-6)
    plain = FlowMatchEulerDiscreteScheduler(shift=3.0).config
    assert shift_at_size(plain, 4096, 4096) == 3 and shift_at_size(plain, 1024, 4096) == 1.5  # SD 3's eq. 23


def test_scheduled_huber_is_as_diffusers_and_kohyas_scripts_have_it():
    scheduler, c = DDPMScheduler(), 0.1
    t = torch.tensor([0, 250, 500, 999])
    a = scheduler.alphas_cumprod[t]
    sigma = ((1 - a) / a) ** 0.5
    settings = {name: TrainingConfig(loss="huber", huber_c=c, huber_schedule=name) for name in ("snr", "exponential")}
    assert torch.allclose(huber_at(settings["snr"], t / 1000, sigma).flatten(), (1 - c) / (1 + sigma) ** 2 + c)
    wanted = torch.exp(-(-math.log(c) / 1000) * t)
    assert torch.allclose(huber_at(settings["exponential"], t / 1000, sigma).flatten(), wanted, rtol=1e-5)
    assert huber_at(TrainingConfig(huber_c=c), t / 1000, sigma).flatten().tolist() == pytest.approx([c] * 4)


def test_debiased_weights_are_the_papers():
    snr = compute_snr(DDPMScheduler(), torch.tensor([100, 400, 800]))
    assert torch.allclose(debiased_weight(snr, "epsilon"), snr**-0.5)
    assert torch.allclose(debiased_weight(snr, "v_prediction"), 1 / (snr + 1))
    assert debiased_weight(torch.tensor([1e9, 0.0]), "epsilon").tolist() == pytest.approx([1000**-0.5, 1000**0.5])
    with pytest.raises(ConfigError, match="two weightings"):
        config_from({"data.folder": "x", "training.min_snr_gamma": 5, "training.debiased_estimation": True})


def test_pyramid_noise_keeps_its_variance_and_gains_what_is_coarse():
    def drawn(levels, discount=0.5):
        plain = torch.randn(8, 4, 32, 32, generator=torch.Generator().manual_seed(1))
        return pyramid_noise(plain, levels, discount, torch.Generator().manual_seed(2))

    def coarse(noise):  # variance of the means of 8 × 8 latents
        return torch.nn.functional.avg_pool2d(noise, 8).var().item()

    deep = drawn(8)
    assert deep.std().item() == pytest.approx(1, abs=1e-4) and torch.equal(deep, drawn(8))
    assert coarse(deep) > 3 * coarse(torch.randn(8, 4, 32, 32)) and coarse(drawn(8, 0.1)) < coarse(deep)


def test_the_text_encoder_stops_at_its_step(quick, tmp_path):
    base = load_base(quick["base"], shared=False)
    config = config_from(quick | {"name": "x", "adapter.text_encoder": True, "training.text_encoder_stop": 2})
    examples, _ = list_examples(split(config).items[:2], base, Cache(tmp_path), config.data, 0)
    cache = Cache(tmp_path)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), config.data, False))
    step = TrainStep(config, base, Distributed())
    plan, reader = BatchSampler(examples, 2, 0, config.data), BatchLoader(base, cache, config.data, texts=False)

    def values(part):
        return torch.cat([p.detach().flatten().clone() for p in step.adapters[part].parameters()])

    seen = []
    for number in (1, 2, 3, 4):
        step.step(number, plan, reader, 1.0)
        seen.append((values("text_encoder"), values("unet")))
    assert not torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[1][0], seen[3][0])
    assert not torch.equal(seen[2][1], seen[3][1])
    step.detach()


@pytest.mark.parametrize("name", ["sd1", "sd3"])
def test_the_plot_shows_what_is_drawn(tmp_path, name):
    folder = tiny.save(name, tmp_path)
    base = load_base(str(folder), shared=False)
    workspace = base_models.Workspace.open(tmp_path / "space")
    given = {"training.timesteps": "mode", "training.least_noise": 0.2}
    known = base_models.remember(workspace, str(folder))
    shown = runs.timestep_histogram(workspace, known, given)
    config = config_from({"data.folder": "x", "base": str(folder)} | given)
    drawn = base.shares(base.times(timesteps(GRID, config.training, base.usual_timesteps)))
    wanted = torch.histc(drawn.float(), 20, 0, 1) / len(GRID)
    assert torch.allclose(torch.tensor(shown), wanted, atol=2e-3) and sum(shown) == pytest.approx(1, abs=1e-3)
    assert shown == timestep_histogram(config)
