"""Keys renamed, dropped, doubled and re-typed at random: what is placed and what is reported are what the file holds.

Where PEFT reads the file, its output is ours.
"""

import random

import pytest
import safetensors.torch
import torch

from studio.adapters import attach_file, read_adapter
from studio.adapters.attach import place_layers
from studio.errors import AdapterError
from tests.interop.test_adapter_cases import Net, X
from tests.interop.test_adapter_files import error
from tests.tiers import in_full

peft = pytest.importorskip("peft")

PATHS = [path for path, layer in Net().named_modules() if isinstance(layer, torch.nn.Linear)]
AB = {"A": (2, 8), "B": (8, 2)}
LOHA = {f"hada_w{n}_{side}": (8, 2) if side == "a" else (2, 8) for n in "12" for side in "ab"}


def flat(path):
    return path.replace(".", "_")


def processor(path, part):
    parent, _, leaf = path.rpartition(".")
    return f"unet.{parent}.processor.{leaf}_lora.{part}.weight"


LAYOUTS = {  # {layout: (key of a path and a part, {part: shape})}
    "diffusers": (lambda path, part: f"unet.{path}.lora_{part}.weight", AB),
    "PEFT": (lambda path, part: f"base_model.model.{path}.lora_{part}.weight", AB),
    "PEFT with the adapter's name": (lambda path, part: f"{path}.lora_{part}.default.weight", AB),
    "ComfyUI": (lambda path, part: f"diffusion_model.{path}.lora_{part}.weight", AB),
    "kohya": (
        lambda path, part: f"lora_unet_{flat(path)}.{part}",
        {"lora_down.weight": (2, 8), "lora_up.weight": (8, 2), "alpha": ()},
    ),
    "OneTrainer": (
        lambda path, part: f"lora_transformer_{flat(path)}.{part}",
        {"lora_down.weight": (2, 8), "lora_up.weight": (8, 2), "alpha": (), "dora_scale": (8, 1)},
    ),
    "older diffusers": (processor, {"down": (2, 8), "up": (8, 2)}),
    "LyCORIS LoHa": (lambda path, part: f"lycoris_{flat(path)}.{part}", LOHA | {"alpha": ()}),
    "LyCORIS LoKr": (
        lambda path, part: f"lora_unet_{flat(path)}.{part}",
        {"lokr_w1": (2, 2), "lokr_w2_a": (4, 1), "lokr_w2_b": (1, 4), "alpha": ()},
    ),
    "DoRA in diffusers": (
        lambda path, part: f"unet.{path}.{part}",
        {"lora_A.weight": (2, 8), "lora_B.weight": (8, 2), "lora_magnitude_vector": (8,)},
    ),
    "whole difference": (lambda path, part: f"lora_unet_{flat(path)}.{part}", {"diff": (8, 8)}),
    "bundled": (
        lambda path, part: f"lora_unet_{flat(path)}.{part}",
        {"lora_down.weight": (2, 8), "lora_up.weight": (8, 2)},
    ),
}
DTYPES = (torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn, torch.int32)
ODD = (torch.uint8, torch.bool, torch.int16)
RENAMES = (
    lambda key, draw: key.replace("to_", draw.choice(("", "tq_", "to_q.to_"))),
    lambda key, draw: key.replace("blocks", "bl\N{LATIN SMALL LETTER O WITH DIAERESIS}cks"),
    lambda key, draw: draw.choice(("x.", "lora_unet_", "unet.", "module.")) + key,
    lambda key, draw: key + draw.choice((".weight", ".bias", "_", ".0")),
    lambda key, draw: key.replace("0", draw.choice(("1", "7"))),
    lambda key, draw: key.replace("attn1", "attn2"),
    lambda key, draw: key[: draw.randrange(1, len(key))],
)


def whole_file(layout, seed):
    """{path: {key: tensor}} of an adapter on every layer."""
    key_of, parts = LAYOUTS[layout]
    torch.manual_seed(seed)
    return {
        path: {key_of(path, part): torch.randn(shape) if shape else torch.tensor(2.0) for part, shape in parts.items()}
        for path in PATHS
    }


def mutated(layers, draw):
    """Its tensors after some changes of single keys or of all keys of a layer; whether numbers lost their meaning."""
    tensors = {key: tensor for layer in layers.values() for key, tensor in layer.items()}
    odd = False
    for _ in range(draw.randint(1, 4)):
        keys = list(draw.choice(list(layers.values()))) if draw.random() < 0.7 else [draw.choice(list(tensors))]
        what, rename, seed = draw.randrange(5), draw.choice(RENAMES), draw.random()
        dtype = draw.choice(DTYPES + ODD)
        for key in [key for key in keys if key in tensors]:
            if what <= 1:
                tensors[rename(key, random.Random(seed))] = tensors.pop(key)
            elif what == 2 and len(tensors) > 1:
                del tensors[key]
            elif what == 3:
                tensors.setdefault(rename(key, random.Random(seed)), tensors[key].clone())
            elif what == 4:
                odd = odd or not dtype.is_floating_point
                tensors[key] = tensors[key].to(dtype)
    return {key: tensor.contiguous() for key, tensor in tensors.items()}, odd


def peft_output(theirs, tensors):
    """{path: output} of the layers whose two factors PEFT finds in the file; {} where it refuses the file."""
    state = {
        "base_model.model." + key.removeprefix("base_model.model.").removeprefix("unet."): tensor.float()
        for key, tensor in tensors.items()
    }
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    try:
        peft.set_peft_model_state_dict(theirs, state)
    except (RuntimeError, ValueError, KeyError):
        return {}
    found = [path for path in PATHS if all(f"base_model.model.{path}.lora_{part}.weight" in state for part in AB)]
    with torch.no_grad():
        return {path: theirs.base_model.model.get_submodule(path)(X) for path in found}


@pytest.fixture(scope="module")
def theirs():
    return peft.get_peft_model(Net(), peft.LoraConfig(r=2, lora_alpha=2, target_modules=PATHS)).eval()


@pytest.mark.parametrize("count", [30, in_full(300), pytest.param(2000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_placed_plus_reported_is_present(tmp_path, theirs, layout, count):
    draw, read, compared = random.Random(layout), 0, 0
    layers, path = whole_file(layout, 1), tmp_path / "a.safetensors"
    extra = {"bundle_emb.zsk.clip_l": torch.ones(1, 8)} if layout == "bundled" else {}
    for _ in range(count):
        tensors, odd = mutated(layers | ({"": extra} if extra else {}), draw)
        safetensors.torch.save_file(tensors, path)
        try:
            file = read_adapter(path)
        except AdapterError as refusal:
            assert "\n" not in str(refusal) and len(str(refusal)) < 500
            continue
        read += 1
        used = [key for keys in file.keys.values() for key in keys]
        bundled = [f"bundle_emb.{token}.{part}" for token, parts in file.embeddings.items() for part in parts]
        assert sorted([*used, *bundled, *file.unknown]) == sorted(tensors)
        net = Net()
        placed, unused = place_layers(file, {"unet": net})
        assert len(placed) + len(unused) == len(file.layers)  # no layer of Net is held with others as one
        if not placed:
            continue
        report = attach_file(file, {"unet": net}, force=True).report
        assert report.matched == len(placed) and len(report.unused) == len(unused) + len(file.unknown)
        if layout in ("diffusers", "PEFT") and not odd and (expected := peft_output(theirs, tensors)):
            with torch.no_grad():
                assert max(error(net.get_submodule(path)(X), output) for path, output in expected.items()) < 1e-5
            compared += 1
    assert read > count / 8 and (compared > count / 8 or layout not in ("diffusers", "PEFT"))
