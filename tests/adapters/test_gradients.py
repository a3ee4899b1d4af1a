"""The joined linear layer and the batched convolution give the formula's gradients, measured against float64."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from studio.adapters import AdapterSpec, attach


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(64, 96), nn.Linear(96, 48, bias=False)
        self.conv = nn.Conv2d(4, 6, 3, padding=1, stride=2)
        self.saving = False

    def inner(self, x):
        return self.last(torch.tanh(self.first(x)))

    def forward(self, x, z):
        y = checkpoint(self.inner, x, use_reentrant=False) if self.saving else self.inner(x)
        return y.square().sum() + self.conv(z).square().sum()


@pytest.mark.parametrize("saving", [False, True])
@pytest.mark.parametrize("strength", [1.0, 0.37, -2.0])
def test_gradients_are_the_formulas_and_the_same_twice(saving, strength):
    net = Net()
    net.saving = saving
    adapter = attach(net, AdapterSpec(rank=5, alpha=3, targets="all"))
    adapter.strength = strength
    for parameter in adapter.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, z = torch.randn(3, 7, 64, requires_grad=True), torch.randn(2, 4, 9, 9, requires_grad=True)
    leaves = [x, z, *adapter.parameters()]
    here = torch.autograd.grad(net(x, z), leaves)
    assert all(torch.equal(a, b) for a, b in zip(here, torch.autograd.grad(net(x, z), leaves)))

    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    factors = dict(zip((name for name, _ in adapter.named_parameters()), exact[2:]))

    def weight(name):
        B, A = (factors[f"layers.{name}.{factor}"].flatten(1) for factor in "BA")
        W = net.get_submodule(name).weight.double()
        return W + strength * 3 / 5 * (B @ A).view_as(W)

    y = F.linear(torch.tanh(F.linear(exact[0], weight("first"), net.first.bias.double())), weight("last"))
    out = F.conv2d(exact[1], weight("conv"), net.conv.bias.double(), 2, 1)
    formula = torch.autograd.grad(y.square().sum() + out.square().sum(), exact)
    assert all((a - b).norm() <= 1e-5 * b.norm() for a, b in zip(here, formula))


def test_another_hook_keeps_the_layers_whole_output_and_nothing_is_written_over_it():
    net, kept = nn.Sequential(nn.Linear(8, 8)), []
    net[0].register_forward_hook(lambda layer, args, output: kept.append(output))
    adapter = attach(net, AdapterSpec(rank=2, targets="all"))
    B = next(p for name, p in adapter.named_parameters() if name.endswith("B"))
    nn.init.normal_(B)
    x = torch.randn(3, 8)
    y = net(x)
    copy = y.detach().clone()
    y.sum().backward()
    assert torch.equal(kept[0], copy)


def test_a_merged_weight_does_not_outlive_a_checkpointed_call():
    """Checkpointing calls the layer again on the way back and leaves that call halfway."""
    model = nn.Sequential(nn.Linear(8, 8))
    adapter = attach(model, AdapterSpec(rank=2, targets="all"))
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    adapter.eval().requires_grad_(False)
    x = torch.randn(3, 8, requires_grad=True)
    plain = F.linear(x, model[0].weight, model[0].bias)
    checkpoint(model, x, use_reentrant=False).sum().backward()
    adapter.strength = 0.0
    assert torch.equal(model(x), plain)


def test_factors_with_a_window_of_one_act_on_a_linear_layer():
    """As files of programs that write every layer as a convolution have them."""
    net = nn.Sequential(nn.Linear(8, 6))
    adapter = attach(net, AdapterSpec(rank=2, targets="all"))
    for parameter in adapter.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(3, 8)
    flat = net(x).detach()
    for parameter in adapter.parameters():
        parameter.data = parameter.data[..., None, None]
    net(x).sum().backward()
    assert torch.equal(net(x), flat)
    assert all(parameter.grad.shape == parameter.shape for parameter in adapter.parameters())
