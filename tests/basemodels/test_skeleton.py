"""What is said of a base before it is loaded, against the loaded one: layers, sizes, and how much would be trained."""

import itertools
import shutil

import peft
import pytest
import torch

from studio.adapters import AdapterSpec, attach, place_layers, read_adapter
from studio.basemodels import load_base
from studio.basemodels.card import describe_base
from studio.basemodels.single_file import CONFIGS
from studio.basemodels.skeleton import _module, count_trainable, skeleton
from studio.basemodels.tokens import token_counter
from studio.errors import BaseModelError
from studio.generation import Recipe, draw
from studio.training.config import config_from
from studio.training.distributed import Distributed
from studio.training.parameter_count import TARGETS, parameter_line
from studio.training.train_step import TrainStep
from tests import tiers
from tests.basemodels.test_training import RECIPE
from tests.basemodels.tiny import MAKERS

FLOWS = ("sd3", "flux-dev", "flux-schnell", "z-image")


@pytest.mark.parametrize("name", MAKERS)
def test_it_has_the_very_layers_of_the_loaded_base(bases, folders, name):
    base, found = bases(name), skeleton(str(folders(name)))
    assert list(found) == list(base.modules())
    for component, module in base.modules().items():
        shapes = {key: value.shape for key, value in module.state_dict().items()}
        assert {key: value.shape for key, value in found[component].state_dict().items()} == shapes
        assert all(p.is_meta for p in found[component].parameters())


def test_the_starter_has_one():
    base, found = load_base("starter"), skeleton("starter")
    assert {k: v.shape for k, v in found["unet"].state_dict().items()} == {
        k: v.shape for k, v in base.model.state_dict().items()
    }


@pytest.mark.parametrize("name", MAKERS)
def test_a_file_fits_it_as_it_fits_the_loaded_base(bases, folders, tmp_path, name):
    made = attach(bases(name).model, AdapterSpec(rank=2, targets="attention"))
    made.save(tmp_path / "a.safetensors", prefix=bases(name).denoiser)
    made.detach()
    file = read_adapter(tmp_path / "a.safetensors")
    for other in ("sd1", name):
        placed, unused = place_layers(file, skeleton(str(folders(other))))
        assert (set(placed), unused) == (lambda p, u: (set(p), u))(*place_layers(file, bases(other).modules()))
    assert not unused


@pytest.mark.parametrize(
    "kind, name",
    tiers.default(
        list(itertools.product(["lora", "dora", "lokr", "tucker"], MAKERS)), ("lora", "sdxl"), ("dora", "flux-dev")
    ),
)
def test_the_numbers_that_are_said_are_those_that_are_trained(bases, folders, name, kind):
    wanted = {"data.folder": "x", "adapter.kind": kind, "adapter.rank": 3, "adapter.text_encoder": name != "z-image"}
    state = torch.get_rng_state()
    said = {
        targets: parameter_line(config_from(wanted | {"adapter.targets": targets}).adapter, str(folders(name)))
        for targets in TARGETS
    }
    assert torch.equal(torch.get_rng_state(), state)  # a run that goes on meanwhile draws what it would have drawn
    counts = []
    for targets in TARGETS:
        learner = TrainStep(config_from(wanted | {"adapter.targets": targets}), bases(name), Distributed())
        counts.append(sum(p.numel() for p in learner.parameters))
        layers = sum(len(list(adapter.items())) for adapter in learner.adapters.values())
        for adapter in learner.adapters.values():
            adapter.detach()
        assert said[targets].startswith(f"{counts[-1] / 1e3:,.0f} k trainable parameters in {layers} layers.")
    assert counts == sorted(counts) and len(set(counts)) == 3
    assert ("text encoder" in said["all"]) == (name != "z-image")


@pytest.mark.parametrize(
    "kind, part, published", tiers.default([("sd1", "unet", 797_184), ("sdxl", "unet", 5_806_080)])
)
def test_attention_at_true_size_is_what_diffusers_scripts_train(kind, part, published):
    """At rank 4, as train_text_to_image_lora.py and its SDXL sister say it; peft counts the same."""
    module = _module(CONFIGS / kind / part, ("diffusers", "UNet2DConditionModel"))
    layers, numbers = count_trainable(module, AdapterSpec(rank=4, targets="attention"))
    assert numbers == published
    config = peft.LoraConfig(r=4, target_modules=["to_k", "to_q", "to_v", "to_out.0"])
    peft.inject_adapter_in_model(config, module)
    assert sum(p.numel() for key, p in module.named_parameters() if "lora_" in key) == published
    assert sum(key.endswith("lora_A.default.weight") for key, _ in module.named_parameters()) == layers


@pytest.mark.parametrize("name", MAKERS)
def test_every_attention_projection_is_a_target_of_its_preset(folders, name):
    """Told by what the layers are called in diffusers' attention classes, not by our patterns."""
    model = next(iter(skeleton(str(folders(name))).values()))
    wanted = set()
    for path, module in model.named_modules():
        if type(module).__name__.endswith("Attention"):
            wanted |= {f"{path}.{key}" for key, part in module.named_modules() if isinstance(part, torch.nn.Linear)}
    spec = AdapterSpec(targets="attention")
    found = {path for path, part in model.named_modules() if isinstance(part, torch.nn.Linear) and spec.wants(path)}
    assert wanted and found == wanted


@pytest.mark.parametrize("name", MAKERS)
def test_sizes_are_told_before_loading_and_kept_to(bases, folders, name):
    base, card = bases(name), describe_base(str(folders(name)))
    assert card.multiple == base.multiple and card.family == base.title
    fine = Recipe(**RECIPE.model_dump() | {"width": 64 + card.step})
    assert draw(base, fine).size == (64 + card.step, 64)
    if name in FLOWS:
        with pytest.raises(BaseModelError, match="divide by 16: take 64 × 64 instead of 72 × 64"):
            draw(base, Recipe(**RECIPE.model_dump() | {"width": 72}))
    else:
        assert card.step == 8


@pytest.mark.parametrize("name", MAKERS)
def test_tokens_are_counted_alike_before_and_after_loading(bases, folders, name):
    base, counter = bases(name), token_counter(str(folders(name)))
    rooms = {"sd3": 256 - 2, "flux-dev": 512 - 2, "flux-schnell": 512 - 2}  # the tiny T5's words have two frames
    assert name == "z-image" or counter.room == rooms.get(name, 75)
    long, reads_on = "red apple " * 600, name not in FLOWS
    assert counter(long) == base.tokens(long) and bool(counter(long)[1]) is not reads_on
    assert counter(long, 75) == base.tokens(long, 75) and counter(long, 75)[1]
    fits = "apple " * counter.room
    assert counter(fits) == (counter.room, "")
    assert counter.reads_on == reads_on and counter.chunks(1200) == (16 if reads_on else 1)


@torch.no_grad()
@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl", "flux-dev"]))
def test_what_is_said_to_be_cut_changes_nothing_and_what_is_not_does(bases, name):
    base = bases(name)
    room = token_counter(str(base.folder)).room
    fits = "apple " * room
    one, more, other = (base.encode_prompt([text], most=room) for text in (fits, fits + "red", fits[:-6] + "red"))
    assert all(torch.equal(one[key], more[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_damaged_settings_are_one_sentence(folders, tmp_path):
    shutil.copytree(folders("sd1"), tmp_path / "sd1")
    for text in ('{"_class_name": "UNet2DConditionModel", "block_out_channels": 7}', "[" * 100_000):
        (tmp_path / "sd1" / "unet" / "config.json").write_text(text)
        with pytest.raises(BaseModelError) as error:
            skeleton(str(tmp_path / "sd1"))
        assert "\n" not in str(error.value)
