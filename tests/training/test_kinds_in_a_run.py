"""Kinds of adapters in a run, and each as a plain LoRA; peft and lycoris-lora are the oracles."""

import peft
import pytest
import torch
from lycoris.modules.diag_oft import DiagOFTModule
from safetensors.torch import load_file
from torch import nn

from studio.adapters import AdapterSpec, attach, read_adapter
from studio.adapters.layers import plain_weight
from studio.basemodels import load_base
from studio.errors import ConfigError
from studio.services import adapters, base_models
from studio.training import config_from, new_run, train
from studio.training.events import ExportChecked, Finished, Started
from tests import tiers


def weights_with(base, file):
    """{path: weight} of the denoiser with the adapter, by the formulas of reading."""
    from studio.adapters import attach_file

    adapter = attach_file(read_adapter(file), base.modules())
    with torch.no_grad():
        found = {
            path: plain_weight(layer) + own.delta(plain_weight(layer)) for (_, path), own, layer in adapter.items()
        }
    adapter.detach()
    return found


@pytest.mark.parametrize(
    "settings",
    [
        tiers.in_full({"adapter.kind": "oft"}),
        {"adapter.kind": "oftv2"},
        tiers.in_full({"adapter.init": "pissa"}),
        tiers.in_full({"adapter.rank_stabilized": True, "adapter.alpha": 8}),
    ],
    ids=["oft", "oftv2", "pissa", "rslora"],
)
def test_a_run_trains_it_and_saves_it_as_a_plain_lora(quick, workspace, settings):
    config = config_from(quick | settings | {"name": "x", "training.steps": 4, "training.learning_rate": 1e-2})
    folder = new_run(config, workspace)
    events = list(train(config, workspace, folder=folder))
    assert isinstance(events[-1], Finished) and any(isinstance(event, Started) for event in events)
    checked = next(event for event in events if isinstance(event, ExportChecked))
    assert "reproduces the trained model" in checked.message
    name = base_models.remember(workspace, quick["base"])
    job = adapters.save_as_plain_lora(workspace, "run:x", 64, "kohya", name)
    job.wait()
    assert not job.error, job.error
    made = read_adapter(workspace.adapters / job.result.key.removeprefix("file:"))
    assert set(made.kinds) == {"LoRA"}
    base = load_base(quick["base"], shared=False)
    ours, plain = weights_with(base, folder / "adapter.safetensors"), weights_with(base, made.path)
    assert ours.keys() == plain.keys()
    for path, weight in ours.items():  # rank 64 is more than these layers have: nothing is lost
        torch.testing.assert_close(plain[path], weight, rtol=1e-3, atol=1e-5)
        moved = weight - plain_weight(base.model.get_submodule(path))
        assert moved.abs().max() > 1e-5
    if settings == {"adapter.rank_stabilized": True, "adapter.alpha": 8}:
        assert read_adapter(folder / "adapter.safetensors").alpha == pytest.approx(8 * 2)  # sigma is 8 / sqrt(4)
    if settings == {"adapter.kind": "oft"}:
        for path, weight in ours.items():  # a turn keeps the lengths of all blocks: W' = R W
            plain_one = plain_weight(base.model.get_submodule(path))
            torch.testing.assert_close(weight.norm(), plain_one.norm(), rtol=1e-4, atol=1e-4)


def test_rank_stabilized_scale_is_pefts():
    layer = nn.Sequential(nn.Linear(8, 6))
    theirs = peft.get_peft_model(
        nn.Sequential(nn.Linear(8, 6)), peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["0"])
    )
    wanted = next(m for m in theirs.modules() if hasattr(m, "scaling")).scaling["default"]
    update = next(iter(attach(layer, AdapterSpec(rank=4, alpha=3, stabilised=True)).updates.values()))
    assert update.sigma == pytest.approx(wanted)


def test_oft_that_trained_here_is_what_lycoris_makes_of_the_file(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 24))
    base = plain_weight(model[0]).clone()
    adapter = attach(model, AdapterSpec(rank=4, kind="oft"))
    x, y = torch.randn(16, 12), torch.randn(16, 24)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.05)
    first = nn.functional.mse_loss(model(x), y).item()
    for _ in range(20):
        loss = nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss.item() < first
    adapter.save(tmp_path / "oft.safetensors", "unet")
    tensors = load_file(tmp_path / "oft.safetensors")
    (blocks,) = (value for key, value in tensors.items() if key.endswith("oft_blocks"))
    (alpha,) = (value for key, value in tensors.items() if key.endswith("alpha"))
    twin = nn.Linear(12, 24)
    twin.weight.data = base
    with torch.no_grad():
        theirs = DiagOFTModule.make_module_from_state_dict("x", twin, blocks, None, alpha)
    ours = base + next(adapter.items())[1].delta(base)
    torch.testing.assert_close(theirs.get_merged_weight()[0].detach(), ours.detach(), rtol=1e-4, atol=1e-5)


def test_what_does_not_go_together_is_said():
    with pytest.raises(ConfigError, match="pissa does not go with oft"):
        config_from({"data.folder": "x", "adapter.kind": "oft", "adapter.init": "pissa"})
