"""The pretend device itself: it refuses what a GPU refuses, counts its memory, and gives torch back as it was."""

import copy
import gc

import pytest
import torch
from torch import nn

from studio import devices
from tests import tiers
from tests.devices.second_device import NAME, Away, pretend

AWAY = torch.device(NAME)


def test_the_studio_finds_it_and_loses_it_again(memory):
    device = devices.best_device()
    assert device == AWAY and devices.is_accelerator(device) and devices.device_name(device) == "pretend device"
    assert devices.default_precision() == "bf16" and devices.memory_info(device)[1] == memory.total
    with pretend(bf16=False):
        assert devices.default_precision() == "fp16"
    devices.empty_cache()
    assert memory.emptied == 1


def test_without_it_torch_is_as_it_was():
    with pretend():
        pass
    assert devices.accelerator() is None
    assert "data" not in torch.Tensor.__dict__ and torch.tensor([1.0]).device.type == "cpu"


@pytest.mark.parametrize(
    "mixed",
    [
        lambda here, away: away + here,
        *map(
            tiers.in_full,
            [
                lambda here, away: nn.functional.linear(away, here),
                lambda here, away: torch.cat([away, here]),
                lambda here, away: here[away[:, 0].long()],
                lambda here, away: nn.functional.linear(away, here.to(AWAY), here[0]),
                lambda here, away: away.add_(here),
            ],
        ),
    ],
)
def test_mixing_devices_raises(memory, mixed):
    with pytest.raises(RuntimeError, match="same device"):
        mixed(torch.ones(3, 3), torch.zeros(3, 3, device=AWAY))


@pytest.mark.full
def test_what_a_gpu_lets_through_goes_through(memory):
    here, away = torch.ones(3), torch.zeros(3, device=AWAY)
    assert (away + torch.tensor(2.0)).tolist() == [2, 2, 2] and away[torch.tensor([0, 2])].shape == (2,)
    away.copy_(here)
    assert away.cpu().equal(here) and type(away.cpu()) is torch.Tensor
    with pytest.raises(TypeError, match="numpy"):
        away.numpy()


def test_lists_index_it_and_hold_its_numbers(memory):
    away = torch.arange(6.0, device=AWAY).reshape(2, 3)
    assert away[[1, 1]].tolist() == [[3, 4, 5]] * 2 and away[:, [2]].tolist() == [[2], [5]] and away[[]].shape == (0, 3)
    assert away[[True, False]].tolist() == [[0, 1, 2]]
    away[[0]] = torch.zeros(3, device=AWAY)
    assert away.tolist() == [[0, 0, 0], [3, 4, 5]]
    made = torch.tensor([away.max(), away.min()], device=AWAY)
    assert made.device.type == NAME and made.tolist() == [5, 0]


def test_everything_that_is_made_on_it_lies_there(memory):
    made = [
        torch.tensor([1.0, 2.0], device=AWAY),
        torch.as_tensor(3.0, device=AWAY),
        torch.arange(5, device=AWAY),
        torch.arange(1, 5, dtype=torch.int32, device=AWAY),
        torch.linspace(0, 1, 5, device=AWAY),
        torch.full((5,), 7.0, device=AWAY),
        torch.eye(5, device=AWAY),
        torch.randn(5, device=AWAY),
        torch.randint(0, 9, (5,), device=AWAY),
        torch.polar(torch.ones(5, device=AWAY), torch.ones(5, device=AWAY)),
        torch.stack(torch.meshgrid([torch.arange(5, device=AWAY)] * 2, indexing="ij")),
        torch.zeros(5, device=AWAY).new_tensor([1.0]),
    ]
    assert all(isinstance(one, Away) and one.device.type == NAME and one.shape == one._raw.shape for one in made)


def test_a_module_that_moves_keeps_its_parameters(memory):
    layer = nn.Linear(3, 3)
    weight, values = layer.weight, layer.weight.detach().clone()
    layer.to(AWAY)
    assert layer.weight is weight and isinstance(weight, nn.Parameter) and weight.device.type == NAME
    layer(torch.ones(2, 3, device=AWAY)).sum().backward()
    assert weight.grad.device.type == NAME
    twin = copy.deepcopy(layer)
    layer.to("cpu")
    assert layer.weight is weight and type(weight) is nn.Parameter and weight.equal(values)
    assert weight.grad.device.type == "cpu" and twin.weight.device.type == NAME
    with pytest.raises(RuntimeError, match="same device"):
        layer(torch.ones(2, 3, device=AWAY))


def test_memory_is_counted_once_a_storage_and_comes_back(memory):
    before = memory.allocated
    one = torch.zeros(1000, device=AWAY)
    views = [one.view(10, 100), one[:10], one.detach()]
    assert memory.allocated == before + 4000 and views
    devices.reset_peak_memory(AWAY)
    del one, views
    gc.collect()
    assert memory.allocated == before and devices.peak_memory(AWAY) == before + 4000


def test_more_than_its_limit_is_out_of_memory(memory):
    with pretend(limit=memory.allocated + 5000):
        kept = torch.zeros(1000, device=AWAY)
        with pytest.raises(torch.OutOfMemoryError):
            kept + 1
        assert devices.memory_info(AWAY)[0] == 1000
        del kept
        torch.zeros(1000, device=AWAY)


def test_autocast_runs_products_in_half_and_norms_in_whole_precision(memory):
    layer, x = nn.Linear(4, 4).to(AWAY), torch.randn(2, 4, device=AWAY)
    with devices.autocast(AWAY, torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
        assert nn.functional.layer_norm(layer(x), (4,)).dtype == torch.float32
    assert layer(x).dtype == torch.float32
