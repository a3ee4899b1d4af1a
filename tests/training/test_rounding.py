"""bfloat16 weights, rounded stochastically: right on average, no small update lost, exact after a resume."""

import threading

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.errors import ConfigError
from studio.training import config_from, read_run, train
from studio.training.config_sections import TrainingConfig
from studio.training.events import Started
from studio.training.optimizers import make_optimizer
from studio.training.rounding import in_float32, round_stochastically, to_bfloat16
from tests import tiers

OPTIMIZERS = ["adamw", "adafactor", "lion", "prodigy", "came", "muon"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rounding_is_right_on_average_and_to_a_neighbour():
    values = torch.randn(64, generator=generator()) * 10.0 ** torch.arange(-8, 8).repeat(4)
    draws = round_stochastically(values.expand(4000, -1).contiguous(), generator()).float()
    step = 2.0 ** (torch.floor(torch.log2(values.abs())) - 7)  # between two neighbours
    assert ((draws - values).abs() < step).all()
    assert ((draws.mean(0) - values).abs() < 4 * 0.5 * step / 4000**0.5).all()  # four standard errors


def test_what_bfloat16_holds_and_what_is_no_number_stay():
    exact = torch.tensor([0.0, -0.0, 1.0, -2.5, 2.0**-126, 2.0**-133, float("inf"), float("-inf")])
    assert torch.equal(round_stochastically(exact, generator()).float(), exact)
    assert round_stochastically(torch.full((9,), float("nan")), generator()).isnan().all()


def test_tiny_updates_come_through_that_rounding_to_the_nearest_loses():
    plain = torch.ones(200, dtype=torch.bfloat16)
    weight = nn.Parameter(torch.ones(100, 40, dtype=torch.bfloat16))
    for step in range(500):
        plain += 1e-4
        with in_float32([weight], generator(step)), torch.no_grad():
            weight += 1e-4
    assert (plain == 1).all() and weight.dtype == torch.bfloat16
    assert weight.float().mean().item() == pytest.approx(1.05, abs=0.003)


@pytest.mark.parametrize("name", tiers.default(OPTIMIZERS))
def test_every_optimizer_steps_bfloat16_with_a_state_in_float32(name):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))
    x, y = torch.randn(64, 8), torch.randn(64, 1)
    adapter = attach(model, AdapterSpec(rank=4))
    assert to_bfloat16(adapter) == 4 * sum(p.numel() for p in adapter.parameters())
    rate = {"prodigy": 1.0, "lion": 3e-3}.get(name, 0.02)
    optimizer = make_optimizer({"unet": adapter}, TrainingConfig(optimizer=name, learning_rate=rate))
    losses, parameters = [], list(adapter.parameters())
    for step in range(100):
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        with in_float32(parameters, generator(step)):
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert all(p.dtype == torch.bfloat16 and p.grad is None for p in parameters)
    parts = getattr(optimizer, "parts", [optimizer])
    states = [v for part in parts for state in part.state.values() for v in state.values() if torch.is_tensor(v)]
    assert states and not any(state.dtype == torch.bfloat16 for state in states)


@pytest.mark.parametrize("settings", tiers.default([{}, {"adapter.kind": "dora"}, {"adapter.init": "pissa"}]))
def test_a_fresh_adapter_in_bfloat16_changes_nothing(settings):
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(8, 16)), torch.randn(4, 8)
    before = model(x)
    spec = AdapterSpec(rank=4, kind=settings.get("adapter.kind", "lora"), init=settings.get("adapter.init", "standard"))
    adapter = attach(model, spec)
    to_bfloat16(adapter)
    assert torch.allclose(model(x), before, atol=1e-6) and torch.allclose(
        adapter.eval() and model(x), before, atol=1e-6
    )


@pytest.mark.full
@pytest.mark.parametrize("more", [{}, {"training.ema": 0.9}, {"training.optimizer": "prodigy"}])
def test_a_run_in_bfloat16_resumes_bit_for_bit_and_saves_what_it_trained(workspace, quick, more):
    busy = quick | {"training.weights": "bf16", "adapter.dropout": 0.1, "validation.every": 3} | more
    events = list(train(config_from(busy | {"name": "whole"}), workspace))
    setup = next(event.setup for event in events if isinstance(event, Started))
    assert "Weights in bf16, rounded stochastically" in setup
    stop = threading.Event()
    for event in train(config_from(busy | {"name": "halves"}), workspace, stop=stop):
        if type(event).__name__ == "Step" and event.step == 3:
            stop.set()
    for _ in train(config_from(busy | {"name": "halves"}), workspace, folder=workspace.runs / "halves"):
        pass
    files = [read_adapter(workspace.runs / name / "adapter.safetensors") for name in ("whole", "halves")]
    for place, update in files[0].layers.items():
        for name, tensor in update.parts.items():
            assert torch.equal(tensor, files[1].layers[place].parts[name])
            assert torch.equal(tensor, tensor.bfloat16().to(tensor.dtype))
    assert [row[:2] for row in read_run(workspace, "whole").losses] == [
        row[:2] for row in read_run(workspace, "halves").losses
    ]


def test_optimizers_that_average_in_their_weights_refuse_bfloat16():
    for name in ("schedule-free-adamw", "prodigy-schedule-free"):
        with pytest.raises(ConfigError, match="set training.weights to fp32"):
            config_from(
                {
                    "data.folder": "x",
                    "training.optimizer": name,
                    "training.weights": "bf16",
                    "training.schedule": "constant",
                }
            )
