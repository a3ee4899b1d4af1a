"""Attaching changes nothing until something is learned, training leaves the base alone, detaching gives it back."""

import copy

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach
from studio.errors import AdapterError


class Tutorial(nn.Module):
    """The perceptron that LoRA tutorials start from."""

    def __init__(self):
        super().__init__()
        self.fc1, self.relu, self.fc2 = nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 1)

    def forward(self, x):
        return self.fc2(self.relu(self.fc1(x)))


class Convs(nn.Module):
    def __init__(self):
        super().__init__()
        self.wide = nn.Conv2d(3, 6, 3, stride=2, padding=1, padding_mode="reflect")
        self.point = nn.Conv2d(6, 4, 1)
        self.grouped = nn.Conv2d(4, 4, 3, groups=4)

    def forward(self, x):
        return self.grouped(self.point(self.wide(x)))


SPEC = AdapterSpec(rank=4, targets=("fc1", "fc2"))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def disturb(adapter):
    """Give B something, as training would."""
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_(std=0.3)
    return adapter.eval()


def test_a_fresh_adapter_changes_nothing():
    model, x = Tutorial(), torch.randn(7, 10)
    before = model(x)
    attach(model, SPEC)
    assert torch.equal(model(x), before)


def test_training_lowers_the_loss_and_leaves_the_base_bit_for_bit():
    model, x, y = Tutorial(), torch.randn(100, 10), torch.randn(100, 1)
    before = copy.deepcopy(model.state_dict())
    adapter = attach(model, SPEC)
    optimizer = torch.optim.Adam(adapter.parameters(), lr=0.01)
    losses = []
    for _ in range(100):
        loss = nn.functional.mse_loss(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(model.state_dict()[key], before[key]) for key in before)
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())


def test_only_a_and_b_train():
    adapter = attach(Tutorial(), SPEC)
    assert sum(p.numel() for p in adapter.parameters()) == 4 * (10 + 50) + 4 * (50 + 1)
    assert adapter.summary() == "444 / 1,045 (42.49%)"
    assert {name for name, _ in adapter.named_parameters()} == {
        f"layers.{layer}.{factor}" for layer in ("fc1", "fc2") for factor in "AB"
    }


def test_the_update_is_strength_times_alpha_over_rank_times_b_a():
    model, x = Tutorial(), torch.randn(7, 10)
    base = model.fc1(x)
    adapter = disturb(attach(model, AdapterSpec(rank=4, alpha=2, targets=("fc1",))))
    adapter.strength = 0.6
    parts = adapter.updates["", "fc1"].parts
    assert torch.allclose(model.fc1(x), base + 0.6 * 2 / 4 * x @ parts["A"].T @ parts["B"].T, atol=1e-6)


def test_strength_zero_and_detach_give_the_base_bit_for_bit():
    model, x = Tutorial(), torch.randn(7, 10)
    before = model(x)
    adapter = disturb(attach(model, SPEC))
    assert not torch.allclose(model(x), before)
    adapter.strength = 0
    assert torch.equal(model(x), before)
    adapter.strength = 1
    adapter.detach()
    adapter.detach()
    assert torch.equal(model(x), before)
    assert not any(layer._forward_hooks for layer in model.modules())


def test_two_adapters_stack_each_with_its_own_strength():
    model, x = nn.Sequential(nn.Linear(5, 5)), torch.randn(3, 5)
    base = model(x)
    first, second = (disturb(attach(model, AdapterSpec(rank=2, targets="all"))) for _ in range(2))
    first.strength, second.strength = 1, 0
    one = model(x) - base
    first.strength, second.strength = 0, 1
    other = model(x) - base
    first.strength, second.strength = 0.5, -2
    assert torch.allclose(model(x), base + 0.5 * one - 2 * other, atol=1e-5)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_detaching_in_any_order_restores_what_was_trainable(order):
    model = Tutorial()
    model.fc2.bias.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    adapters = [attach(model, SPEC), attach(model, SPEC)]
    adapters[order[0]].detach()
    assert not any(p.requires_grad for p in model.parameters())
    adapters[order[1]].detach()
    assert [p.requires_grad for p in model.parameters()] == before


def test_convolutions_are_adapted_as_their_merged_weight_would_be():
    model, x = Convs(), torch.randn(2, 3, 9, 9)
    merged = copy.deepcopy(model)
    adapter = disturb(attach(model, AdapterSpec(rank=2, alpha=3, targets="all")))
    assert set(adapter.updates) == {("", "wide"), ("", "point")}  # a grouped convolution is left alone
    for (_, path), f in adapter.updates.items():
        layer = merged.get_submodule(path)
        layer.weight.data += 3 / 2 * (f.parts["B"].flatten(1) @ f.parts["A"].flatten(1)).reshape(layer.weight.shape)
    assert torch.allclose(model(x), merged(x), atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_a_base_of_half_precision_keeps_its_type_and_the_adapter_float32(autocast, dtype):
    model, x = Tutorial(), torch.randn(7, 10)
    if not autocast:
        model, x = model.to(dtype), x.to(dtype)
    adapter = attach(model, SPEC)
    with torch.autocast("cpu", dtype, enabled=autocast):
        y = model(x)
    assert y.dtype == dtype
    y.float().sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in adapter.parameters())


def test_dropout_acts_in_training_only():
    model, x = Tutorial(), torch.randn(7, 10)
    adapter = disturb(attach(model, AdapterSpec(rank=4, targets=("fc1",), dropout=0.5)))
    assert torch.equal(model(x), model(x))
    adapter.train()
    assert not torch.equal(model(x), model(x))


def test_a_layer_that_is_never_called_is_not_adapted():
    attention = nn.ModuleDict({"self_attn": nn.MultiheadAttention(8, 2), "mlp": nn.Linear(8, 8)})
    assert set(attach(attention, AdapterSpec(targets="all")).updates) == {("", "mlp")}


def test_state_can_be_saved_and_loaded():
    model, x = Tutorial(), torch.randn(7, 10)
    adapter = disturb(attach(model, SPEC))
    state, y = copy.deepcopy(adapter.state_dict()), model(x)
    disturb(adapter)
    adapter.load_state_dict(state)
    assert torch.equal(model(x), y)


def test_no_matching_layer_is_said_with_an_example():
    with pytest.raises(AdapterError, match="names like 'fc2'"):
        attach(Tutorial(), AdapterSpec(targets=("to_q",)))


def test_a_strength_that_is_no_number_is_refused():
    adapter = attach(Tutorial(), SPEC)
    for value in (float("nan"), float("inf"), "1", None, True):
        with pytest.raises(AdapterError):
            adapter.strength = value
