"""What an adapter promises on any torch module, whatever its kind."""

import copy
import os
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.checkpoint import checkpoint

from studio.adapters import KINDS, AdapterSpec, attach, attach_file, layer_adapters, read_adapter
from studio.adapters.layer_adapters import ATTRIBUTE
from studio.errors import AdapterError
from tests import tiers

X = torch.linspace(-1, 1, 2 * 3 * 8 * 8).reshape(2, 3, 8, 8)


class Model(nn.Module):
    """A convolution, a linear layer and a norm."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.fc = nn.Conv2d(3, 12, 3, padding=1), nn.GroupNorm(3, 12), nn.Linear(12, 8)
        self.saving = False

    def forward(self, x):
        x = checkpoint(self.inner, x, use_reentrant=False) if self.saving else self.inner(x)
        return self.fc(x.mean((2, 3)))

    def inner(self, x):
        return self.norm(self.conv(x)).relu()


def spec(kind="lora", **more):
    return AdapterSpec(**{"rank": 2, "alpha": 3, "kind": kind, "targets": "all", **more})


def disturbed(model, kind="lora", **more):
    adapter = attach(model, spec(kind, **more))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    return adapter


def train(model, adapter, steps=20):
    optimizer = torch.optim.Adam(adapter.parameters(), 0.02)
    losses = []
    for _ in range(steps):
        loss = (model(X) - 1).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


VARIANTS = [{"kind": kind} for kind in KINDS] + [{"init": "pissa"}, {"kind": "dora", "stabilised": True}]
each = pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))


@each
def test_a_fresh_adapter_changes_nothing(variant):
    model = Model()
    before = model(X)
    adapter = attach(model, spec(**variant))
    assert torch.allclose(model(X), before, atol=1e-6)
    adapter.eval()
    with torch.no_grad():
        assert torch.allclose(model(X), before, atol=1e-6)


@each
def test_training_moves_the_adapter_and_never_the_base(variant):
    model = Model()
    before, y = copy.deepcopy(model.state_dict()), model(X)
    adapter = attach(model, spec(**variant))
    losses = train(model, adapter)
    assert losses[-1] < (0.9 if variant.get("kind") == "oftv2" else 0.7) * losses[0]  # pairs of inputs turn little
    adapter.eval()
    with torch.no_grad():
        merged = model(X)
    assert not torch.allclose(merged, y, atol=1e-3)
    assert all(p.grad is None for p in model.parameters())
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[key], before[key]) for key in before)
    adapter.detach()
    assert torch.equal(model(X), y)
    assert not vars(model.fc).keys() & {"weight", "bias", ATTRIBUTE}


@each
def test_live_and_merged_give_the_same(variant):
    model = Model()
    adapter = disturbed(model, **variant)
    adapter.strength = 0.7
    live = model(X)
    adapter.eval()
    with torch.no_grad():
        assert torch.allclose(model(X), live, atol=1e-5)
    assert torch.allclose(model(X), live, atol=1e-5)  # gradients are wanted: live again


@each
def test_a_saved_adapter_gives_the_same_after_loading(variant, tmp_path):
    model = Model()
    adapter = disturbed(model, **variant)
    y = model(X)
    adapter.save(tmp_path / "a.safetensors")
    again = Model()
    loaded = attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": again})
    assert loaded.report.matched == 2 and not loaded.report.unused
    with torch.no_grad():
        assert torch.allclose(again(X), y, atol=1e-5)


@pytest.mark.parametrize("changes", tiers.default([1000, 10_000]))
def test_thousands_of_changes_of_strength_leave_no_trace(changes):
    model = Model().bfloat16()
    x = X.bfloat16()
    before = model(x)
    adapters = [disturbed(model, kind).eval() for kind in ("lora", "dora", "lokr")]
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for _ in range(changes):
            adapters[int(torch.randint(3, (1,), generator=draw))].strength = (
                torch.rand(1, generator=draw).item() * 4 - 2
            )
            model.fc(torch.ones(1, 12, dtype=torch.bfloat16))
        for adapter in adapters:
            adapter.strength = 0
        assert torch.equal(model(x), before)
        for adapter in adapters:
            adapter.strength = 1
        assert not torch.equal(model(x), before)


def test_a_convolution_in_channels_last_is_merged_right():
    model = Model().to(memory_format=torch.channels_last)
    adapters = [disturbed(model) for _ in range(2)]
    live = model(X)
    with torch.no_grad():
        for adapter in adapters:
            adapter.eval()
        for strength in (0.5, 1.0):  # twice: the second merge goes into the room of the first
            adapters[0].strength = strength
            merged = model(X)
    assert torch.allclose(merged, live, atol=1e-5)


def test_a_merged_weight_is_rounded_once():
    """Where two small updates cancel a rounding, adding them one after the other in bfloat16 would lose both."""
    model, x = nn.Sequential(nn.Linear(64, 64)).bfloat16(), torch.randn(4, 64).bfloat16()
    adapters = [disturbed(model).eval() for _ in range(3)]
    for adapter in adapters:
        adapter.strength = 1e-2
    exact = model[0]._parameters["weight"].detach().float()
    exact = exact + sum(layer.delta(exact) * 1e-2 for a in adapters for layer in a.layers.values())
    with torch.no_grad():
        model(x)
        merged = vars(model[0])[ATTRIBUTE].cache.parameters["weight"]
        assert torch.equal(merged, exact.bfloat16())


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("count", [1, 3])
def test_layers_without_room_for_a_copy_give_the_same_live(monkeypatch, count, dtype):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.Linear(256, 64), nn.Linear(64, 32)).to(dtype)
    x = torch.randn(4, 64).to(dtype)
    for number in range(count):
        disturbed(model).eval().strength = 0.5 + number
    merged = model(x)
    monkeypatch.setattr(sys.modules["studio.adapters.attach"], "room_for", lambda model: model[2].weight.nbytes)
    layer_adapters.share_room(model, model[2].weight.nbytes)
    live = model(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert (model(x) - merged).norm() <= 2**-6 * merged.norm()
    assert (live - merged).norm() <= (1e-5 if dtype == torch.float32 else 2**-7) * merged.norm()
    assert [bool(vars(layer)[ATTRIBUTE].cache.parameters) for layer in model] == [False, False, True]
    disturbed(model, "dora").eval()  # live, it would need the whole product at each call
    model(x)
    assert all(vars(layer)[ATTRIBUTE].cache.parameters for layer in model)


def test_a_limit_for_merged_copies_that_is_no_number_is_refused_before_anything_is_attached(monkeypatch):
    model = nn.Sequential(nn.Linear(8, 8))
    monkeypatch.setenv("STUDIO_MERGED_MB", "a lot")
    with pytest.raises(AdapterError, match="STUDIO_MERGED_MB is 'a lot': give a whole number"):
        disturbed(model)
    assert ATTRIBUTE not in vars(model[0])


def test_an_optimiser_that_writes_unseen_is_seen_after_training():
    model = Model()
    adapter = disturbed(model).eval()
    with torch.no_grad():
        before = model(X)
    adapter.train()
    for parameter in adapter.parameters():
        parameter.data.mul_(2)  # as Prodigy and bitsandbytes do: torch does not count it
    adapter.eval()
    with torch.no_grad():
        assert not torch.allclose(model(X), before, atol=1e-3)


def test_a_base_moved_or_changed_under_a_merged_adapter_is_seen():
    model = Model()
    disturbed(model).eval()
    with torch.no_grad():
        model(X)
        model.double()
        assert model(X.double()).dtype == torch.float64
        model.float()
        once = model(X)
        model.fc._parameters["weight"].add_(1)
        assert not torch.allclose(model(X), once)


def test_state_dict_and_parameters_stay_those_of_the_base():
    model = Model()
    names, total = list(model.state_dict()), sum(p.numel() for p in model.parameters())
    disturbed(model).eval()
    with torch.no_grad():
        model(X)
    assert list(model.state_dict()) == names and sum(p.numel() for p in model.parameters()) == total


def test_a_deep_copy_carries_its_own_adapter():
    model = Model()
    adapter = disturbed(model).eval()
    with torch.no_grad():
        y = model(X)
        twin = copy.deepcopy(model)
        adapter.strength = 0
        assert torch.equal(twin(X), y) and not torch.equal(model(X), y)
        model2, adapter2 = copy.deepcopy((model, adapter))
        adapter2.strength = 1
        assert torch.equal(model2(X), y) and not torch.equal(model(X), y)
        adapter2.detach()
        assert torch.equal(model2(X), model(X))


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_checkpointing_gives_the_same_gradients(kind):
    gradients = []
    for saving in (False, True):
        model = Model()
        model.saving = saving
        adapter = disturbed(model, kind)
        model(X).square().sum().backward()
        gradients.append([p.grad for p in adapter.parameters()])
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients))


@pytest.mark.full
@pytest.mark.parametrize("kind", ["lora", "dora", "loha"])
def test_a_compiled_model_computes_and_trains_the_same(kind):
    torch._dynamo.reset()
    model = Model()
    adapter = disturbed(model, kind)
    eager = model(X)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(X), eager, atol=1e-5)
    losses = train(compiled, adapter, 5)
    assert losses[-1] < losses[0]
    adapter.eval()
    for strength in (0.3, 1.0, 0.0):
        adapter.strength = strength
        with torch.no_grad():
            assert torch.allclose(compiled(X), model(X), atol=1e-5), strength


def test_autocast_trains_a_float32_base_in_bfloat16():
    model = Model()
    adapter = attach(model, spec())
    with torch.autocast("cpu", torch.bfloat16):
        losses = train(model, adapter)
    assert losses[-1] < 0.8 * losses[0]


class Both(nn.Module):
    """What DistributedDataParallel wraps: it needs the adapter's parameters among its own."""

    def __init__(self, base, adapter):
        super().__init__()
        self.base, self.adapter = base, adapter

    def forward(self, x):
        return self.base(x)


def test_distributed_data_parallel_trains_the_adapter_and_not_the_base(tmp_path):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        model = Model()
        adapter = attach(model, spec())
        wrapped = nn.parallel.DistributedDataParallel(Both(model, adapter))
        assert {id(p) for p in wrapped.parameters() if p.requires_grad} == {id(p) for p in adapter.parameters()}
        losses = train(wrapped, adapter)
        assert losses[-1] < 0.7 * losses[0]
        assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.parameters())
    finally:
        dist.destroy_process_group()


def test_lora_plus_trains_b_faster():
    model = Model()
    adapter = attach(model, spec())
    slow, fast = adapter.groups(1e-3, b_ratio=16)
    assert slow["lr"] == 1e-3 and fast["lr"] == pytest.approx(1.6e-2)
    shapes = sorted(tuple(p.shape) for p in fast["params"])
    assert shapes == [(8, 2), (12, 2, 1, 1)]
    assert len(slow["params"]) + len(fast["params"]) == len(list(adapter.parameters()))


def test_ranks_and_alphas_can_differ_by_layer():
    adapter = attach(Model(), spec(ranks={"fc": 5}, alphas={"conv": 7.0}))
    updates = adapter.updates
    assert (updates["", "fc"].rank, updates["", "fc"].alpha) == (5, 3)
    assert (updates["", "conv"].rank, updates["", "conv"].alpha) == (2, 7)


def test_an_embedding_and_a_one_dimensional_convolution_can_be_adapted():
    model = nn.Sequential(nn.Embedding(11, 6), nn.Conv1d(5, 4, 3))
    ids = torch.tensor([[1, 2, 3, 4, 10]])
    before = model(ids)
    adapter = attach(model, spec())
    assert torch.equal(model(ids), before)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    live = model(ids)
    adapter.eval()
    with torch.no_grad():
        assert torch.allclose(model(ids), live, atol=1e-5) and not torch.allclose(live, before, atol=1e-2)
