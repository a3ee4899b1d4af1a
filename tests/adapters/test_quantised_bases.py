"""Adapters on layers whose weight is packed: they train, act and are saved as on the same layer unpacked."""

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
from studio.adapters.layers import is_quantised, plain_weight, shape_of


class Packed(nn.Linear):
    """A linear layer in 8 bits, its numbers in one column, as bitsandbytes keeps 4 of them."""

    @classmethod
    def of(cls, plain: nn.Linear) -> "Packed":
        made = cls(plain.in_features, plain.out_features)
        made.bias = plain.bias
        scale = plain.weight.detach().abs().amax() / 127
        codes = (plain.weight.detach() / scale).round().to(torch.int8)
        made.weight = nn.Parameter(codes.reshape(-1, 1), requires_grad=False)
        made.scale = scale
        return made

    def unpacked(self) -> nn.Linear:
        plain = nn.Linear(self.in_features, self.out_features)
        plain.weight.data = self.weight.reshape(self.out_features, -1) * self.scale
        plain.bias.data = self.bias.data.clone()
        return plain

    def forward(self, x):
        return nn.functional.linear(x, self.weight.reshape(self.out_features, -1) * self.scale, self.bias)


class Net(nn.Module):
    def __init__(self, first, second):
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.second(torch.relu(self.first(x)))


@pytest.fixture
def nets():
    """(packed, the same unpacked)."""
    torch.manual_seed(0)
    packed = [Packed.of(nn.Linear(12, 20)), Packed.of(nn.Linear(20, 6))]
    return Net(*packed), Net(*(layer.unpacked() for layer in packed))


def trained(net, kind):
    torch.manual_seed(1)
    adapter = attach(net, AdapterSpec(rank=3, kind=kind, targets="all"))
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.05)
    x, y = torch.randn(16, 12), torch.randn(16, 6)
    for _ in range(5):
        nn.functional.mse_loss(net(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    return adapter.eval(), x


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lora", "dora", "loha", "lokr"])
def test_a_packed_base_trains_and_is_read_as_an_unpacked_one(nets, tmp_path, kind):
    packed, plain = nets
    x = torch.randn(4, 12)
    untouched = packed(x)
    with torch.enable_grad():
        ours, seen = trained(packed, kind)
        theirs, _ = trained(plain, kind)
    for one, other in zip(ours.parameters(), theirs.parameters()):
        assert torch.allclose(one, other, atol=1e-5)
    assert torch.allclose(packed(seen), plain(seen), atol=1e-5)
    ours.strength = 0.0
    assert torch.equal(packed(x), untouched)
    ours.strength = 1.0
    ours.save(tmp_path / "a.safetensors")
    said = packed(x)
    ours.detach()
    again = attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": packed})
    assert not again.report.unused and torch.allclose(packed(x), said, atol=1e-6)


def test_a_packed_weight_is_asked_for_its_numbers_and_its_shape(nets):
    packed, plain = nets
    assert is_quantised(packed.first) and not is_quantised(plain.first)
    assert shape_of(packed.first) == plain.first.weight.shape
    assert torch.allclose(plain_weight(packed.first), plain.first.weight, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_an_adapter_learns_on_torchaos_eight_bits_and_leaves_the_base_at_strength_zero(dtype):
    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    net = Net(nn.Linear(64, 96), nn.Linear(96, 32)).to(dtype)
    plain = net.first.weight.detach().float()
    quantization.quantize_(net, quantization.Int8WeightOnlyConfig())
    assert is_quantised(net.first)
    assert (plain_weight(net.first) - plain).abs().max() < 0.01 * plain.abs().max() + 1e-3
    adapter = attach(net, AdapterSpec(rank=2, targets="all"))
    x = torch.randn(8, 64, dtype=dtype)
    before = net(x)
    loss = nn.functional.mse_loss(net(x).float(), torch.ones(8, 32))
    loss.backward()
    assert all(p.grad is not None for p in adapter.parameters())
    torch.optim.SGD(adapter.parameters(), lr=1.0).step()
    adapter.eval()
    with torch.no_grad():
        assert nn.functional.mse_loss(net(x).float(), torch.ones(8, 32)) < loss
        adapter.strength = 0.0
        assert torch.equal(net(x), before)
