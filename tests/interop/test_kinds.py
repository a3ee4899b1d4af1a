"""Every kind of adapter that LyCORIS and PEFT can make gives the same output here, and ours give it there.

The table of what was compared is printed: python -m pytest tests/interop/test_kinds.py -s
"""

import copy
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, attach_file, read_adapter
from tests import tiers
from tests.interop.test_adapter_files import error

peft = pytest.importorskip("peft")
lycoris = pytest.importorskip("lycoris")
from lycoris.modules import boft, diag_oft, full, glora, ia3, locon, loha, lokr, norms  # noqa: E402

LYCORIS = {
    "lora": (locon.LoConModule, {"lora_dim": 4, "alpha": 3}),
    "lora, rank-stabilised": (locon.LoConModule, {"lora_dim": 4, "alpha": 3, "rs_lora": True}),
    "tucker": (locon.LoConModule, {"lora_dim": 4, "alpha": 3, "use_tucker": True}),
    "dora, output": (locon.LoConModule, {"lora_dim": 4, "alpha": 3, "weight_decompose": True}),
    "dora, input": (locon.LoConModule, {"lora_dim": 4, "alpha": 3, "weight_decompose": True, "wd_on_out": False}),
    "loha": (loha.LohaModule, {"lora_dim": 4, "alpha": 3}),
    "loha, tucker": (loha.LohaModule, {"lora_dim": 4, "alpha": 3, "use_tucker": True}),
    "doha": (loha.LohaModule, {"lora_dim": 4, "alpha": 3, "weight_decompose": True}),
    "lokr": (lokr.LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 4}),
    "lokr, both in parts": (lokr.LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 4, "decompose_both": True}),
    "lokr, whole": (lokr.LokrModule, {"lora_dim": 64, "alpha": 3, "factor": 4, "full_matrix": True}),
    "lokr, tucker": (lokr.LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 4, "use_tucker": True}),
    "dokr": (lokr.LokrModule, {"lora_dim": 1, "alpha": 3, "factor": 4, "weight_decompose": True}),
    "full": (full.FullModule, {}),
    "glora": (glora.GLoRAModule, {"lora_dim": 4, "alpha": 3}),
    "ia3, output": (ia3.IA3Module, {}),
    "ia3, input": (ia3.IA3Module, {"train_on_input": True}),
    "oft": (diag_oft.DiagOFTModule, {"lora_dim": 4}),
    "oft, constrained": (diag_oft.DiagOFTModule, {"lora_dim": 4, "constraint": 0.02}),
    "oft, rescaled": (diag_oft.DiagOFTModule, {"lora_dim": 4, "rescaled": True}),
    "boft": (boft.ButterflyOFTModule, {"lora_dim": 4}),
}
LAYERS = {
    "linear": (lambda: nn.Linear(24, 16), torch.Size([5, 24])),
    "square": (lambda: nn.Linear(16, 16), torch.Size([5, 16])),
    "conv 3x3": (lambda: nn.Conv2d(8, 16, 3, stride=2, padding=1), torch.Size([2, 8, 7, 7])),
    "conv 1x1": (lambda: nn.Conv2d(8, 16, 1), torch.Size([2, 8, 5, 5])),
}


def base_of(layer):
    torch.manual_seed(0)
    make, shape = LAYERS[layer]
    return nn.ModuleDict({"q": make()}), torch.randn(shape)


def disturb(module, scale=0.3):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter) * scale)


def lycoris_on(model, kind, settings):
    """LyCORIS's own module on `model`, with numbers that are not trivial."""
    module = kind("lora_unet_q", model["q"], 1.0, **settings)
    disturb(module)
    return module


@pytest.mark.parametrize("kind, layer", tiers.cross(LYCORIS, LAYERS, column="conv 3x3"))
def test_what_lycoris_makes_gives_the_same_output_here(tmp_path, kind, layer):
    model, x = base_of(layer)
    ours, before = copy.deepcopy(model), model["q"](x)
    theirs = lycoris_on(model, *LYCORIS[kind])
    theirs.apply_to()
    state = theirs.custom_state_dict() or theirs.state_dict()
    state = {f"lora_unet_q.{key}": value.detach().clone() for key, value in state.items()}
    expected = theirs(x).detach()
    assert error(expected, before) > 0.01
    safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "a.safetensors")
    file = read_adapter(tmp_path / "a.safetensors")
    adapter = attach_file(file, {"unet": ours})
    assert not file.unknown and adapter.report.matched == 1
    with torch.no_grad():
        merged = ours["q"](x)
        adapter.train()
        live = ours["q"](x)
    print(f"\n{kind:24} {layer:10} LyCORIS -> here: {error(merged, expected):.1e}")
    assert error(merged, expected) < 1e-5
    assert error(live, expected) < 1e-5
    adapter.strength = 0
    assert torch.equal(ours["q"](x), before)


@pytest.mark.parametrize(
    "kind, layer", tiers.cross(["lora", "dora", "tucker", "loha", "lokr"], LAYERS, column="conv 3x3")
)
def test_what_is_made_here_gives_the_same_output_in_lycoris(tmp_path, kind, layer):
    model, x = base_of(layer)
    theirs = copy.deepcopy(model)
    adapter = attach(model, AdapterSpec(rank=2, alpha=3, kind=kind, targets="all"))
    disturb(adapter)
    adapter.save(tmp_path / "a.safetensors", prefix="", layout="kohya")
    network, _ = lycoris.create_lycoris_from_weights(1.0, tmp_path / "a.safetensors", theirs)
    network.apply_to()
    assert error(theirs["q"](x), model["q"](x)) < 1e-5


PEFT = {
    "lora": lambda: peft.LoraConfig(r=4, lora_alpha=3, target_modules=["q"]),
    "rank-stabilised": lambda: peft.LoraConfig(r=4, lora_alpha=3, use_rslora=True, target_modules=["q"]),
    "dora": lambda: peft.LoraConfig(r=4, lora_alpha=3, use_dora=True, target_modules=["q"]),
    "with a bias": lambda: peft.LoraConfig(r=4, lora_alpha=3, lora_bias=True, target_modules=["q"]),
    "loha": lambda: peft.LoHaConfig(r=4, alpha=3, target_modules=["q"]),
    "loha, tucker": lambda: peft.LoHaConfig(r=4, alpha=3, use_effective_conv2d=True, target_modules=["q"]),
    "lokr": lambda: peft.LoKrConfig(r=1, alpha=3, target_modules=["q"]),
    "lokr, both in parts": lambda: peft.LoKrConfig(r=1, alpha=3, decompose_both=True, target_modules=["q"]),
    "lokr, tucker": lambda: peft.LoKrConfig(r=1, alpha=3, use_effective_conv2d=True, target_modules=["q"]),
}


@pytest.mark.parametrize("kind, layer", tiers.cross(PEFT, LAYERS, column="conv 3x3"))
def test_what_peft_makes_gives_the_same_output_here(tmp_path, kind, layer):
    model, x = base_of(layer)
    ours = copy.deepcopy(model)
    theirs = peft.get_peft_model(Whole(model), PEFT[kind]())
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)
    theirs.save_pretrained(tmp_path)
    file = read_adapter(tmp_path / "adapter_model.safetensors")
    adapter = attach_file(file, {"unet": Whole(ours)})
    assert not file.unknown and adapter.report.matched == 1
    with torch.no_grad():
        assert error(ours["q"](x), theirs.eval()(x)) < 1e-5


@pytest.mark.parametrize("layer", tiers.default(LAYERS, "conv 3x3"))
@pytest.mark.parametrize(
    "kind, more", [("lora", {}), ("lora", {"stabilised": True}), ("lora", {"init": "pissa"}), ("dora", {})]
)
def test_what_is_made_here_gives_the_same_output_in_peft(tmp_path, kind, more, layer):
    model, x = base_of(layer)
    theirs = Whole(copy.deepcopy(model))
    adapter = attach(model, AdapterSpec(rank=2, alpha=3, kind=kind, targets="all", **more))
    disturb(adapter)
    adapter.save(tmp_path / "a.safetensors", prefix="")
    settings = json.loads(read_adapter(tmp_path / "a.safetensors").metadata["lora_adapter_metadata"])
    assert settings["use_dora"] == (kind == "dora")
    config = peft.LoraConfig(
        r=settings["r"], lora_alpha=settings["lora_alpha"], use_dora=settings["use_dora"], target_modules=["q"]
    )
    theirs = peft.get_peft_model(theirs, config)
    state = safetensors.torch.load_file(tmp_path / "a.safetensors")
    result = peft.set_peft_model_state_dict(theirs, {f"base_model.model.{key}": value for key, value in state.items()})
    assert not result.unexpected_keys
    with torch.no_grad():
        assert error(model["q"](x), theirs.eval()(x)) < 1e-5


class Whole(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.q = model["q"]

    def forward(self, x):
        return self.q(x)


def test_lycoris_norms_and_biases_are_added(tmp_path):
    torch.manual_seed(0)
    for make in (lambda: nn.LayerNorm(8), lambda: nn.GroupNorm(2, 8)):
        model, x = nn.ModuleDict({"n": make()}), torch.randn(3, 8)
        ours = copy.deepcopy(model)
        theirs = norms.NormModule("lora_unet_n", model["n"], 1.0)
        disturb(theirs)
        state = {f"lora_unet_n.{k}": v.detach().clone() for k, v in theirs.state_dict().items()}
        safetensors.torch.save_file(state, tmp_path / "a.safetensors")
        theirs.apply_to()
        adapter = attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": ours})
        with torch.no_grad():
            assert error(ours["n"](x), theirs(x)) < 1e-5
            adapter.train()
            assert error(ours["n"](x), theirs(x)) < 1e-5


OFT = {
    "usual": {},
    "exact": {"use_cayley_neumann": False},
    "three terms": {"num_cayley_neumann_terms": 3},
    "two terms": {"num_cayley_neumann_terms": 2},
    "one block": {"block_share": True},
}


@pytest.mark.parametrize("more, layer", tiers.cross(OFT, LAYERS, column="conv 3x3"))
def test_pefts_oft_is_the_weight_that_peft_merges(tmp_path, more, layer):
    """By weights: the live output of PEFT's OFT on a convolution is not that of what it merges."""
    model, _ = base_of(layer)
    ours, plain = copy.deepcopy(model), model["q"].weight.detach().clone()
    theirs = peft.get_peft_model(Whole(model), peft.OFTConfig(r=0, oft_block_size=4, target_modules=["q"], **OFT[more]))
    with torch.no_grad():
        for parameter in theirs.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs.save_pretrained(tmp_path)
    file = read_adapter(tmp_path / "adapter_model.safetensors")
    adapter = attach_file(file, {"unet": Whole(ours)})
    assert not file.unknown and adapter.report.matched == 1 and not file.notes
    found = plain + next(adapter.items())[1].delta(plain)
    merged = theirs.merge_and_unload()
    wanted = next(p for name, p in merged.named_parameters() if name.endswith("q.weight"))
    assert error(found, wanted) < 1e-5 and error(plain, wanted) > 0.01


@pytest.mark.parametrize("layer", tiers.default(["linear", "conv 1x1"]))
def test_oft_that_is_made_here_gives_the_same_output_in_peft(tmp_path, layer):
    model, x = base_of(layer)
    theirs = Whole(copy.deepcopy(model))
    adapter = attach(model, AdapterSpec(rank=4, kind="oftv2", targets="all"))
    disturb(adapter)
    adapter.save(tmp_path / "a.safetensors", prefix="")
    said = json.loads(read_adapter(tmp_path / "a.safetensors").metadata["lora_adapter_metadata"])
    known = {key: said[key] for key in ("r", "oft_block_size", "use_cayley_neumann", "num_cayley_neumann_terms")}
    theirs = peft.get_peft_model(theirs, peft.OFTConfig(**known, target_modules=["q"]))
    state = safetensors.torch.load_file(tmp_path / "a.safetensors")
    result = peft.set_peft_model_state_dict(theirs, {f"base_model.model.{key}": value for key, value in state.items()})
    assert not result.unexpected_keys
    with torch.no_grad():
        assert error(theirs.eval()(x), model["q"](x)) < 1e-5
