"""Optimizers and schedules, against torch's and diffusers' own."""

import math

import pytest
import torch
from diffusers.optimization import get_scheduler
from torch import nn

from studio.adapters import AdapterSpec, attach
from studio.errors import ConfigError
from studio.training import config_from
from studio.training import optimizers as module
from studio.training.config_sections import TrainingConfig
from studio.training.optimizers import Average, lr_factor, make_optimizer, set_learning_rates
from tests import tiers


def factors(**settings) -> list[float]:
    config = TrainingConfig(steps=200, **settings)
    return [lr_factor(step, config) for step in range(1, 201)]


def of_diffusers(name: str, **options) -> list[float]:
    """The factor of each step by diffusers; its step 1 is at 0 of the warm-up, ours at 1 / warmup."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = get_scheduler(name, optimizer, num_warmup_steps=20, num_training_steps=200, **options)
    out = []
    for _ in range(200):
        optimizer.step()
        scheduler.step()
        out.append(optimizer.param_groups[0]["lr"])
    return out


@pytest.mark.parametrize(
    "ours, theirs, options",
    [
        ("constant", "constant_with_warmup", {}),
        ("cosine", "cosine", {}),
        ("linear", "linear", {}),
        ("cosine-restarts", "cosine_with_restarts", {"num_cycles": 3}),
        ("polynomial", "polynomial", {"power": 2.0}),
    ],
)
def test_schedules_are_those_of_diffusers_with_a_floor_of_a_tenth(ours, theirs, options):
    floor = 0.0 if ours == "constant" else 0.1
    wanted = [x if step <= 20 else floor + (1 - floor) * x for step, x in enumerate(of_diffusers(theirs, **options), 1)]
    assert factors(schedule=ours, warmup=20) == pytest.approx(wanted, abs=2e-6)


def test_one_cycle_rises_to_the_full_rate_and_falls_to_nothing():
    found = factors(schedule="one-cycle")
    assert found[59] == pytest.approx(1.0) and max(found) == pytest.approx(1.0)
    assert found[0] < 0.05 and found[-1] < 0.001
    assert found[:60] == sorted(found[:60]) and found[60:] == sorted(found[60:], reverse=True)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "cosine-restarts", "linear", "polynomial", "one-cycle"])
def test_no_schedule_stands_still_or_runs_away(schedule):
    for steps, warmup in ((1, 0), (2, 1), (11, 10), (1000, 0)):
        config = TrainingConfig(steps=steps, warmup=warmup, schedule=schedule)
        found = [lr_factor(step, config) for step in range(1, steps + 1)]
        assert all(0 < x <= 1 and math.isfinite(x) for x in found)


LEARNING = ["adamw", "adafactor", "lion", "prodigy", "schedule-free-adamw", "came", "muon", "prodigy-schedule-free"]


@pytest.mark.parametrize("name", tiers.default(LEARNING, *LEARNING[:3]))
def test_every_optimiser_learns(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.randn(64, 8), torch.randn(64, 1)
    adapter = attach(model, AdapterSpec(rank=4))
    rate = {"prodigy": 1.0, "prodigy-schedule-free": 1.0, "lion": 3e-3}.get(name, 0.02)
    settings = TrainingConfig(optimizer=name, learning_rate=rate, schedule="constant")
    optimizer = make_optimizer({"unet": adapter}, settings)
    first = None
    for _ in range(150):
        loss = nn.functional.mse_loss(model(x), y)
        first = first or loss.item()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < 0.8 * first


def test_each_part_has_its_own_rate_and_b_its_multiple():
    unet, text = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
    adapters = {"unet": attach(unet, AdapterSpec(rank=2)), "text_encoder": attach(text, AdapterSpec(rank=2))}
    optimizer = make_optimizer(adapters, TrainingConfig(learning_rate=1e-3, text_encoder_rate=2e-4, lora_plus=16))
    set_learning_rates(optimizer, 0.5)
    found = {(g["component"], tuple(p.shape[0] for p in g["params"])): g["lr"] for g in optimizer.param_groups}
    assert found == {
        ("unet", (2,)): pytest.approx(5e-4),
        ("unet", (4,)): pytest.approx(8e-3),
        ("text_encoder", (2,)): pytest.approx(1e-4),
        ("text_encoder", (4,)): pytest.approx(1.6e-3),
    }


def test_a_package_that_is_missing_is_named_with_what_to_do(monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    adapter = attach(nn.Sequential(nn.Linear(4, 4)), AdapterSpec(rank=2))
    with pytest.raises(ConfigError, match="needs the package pytorch_optimizer: pip install pytorch-optimizer, or"):
        make_optimizer({"unet": adapter}, TrainingConfig(optimizer="lion"))
    with pytest.raises(ConfigError, match="bitsandbytes"):
        make_optimizer({"unet": adapter}, TrainingConfig(optimizer="adamw-8bit"))


def test_the_average_is_that_of_the_formula():
    value = nn.Parameter(torch.zeros(1))
    average, wanted = Average([value], 0.9), 0.0
    for step in range(1, 200):
        value.data.fill_(float(step))
        average.take()
        decay = min(0.9, step / (step + 9))
        wanted = decay * wanted + (1 - decay) * step
    assert average.values[0].item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"training.optimizer": "schedule-free-adamw"}, "set training.schedule to constant"),
        ({"training.least_noise": 0.8, "training.most_noise": 0.5}, "training.least_noise must be below"),
        ({"training.optimizer": "prodigy", "training.lora_plus": 4}, "set training.lora_plus to 1"),
        ({"training.warmup": 300}, "training.warmup must be shorter"),
        ({"validation.stop": True, "validation.every": 0}, "set validation.every above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_said_in_one_line(changes, words):
    with pytest.raises(ConfigError, match=words) as caught:
        config_from({"data.folder": "x"} | changes)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 120


def test_muon_steps_matrices_and_adamw_all_else():
    """Against torch's own two, each on its share of the parameters."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5))
    adapter = attach(model, AdapterSpec(rank=2, kind="dora"))
    theirs = [nn.Parameter(p.detach().clone()) for p in adapter.parameters()]
    ours = list(adapter.parameters())
    optimizer = make_optimizer({"unet": adapter}, TrainingConfig(optimizer="muon", learning_rate=0.01))
    matrices, others = ([p for p in theirs if (p.ndim == 2) is wanted] for wanted in (True, False))
    assert len(matrices) == 2 and len(others) == 4
    pair = (
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=0.01, weight_decay=0.01),
    )
    for _ in range(3):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn(mine.shape)
            other.grad = mine.grad.clone()
        for one in (optimizer, *pair):
            one.step()
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.full
def test_eight_bits_come_from_torchao_where_bitsandbytes_is_missing(monkeypatch):
    """Its steps are near those of AdamW."""
    monkeypatch.setattr(module.devices, "supports_bitsandbytes", lambda device: True)
    torch.manual_seed(0)
    found = {}
    for name in ("adamw", "adamw-8bit"):
        torch.manual_seed(0)
        adapter = attach(nn.Sequential(nn.Linear(256, 64)), AdapterSpec(rank=16))
        optimizer = make_optimizer({"unet": adapter}, TrainingConfig(optimizer=name, learning_rate=0.01))
        for step in range(3):
            for number, parameter in enumerate(adapter.parameters()):
                draw = torch.Generator().manual_seed(10 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=draw)
            optimizer.step()
        found[name] = torch.cat([p.detach().flatten() for p in adapter.parameters()])
    assert "torchao" in type(optimizer).__module__
    assert torch.nn.functional.cosine_similarity(found["adamw"], found["adamw-8bit"], 0) > 0.99
