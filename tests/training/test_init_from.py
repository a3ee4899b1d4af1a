"""A run continues from an adapter file: the same update at its first step, in the file's own kind, rank and alpha."""

import itertools
import threading

import diffusers
import numpy as np
import peft
import pytest
import torch
from PIL import Image

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
from studio.adapters.formulas import KINDS as FORMULAS
from studio.adapters.spec import KINDS
from studio.adapters.writing import write_adapter
from studio.basemodels import load_base
from studio.errors import AdapterError, ConfigError, RunError, StudioError
from studio.services import runs
from studio.training import config_from, config_from_toml, new_run, train
from studio.training.distributed import Distributed
from studio.training.events import Finished, Started, Step, Stopped, Warned
from studio.training.starting import start_adapters
from studio.training.train_step import TrainStep
from studio.workspace import ASSETS, Workspace
from tests import tiers
from tests.basemodels import tiny

PATTERN = (r"attentions\.0\..*attn2\.to_(q|v)$", r"down_blocks\.1\.resnets\.0\.conv1$")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return load_base(str(tiny.save("sd1", tmp_path_factory.mktemp("base"))), shared=False)


@pytest.fixture
def written(base, tmp_path):
    """written(kind, layout): a file of random numbers on the U-Net."""

    def make(kind="lora", layout=None, rank=3, alpha=2.0, component="unet"):
        torch.manual_seed(1)
        module = base.modules()[component]
        targets = PATTERN if component == "unet" else (r"layers\.0\..*q_proj$",)
        adapter = attach(module, AdapterSpec(rank=rank, alpha=alpha, kind=kind, targets=targets))
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        adapter.save(tmp_path / f"{kind}.safetensors", component, layout)
        adapter.detach()
        return tmp_path / f"{kind}.safetensors"

    return make


@pytest.fixture
def folder(tmp_path):
    place, draw = tmp_path / "images", np.random.default_rng(0)
    place.mkdir()
    for number in range(2):
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(place / f"{number}.png")
        (place / f"{number}.txt").write_text("red apple")
    return place


def settings(file, **more):
    return config_from(
        {"data.folder": "x", "name": "run", "adapter.init_from": str(file), "adapter.rank": 5, "preview.every": 0}
        | {"validation.every": 0, "training.warmup": 0, "training.batch_size": 2}
        | more
    )


@torch.no_grad()
def output(base):
    draws = torch.Generator().manual_seed(0)
    noisy = torch.randn(2, 4, 8, 8, generator=draws)
    return base.predict(noisy, torch.tensor([100, 700]), base.encode_prompt(["a", "b"]))


CASES = list(itertools.product(KINDS, ["diffusers", "kohya"]))


@pytest.mark.parametrize(
    ("kind", "layout"), tiers.default(CASES, ("lora", "diffusers"), ("lora", "kohya"), ("lokr", "kohya"))
)
def test_every_kind_that_trains_begins_as_it_is_in_the_file(base, written, kind, layout):
    if layout == "diffusers" and kind in ("tucker", "loha", "lokr", "oft"):
        pytest.skip("diffusers has no names for it")
    file = written(kind, layout)
    loaded = attach_file(read_adapter(file), base.modules())
    wanted = output(base)
    loaded.detach()
    step = TrainStep(settings(file), base, Distributed())
    try:
        assert torch.allclose(output(base), wanted, atol=1e-5)
        ours = step.adapters["unet"].updates
        for (_, path), update in loaded.updates.items():
            mine = ours["", path]
            assert (mine.kind, mine.rank, mine.alpha) == (update.kind, update.rank, update.alpha)
            assert all(torch.equal(mine.parts[name], update.parts[name]) for name in update.parts)
        step.adapters["unet"].train()
        noisy, t = torch.ones(1, 4, 8, 8), torch.tensor([500])
        base.predict(noisy, t, {"states": torch.ones(1, 77, 16)}).square().mean().backward()
        assert all(p.grad is not None and p.grad.any() for p in step.parameters)
        assert f"{len(ours)} layers" in step.notes[0]
    finally:
        for adapter in step.adapters.values():
            adapter.detach()


def test_gradients_are_those_of_peft_on_its_own_file(base, tmp_path):
    """Written by diffusers with peft, an alpha other than the rank; both train it on the same input."""
    unet = diffusers.UNet2DConditionModel.from_pretrained(base.folder, subfolder="unet")
    torch.manual_seed(3)
    unet.add_adapter(peft.LoraConfig(r=3, lora_alpha=6, target_modules=["to_q", "to_v"], init_lora_weights=False))
    state = peft.get_peft_model_state_dict(unet)
    diffusers.StableDiffusionPipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=state,
        weight_name="peft.safetensors",
        unet_lora_adapter_metadata={"r": 3, "lora_alpha": 6, "target_modules": ["to_q", "to_v"]},
    )
    step = TrainStep(settings(tmp_path / "peft.safetensors"), base, Distributed())
    try:
        step.adapters["unet"].train()
        noisy, t, states = torch.ones(1, 4, 8, 8), torch.tensor([500]), torch.ones(1, 77, 16)
        theirs = unet(noisy, t, states).sample
        ours = base.predict(noisy, t, {"states": states})
        assert torch.allclose(ours, theirs, atol=1e-5)
        theirs.square().mean().backward()
        ours.square().mean().backward()
        wanted = {name: p.grad for name, p in unet.named_parameters() if p.requires_grad}
        layers = step.adapters["unet"]._layers
        assert len(wanted) == 2 * len(layers)
        for (_, path), layer in layers.items():
            for part in "AB":
                grad = wanted[f"{path}.lora_{part}.default.weight"]
                assert torch.allclose(getattr(layer, part).grad.reshape(grad.shape), grad, atol=1e-7, rtol=1e-3)
    finally:
        for adapter in step.adapters.values():
            adapter.detach()


def delta(update):
    return FORMULAS[update.kind](torch.empty(update.shape), dict(update.parts), update.sigma).flatten(1)


@pytest.mark.parametrize(("kind", "rank"), [("lora", 2), ("lora", 6), ("loha", 4), ("lokr", 2)])
def test_a_file_is_resized_to_the_rank_that_is_asked_for(base, written, kind, rank):
    file = written(kind)
    config = settings(file, **{"adapter.rank": rank, "adapter.alpha": 4, "adapter.init_resize": True})
    adapters, notes = start_adapters(config, base)
    ours = {path: update for (_, path), update in adapters["unet"].updates.items()}
    adapters["unet"].detach()
    loaded = attach_file(read_adapter(file), base.modules())
    for (_, path), update in loaded.updates.items():
        assert (ours[path].kind, ours[path].rank, ours[path].alpha) == ("lora", rank, 4)
        U, S, V = torch.linalg.svd(delta(update), full_matrices=False)
        best = U[:, :rank] @ torch.diag(S[:rank]) @ V[:rank]
        assert torch.allclose(delta(ours[path]), best, atol=1e-5)
    loaded.detach()
    assert ("loses" in notes[0]) == (kind != "lora" or rank < 3)


def test_a_continued_run_resumes_without_the_original_and_keeps_what_the_file_had(base, written, folder, tmp_path):
    found = {}
    for name in ("whole", "stopped"):
        file = written("lora", "kohya")
        more = {"name": name, "base": str(base.folder), "data.folder": str(folder), "training.steps": 4}
        config, workspace, stop = settings(file, **more), Workspace.open(tmp_path / name), threading.Event()
        place = new_run(config, workspace)
        file.unlink()
        events = []
        for event in train(config, workspace, stop, place):
            events.append(event)
            if name == "stopped" and isinstance(event, Step) and event.step == 2:
                stop.set()
        if name == "stopped":
            assert isinstance(events[-1], Stopped)
            events += train(config_from_toml(place / "run.toml"), workspace, folder=place)
        assert isinstance(events[-1], Finished)
        found[name] = [event.loss for event in events if isinstance(event, Step)]
        assert any("continues from" in event.message for event in events if isinstance(event, Warned))
        assert next(event for event in events if isinstance(event, Started)).parameters
    assert found["whole"] == found["stopped"] and len(found["whole"]) == 4
    result = read_adapter(tmp_path / "whole" / "runs" / "whole" / "adapter.safetensors")
    assert (result.rank, result.alpha) == (3, 2.0) and result.metadata["studio.init_from"] == "lora.safetensors"


def test_what_cannot_be_continued_is_refused_in_a_sentence(base, written, tmp_path):
    with pytest.raises(RunError, match="There is no adapter"):
        start_adapters(settings(tmp_path / "gone.safetensors"), base)
    with pytest.raises(ConfigError, match="layers of text_encoder: set adapter.text_encoder to true"):
        start_adapters(settings(written(component="text_encoder")), base)
    with pytest.raises(AdapterError, match="DoRA can't be done without its base model's weights"):
        start_adapters(settings(written("dora"), **{"adapter.init_resize": True}), base)
    loaded = attach_file(read_adapter(written()), base.modules())
    update = next(iter(loaded.updates.values()))
    place = next(iter(loaded.updates))
    loaded.detach()
    ia3 = type(update)("ia3", {"ia3": torch.ones(update.shape[0]), "on_input": torch.zeros(())}, 1.0)
    write_adapter(tmp_path / "ia3.safetensors", {("unet", place[1]): ia3}, layout="kohya")
    with pytest.raises(AdapterError, match="IA3 at .* can't be trained on"):
        start_adapters(settings(tmp_path / "ia3.safetensors"), base)
    starter = load_base(str(ASSETS / "starter"))
    with pytest.raises(AdapterError, match="made for another base model"):
        start_adapters(settings(written()), starter)


def test_a_text_encoder_that_the_file_lacks_gets_a_new_adapter(base, written):
    adapters, _ = start_adapters(settings(written(), **{"adapter.text_encoder": True}), base)
    assert set(adapters) == {"unet", "text_encoder"}
    assert {update.rank for update in adapters["text_encoder"].updates.values()} == {5}
    for adapter in adapters.values():
        adapter.detach()


def test_page_and_endpoints_name_an_adapter_and_give_no_path(written, tmp_path):
    workspace = Workspace.open(tmp_path / "workspace")
    written().rename(workspace.adapters / "ink.safetensors")
    values = {"dataset": "silhouette", "adapter.init_from": "file:ink.safetensors", "name": "one"}
    config = runs.config_of(workspace, values)
    assert config.adapter.init_from == str(workspace.adapters / "ink.safetensors")
    new_run(config, workspace)
    assert runs.run_settings(workspace, "one")["adapter.init_from"] == "file:ink.safetensors"
    for path in (str(workspace.adapters / "ink.safetensors"), "../adapters/ink.safetensors", "/etc/passwd"):
        with pytest.raises(StudioError):
            runs.config_of(workspace, values | {"adapter.init_from": path})


def test_what_patterns_mean_beside_a_file_is_said(base, written):
    """Layers and ranks are the file's; the learning rates of lines count."""
    file = written()
    config = settings(
        file, **{"adapter.patterns": ["to_q rank=8 lr=5e-5", "to_v rank=0"], "training.learning_rate": 1e-4}
    )
    step = TrainStep(config, base, Distributed())
    try:
        assert any("of adapter.patterns lr= counts" in note for note in step.notes)
        updates = next(iter(step.adapters.values())).updates
        assert {update.rank for update in updates.values()} == {3} and any("to_v" in path for _, path in updates)
        assert {group["peak"] for group in step.optimizer.param_groups} == {5e-5, 1e-4}
    finally:
        for adapter in step.adapters.values():
            adapter.detach()
