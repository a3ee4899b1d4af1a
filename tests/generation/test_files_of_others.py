"""Adapters that peft and LyCORIS made draw here what they draw there; what is no adapter of this base changes nothing.

The oracle is diffusers' pipeline with the other program's own layers in it, at the moment the file was written.
"""

import json

import diffusers
import peft
import pytest
import safetensors.torch
import torch
from lycoris import create_lycoris
from lycoris.kohya import create_network
from safetensors.torch import load_file, save_file

from studio.adapters import place_layers, read_adapter
from studio.basemodels import load_base
from studio.errors import AdapterError
from studio.generation import Recipe, generate
from studio.services.adapter_files import add_adapter_file
from studio.services.generation import adapter_summary
from studio.workspace import Workspace
from tests import tiers
from tests.generation.plain import apart, disturb, pipeline, same, theirs

QUICK = Recipe(prompt="red apple, on a blue background", steps=4, seed=7)
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]


def ours(file, strength=1.0):
    return generate(QUICK.model_copy(update={"adapters": Recipe(prompt="", adapters=((file, strength),)).adapters}))


@pytest.fixture(scope="module")
def bare():
    return theirs(pipeline(), QUICK)


def shows(file, wanted, bare):
    """It acts, and as it did where it was made; every layer of the file has found its place."""
    image, read = ours(file), read_adapter(file)
    assert not read.unknown and not place_layers(read, load_base().modules())[1]
    assert apart(image, bare) > 1, "no visible effect"
    assert apart(image, wanted) < 0.5  # of 255
    assert same(ours(file, 0.0), bare)


# PEFT, in each layout in which its layers are written -------------------------------------------------------------


def named(how):
    """Renames a path of the UNet and a letter, as in PEFT's own "….to_q.lora_A.weight"."""

    def rename(state):
        return {how(*key.removesuffix(".weight").split(".lora_")): value for key, value in state.items()}

    return rename


LAYOUTS = {
    "diffusers": named(lambda path, letter: f"unet.{path}.lora_{letter}.weight"),
    "PEFT's own": named(lambda path, letter: f"base_model.model.{path}.lora_{letter}.weight"),
    "PEFT's with a name": named(lambda path, letter: f"base_model.model.{path}.lora_{letter}.default.weight"),
    "the bare model": named(lambda path, letter: f"{path}.lora_{letter}.weight"),
    "ComfyUI": named(lambda path, letter: f"diffusion_model.{path}.lora_{letter}.weight"),
    "before PEFT": named(lambda path, letter: f"unet.{path}.lora.{'down' if letter == 'A' else 'up'}.weight"),
    "attention processors": named(
        lambda path, letter: "unet.{}.processor.{}_lora.{}.weight".format(
            *path.removesuffix(".0").rsplit(".", 1), "down" if letter == "A" else "up"
        )
    ),
    "kohya": lambda state: diffusers.utils.state_dict_utils.convert_state_dict_to_kohya(
        {f"unet.{key}": value for key, value in state.items()}
    ),
}


@pytest.mark.parametrize("layout", tiers.default(LAYOUTS, "kohya"))
def test_a_lora_of_peft_in_every_layout(tmp_path, bare, layout):
    pipe = pipeline()
    targets = ATTENTION if layout == "attention processors" else [*ATTENTION, "ff.net.2", "conv2", "time_emb_proj"]
    pipe.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=targets))
    disturb(p for name, p in pipe.unet.named_parameters() if "lora_" in name)
    state = LAYOUTS[layout](peft.get_peft_model_state_dict(pipe.unet))
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "a.safetensors")
    shows(tmp_path / "a.safetensors", theirs(pipe, QUICK), bare)


ALL = {"target_modules": ATTENTION}
PEFT = {
    "LoRA, ranks and alphas of its own": peft.LoraConfig(
        r=4, lora_alpha=6, rank_pattern={"to_q": 2}, alpha_pattern={"to_v": 1}, **ALL
    ),
    "LoRA, rank-stabilised": peft.LoraConfig(r=4, lora_alpha=6, use_rslora=True, **ALL),
    "DoRA": peft.LoraConfig(r=4, lora_alpha=6, use_dora=True, target_modules=[*ATTENTION, "conv1"]),
    "LoHa": peft.LoHaConfig(r=4, alpha=6, target_modules=[*ATTENTION, "conv1"]),
    "LoKr": peft.LoKrConfig(r=4, alpha=6, target_modules=[*ATTENTION, "conv1"]),
    "LoKr, both in parts": peft.LoKrConfig(r=4, alpha=6, decompose_both=True, **ALL),
}


@pytest.mark.parametrize("kind", tiers.default(PEFT, "LoRA, ranks and alphas of its own", "LoKr"))
def test_a_folder_of_peft_in_every_kind(tmp_path, bare, kind):
    pipe = pipeline()
    wrapped = peft.get_peft_model(pipe.unet, PEFT[kind])
    disturb((p for p in wrapped.parameters() if p.requires_grad), spread=0.1)
    wrapped.eval().save_pretrained(tmp_path)
    shows(tmp_path / "adapter_model.safetensors", theirs(pipe, QUICK), bare)


# LyCORIS ------------------------------------------------------------------------------------------------------------

LYCORIS = {
    "lora": {},
    "lora, Tucker": {"algo": "lora", "use_tucker": True},
    "dora": {"algo": "lora", "dora_wd": True},
    "dora, along the input": {"algo": "lora", "dora_wd": True, "wd_on_output": False},
    "loha": {"algo": "loha"},
    "lokr": {"algo": "lokr", "factor": 4},
    "lokr, whole": {"algo": "lokr", "factor": 4, "full_matrix": True},
    "full difference": {"algo": "full"},
    "norms too": {"algo": "lora", "train_norm": True},
    "glora": {"algo": "glora"},
    "ia3": {"algo": "ia3"},
    "oft": {"algo": "diag-oft"},
}
PRESET = """
enable_conv = true
unet_target_module = ["Transformer2DModel", "ResnetBlock2D"]
unet_target_name = ["conv_in"]
text_encoder_target_module = ["CLIPAttention", "CLIPMLP"]
"""


@pytest.mark.parametrize("kind", tiers.default(LYCORIS, "lokr", "norms too"))
def test_what_lycoris_writes_in_kohyas_trainer(tmp_path, bare, kind):
    pipe, preset = pipeline(), tmp_path / "preset.toml"
    preset.write_text(PRESET)
    settings = LYCORIS[kind] | {"preset": str(preset)}
    network = create_network(1.0, 4, 2.0, pipe.vae, pipe.text_encoder, pipe.unet, **settings)
    network.apply_to(pipe.text_encoder, pipe.unet, True, True)
    disturb(network.parameters(), spread=0.02 if kind in ("full difference", "ia3", "oft") else 0.1)
    network.eval().save_weights(tmp_path / "a.safetensors", torch.float32, {"ss_network_module": "lycoris.kohya"})
    with torch.no_grad():
        wanted = theirs(pipe, QUICK)
    shows(tmp_path / "a.safetensors", wanted, bare)


@pytest.mark.full
def test_what_lycoris_writes_by_itself(tmp_path, bare):
    pipe = pipeline()
    network = create_lycoris(pipe.unet, 1.0, 4, 2.0, algo="lokr", factor=4, preset="attn-mlp")
    network.apply_to()
    disturb(network.parameters(), spread=0.1)
    network.eval().save_weights(tmp_path / "a.safetensors", torch.float32, {})
    assert next(iter(load_file(tmp_path / "a.safetensors"))).startswith("lycoris_")
    shows(tmp_path / "a.safetensors", theirs(pipe, QUICK), bare)


@pytest.mark.full
def test_half_precision_files_are_read_as_what_they_hold(tmp_path, bare):
    pipe = pipeline()
    pipe.unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=4, target_modules=ATTENTION))
    disturb(p for name, p in pipe.unet.named_parameters() if "lora_" in name)
    state = peft.get_peft_model_state_dict(pipe.unet)
    for dtype in (torch.float16, torch.bfloat16):
        halved = {f"unet.{key}": value.to(dtype) for key, value in state.items()}
        peft.set_peft_model_state_dict(pipe.unet, {key[5:]: value.float() for key, value in halved.items()})
        save_file(halved, tmp_path / f"{dtype}.safetensors")
        shows(tmp_path / f"{dtype}.safetensors", theirs(pipe, QUICK), bare)


# What is no adapter of this base ------------------------------------------------------------------------------------


def pair(path, out=320, into=320, rank=4, names=("lora_down", "lora_up")):
    return {f"{path}.{names[0]}.weight": torch.ones(rank, into), f"{path}.{names[1]}.weight": torch.ones(out, rank)}


ONE_LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"


def lora(**more):
    """A file that would fit, but for what is in it besides."""
    path, wide = ONE_LAYER, load_base().model.get_submodule(ONE_LAYER.removeprefix("unet.")).in_features
    return {f"{path}.lora_A.weight": torch.ones(2, wide), f"{path}.lora_B.weight": torch.ones(wide, 2)} | more


AB = ("lora_A", "lora_B")
FOREIGN = {
    "SDXL": pair("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", 640, 2048)
    | pair("lora_te2_text_model_encoder_layers_0_mlp_fc1", 5120, 1280),
    "FLUX": pair("lora_unet_double_blocks_0_img_attn_qkv", 9216, 3072),
    "FLUX in diffusers": pair("transformer.single_transformer_blocks.0.attn.to_q", 3072, 3072, names=AB),
    "SD 1.5": pair("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k", 320, 768),
    "a language model": pair("base_model.model.model.layers.0.self_attn.q_proj", 512, 512, names=AB),
}
WHOLE = safetensors.torch.save(lora())
HEAD = int.from_bytes(WHOLE[:8], "little")


def header(changed):
    """The whole file with a header that says something else."""
    said = changed(json.loads(WHOLE[8 : 8 + HEAD]))
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return len(text).to_bytes(8, "little") + text + WHOLE[8 + HEAD :]


def grown(said):
    """Factors of rank 1 whose product would take 160 GB."""
    return {
        "unet.q.lora_A.weight": {"dtype": "F32", "shape": [1, 200_000], "data_offsets": [0, 800_000]},
        "unet.q.lora_B.weight": {"dtype": "F32", "shape": [200_000, 1], "data_offsets": [800_000, 1_600_000]},
    }


HUGE = {"x.lora_A.weight": {"dtype": "F32", "shape": [1 << 42], "data_offsets": [0, 1 << 44]}}


BROKEN = {
    "cut short": WHOLE[:-100],
    "cut in its header": WHOLE[:60],
    "empty": b"",
    "a web page": b"<!doctype html><title>Log in to download</title>",
    "a pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00}\x94.",
    "not a number": safetensors.torch.save(lora(**{"unet.conv_in.diff_b": torch.tensor([float("nan")] * 64)})),
    "infinite": safetensors.torch.save(lora(**{f"{ONE_LAYER}.alpha": torch.tensor(float("inf"))})),
    "a header of 8 EB": b"\xff" * 7 + b"\x7f" + WHOLE[8:],
    "a tensor of 16 TB": header(lambda said: said | HUGE),
    "a product of 160 GB": header(grown) + bytes(1_600_000),
    "deep metadata": header(lambda said: b'{"__metadata__":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    "a whole model": safetensors.torch.save({"model.diffusion_model.out.2.weight": torch.ones(4, 320, 3, 3)}),
}


def one_line(text):
    assert text and "\n" not in text and len(text) < 300 and "Traceback" not in text, text


@pytest.mark.parametrize(
    "name", tiers.default([*FOREIGN, *BROKEN], "SDXL", "a language model", "cut short", "not a number", "empty")
)
def test_what_is_no_adapter_of_this_base_says_so_in_one_line_and_changes_nothing(tmp_path, bare, name):
    workspace, file = Workspace.open(tmp_path / "workspace"), tmp_path / "dropped.safetensors"
    file.write_bytes(safetensors.torch.save(FOREIGN[name]) if name in FOREIGN else BROKEN[name])
    key = None
    try:
        key = add_adapter_file(workspace, file)
    except AdapterError as error:
        one_line(str(error))
    assert key or name in BROKEN
    if key:  # it is an adapter, so it may stand in the library; its row says that it is none of this base's
        line, _, refused = adapter_summary(workspace, key)
        one_line(line)
        assert refused
    with pytest.raises(AdapterError) as caught:
        ours(file)
    one_line(str(caught.value))
    assert same(generate(QUICK), bare)


def test_beside_a_good_adapter_a_bad_one_leaves_nothing_behind(tmp_path, bare):
    save_file(lora(), tmp_path / "good.safetensors")
    good = ours(tmp_path / "good.safetensors")
    assert not same(good, bare)
    for number, content in enumerate((BROKEN["cut short"], BROKEN["not a number"])):
        bad = tmp_path / f"bad{number}.safetensors"
        bad.write_bytes(content)
        both = Recipe(prompt="", adapters=((tmp_path / "good.safetensors", 1), (bad, 0))).adapters
        with pytest.raises(AdapterError):
            generate(QUICK.model_copy(update={"adapters": both}))
        assert same(generate(QUICK), bare)
        assert same(ours(tmp_path / "good.safetensors"), good)
