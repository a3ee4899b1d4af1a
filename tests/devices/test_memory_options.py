"""Offload, 8 bits and half precision on the pretend device."""

import gc
import importlib.util

import pytest
import torch
from PIL import ImageChops

from studio import devices
from studio.adapters import AdapterSpec, attach
from studio.basemodels import load_base
from studio.generation import Recipe, draw
from studio.training.events import Step
from tests import tiers
from tests.basemodels.tiny import MAKERS
from tests.devices.runs import losses, refuse_unfinished, run
from tests.devices.second_device import NAME

TINY = Recipe(prompt="red apple", seed=1, steps=2, width=64, height=64, guidance=3.0)
AWAY = torch.device(NAME)


@pytest.mark.parametrize("name", tiers.default(MAKERS, "sdxl"))
def test_an_offloaded_base_draws_the_same_and_holds_one_block(folders, memory, name):
    base = load_base(str(folders(name)), shared=False, precision="fp32")
    whole = sum(p.numel() * p.element_size() for p in base.model.parameters())
    plain = draw(base, TINY)
    del base
    gc.collect()
    base = load_base(f"{folders(name)}?offload=true", shared=False, precision="fp32")
    assert {p.device.type for p in base.model.parameters()} == {"cpu"}
    beside = memory.allocated
    assert ImageChops.difference(draw(base, TINY), plain).getbbox() is None
    gc.collect()
    assert memory.allocated - beside < whole  # not the whole denoiser stays


def test_training_an_offloaded_base_keeps_no_weights_for_the_way_back(folders, memory):
    x, t, held, found = torch.randn(1, 4, 8, 8).to(AWAY), torch.tensor([500]).to(AWAY), {}, {}
    for choice in ("", "?offload=true"):
        base = load_base(f"{folders('sd1')}{choice}", shared=False, precision="fp32")
        whole = sum(p.numel() * p.element_size() for p in base.model.parameters())
        torch.manual_seed(0)
        adapter = attach(base.model, AdapterSpec(rank=2))
        words = base.encode_prompt(["red"])
        before = memory.allocated
        output = base.predict(x, t, words)
        gc.collect()
        held[choice] = memory.allocated - before
        output.square().sum().backward()
        found[choice] = [p.grad.cpu() for p in adapter.parameters()]
        adapter.detach()
    assert held["?offload=true"] - held[""] < whole / 4
    assert all(torch.equal(one, other) for one, other in zip(found[""], found["?offload=true"], strict=True))


@pytest.mark.full
@pytest.mark.parametrize("name", ["sd1", "flux-dev", "z-image", "sd3"])
def test_a_run_goes_on_an_offloaded_base(folders, images, tmp_path, memory, name):
    plain = losses(run(folders(name), images, tmp_path / "plain"))
    events = run(f"{folders(name)}?offload=true", images, tmp_path / "offloaded")
    refuse_unfinished(events)
    assert losses(events) == pytest.approx(plain, rel=1e-4)


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.parametrize("name", tiers.default(["sd1", "flux-dev"]))
def test_a_base_in_eight_bits_draws_and_trains(folders, memory, name):
    base = load_base(f"{folders(name)}?quantise=8bit", shared=False, precision="fp32")
    assert any("Int8" in type(p).__name__ for p in base.model.parameters())
    draw(base, TINY)
    adapter = attach(base.model, AdapterSpec(rank=2))
    x, t = torch.randn(1, base.channels, 8, 8).to(AWAY), torch.tensor([500]).to(AWAY)
    base.predict(x, t, base.encode_prompt(["red"])).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in adapter.parameters())
    adapter.detach()


@pytest.mark.full
@pytest.mark.parametrize("name", MAKERS)
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_trains_near_fp32(folders, images, tmp_path, memory, name, precision):
    whole = losses(run(folders(name), images, tmp_path / "fp32"))
    dtypes = []

    def watch(event, base):
        if isinstance(event, Step):
            dtypes.append((base.model.dtype, base.pipeline.vae.dtype))

    events = run(folders(name), images, tmp_path / precision, watch, **{"training.precision": precision})
    refuse_unfinished(events)
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    assert set(dtypes) == {(half, torch.float32)}
    assert losses(events) == pytest.approx(whole, rel=0.03)
    assert devices.supports_bf16(AWAY)
