"""A family's adapter in the kohya layout: read back whole, and read alike by diffusers' own converters."""

import itertools
import re

import diffusers
import pytest
import torch
from diffusers.loaders.lora_conversion_utils import _convert_kohya_flux_lora_to_diffusers
from diffusers.utils.state_dict_utils import convert_state_dict_to_kohya
from PIL import ImageChops
from safetensors import safe_open
from safetensors.torch import load_file

from studio.adapters import AdapterSpec, Update, attach, attach_file, read_adapter, write_adapter
from studio.generation import draw
from tests import tiers
from tests.basemodels.test_drawing import drawn_by, without
from tests.basemodels.test_training import RECIPE
from tests.basemodels.tiny import MAKERS

TARGETS = ("attention", "attention+feed-forward")
EXAMPLES = {  # written down from files of kohya's tools (sd-scripts, musubi-tuner)
    "sd1": ["lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"],
    "sdxl": ["lora_unet_mid_block_attentions_0_transformer_blocks_1_attn2_to_k"],
    "sd3": ["lora_unet_joint_blocks_0_x_block_attn_qkv", "lora_unet_joint_blocks_0_context_block_attn_qkv"],
    "flux-dev": ["lora_unet_double_blocks_0_img_attn_qkv", "lora_unet_single_blocks_0_linear1"],
    "z-image": ["lora_unet_layers_0_attention_to_q"],
}


def written(base, targets, file):
    """An adapter of large random numbers, in the kohya layout."""
    adapter = attach(base.model, AdapterSpec(rank=2, alpha=1.0, targets=targets))
    torch.manual_seed(5)
    for parameter in adapter.parameters():
        parameter.data.normal_(0, 0.4)
    layers = {(base.denoiser, path): update for (_, path), update in adapter.updates.items()}
    adapter.detach()
    write_adapter(file, layers, layout="kohya")
    return len(layers)


@pytest.mark.parametrize(
    "targets, name",
    tiers.default(list(itertools.product(TARGETS, MAKERS)), *((TARGETS[1], name) for name in ("sdxl", "flux-dev"))),
)
def test_the_kohya_layout_goes_out_and_back(bases, folders, tmp_path, name, targets):
    base, file = bases(name), tmp_path / "adapter.safetensors"
    count = written(base, targets, file)
    plain = draw(base, RECIPE)
    adapter = attach_file(read_adapter(file), base.modules())
    ours = draw(base, RECIPE)
    placed = {place for place, _, _ in adapter.items()}
    adapter.detach()
    assert not adapter.report.unused and len(placed) >= count
    assert max(high for _, high in ImageChops.difference(ours, plain).getextrema()) > 4
    with safe_open(file, "pt") as found:
        keys = {key.split(".")[0] for key in found.keys()}  # noqa: SIM118
    assert keys >= set(EXAMPLES.get(name, ())) and all(key.startswith("lora_unet_") for key in keys)
    if name in ("sd3", "flux-dev", "flux-schnell"):
        return  # diffusers reads no joint_blocks, and FLUX's only at its true width, which is the next test
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders(name), **without(folders(name)))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    assert max(high for _, high in ImageChops.difference(drawn_by(pipeline, RECIPE), ours).getextrema()) <= 2


@pytest.mark.parametrize("targets", ["attention", "all"])
def test_fluxs_joined_layers_are_taken_apart_by_diffusers_into_what_they_were(tmp_path, targets):
    width, double, single = 3072, "transformer_blocks.0.attn.", "single_transformer_blocks.0."
    paths = [f"{double}to_{x}" for x in "qkv"] + [f"{double}add_{x}_proj" for x in "qkv"] + [f"{double}to_out.0"]
    sizes = dict.fromkeys([*paths, *(f"{single}attn.to_{x}" for x in "qkv")], width)
    if targets == "all":
        sizes |= {f"{single}proj_mlp": 4 * width, f"{single}proj_out": width, "transformer_blocks.0.ff.net.2": width}
    torch.manual_seed(0)
    own = {
        ("transformer", path): Update("lora", {"A": torch.randn(2, 5), "B": torch.randn(size, 2)}, alpha=3.0)
        for path, size in sizes.items()
    }
    write_adapter(tmp_path / "flux.safetensors", own, layout="kohya")
    theirs = _convert_kohya_flux_lora_to_diffusers(load_file(tmp_path / "flux.safetensors"))
    for (component, path), update in own.items():
        up, down = (theirs[f"{component}.{path}.lora_{x}.weight"] for x in "BA")
        assert torch.allclose(up @ down, whole(update), atol=1e-4), path


def adapters_on(base, targets):
    """{(component, path): update} of random adapters on the denoiser and on the text encoders that people adapt."""
    own = {}
    for component in (base.denoiser, *base.trained_encoders):
        wanted = targets if component == base.denoiser or targets != "all" else "attention+feed-forward"
        adapter = attach(base.modules()[component], AdapterSpec(rank=1, targets=wanted))
        for parameter in adapter.parameters():
            parameter.data.normal_()
        own |= {(component, path): update for (_, path), update in adapter.updates.items()}
        adapter.detach()
    return own


def names_in(file):
    with safe_open(file, "pt") as found:
        return {re.sub(r"\.(lora_(A|B|up|down)\.weight|alpha)$", "", key) for key in found.keys()}  # noqa: SIM118


@pytest.mark.parametrize("name", MAKERS)
def test_every_layer_has_one_outside_name_in_each_layout_and_back(bases, tmp_path, name):
    base = bases(name)
    own = adapters_on(base, "all")
    for layout in ("kohya", "diffusers"):
        write_adapter(tmp_path / f"{layout}.safetensors", own, layout=layout)
        back = attach_file(read_adapter(tmp_path / f"{layout}.safetensors"), base.modules())
        found = {place: layer.update for place, layer, _ in back.items()}
        back.detach()
        assert not back.report.unused and set(found) == set(own)
        for place, update in own.items():
            other = found[place]
            assert torch.allclose(whole(update), whole(other), atol=1e-4), place
    plain = {f"{component}.{path.removeprefix('text_model.')}" for component, path in own}
    diffusers_names = names_in(tmp_path / "diffusers.safetensors")
    assert len(diffusers_names) == len(own) and {name.replace(".text_model.", ".") for name in diffusers_names} == plain
    joined = name in ("sd3", "flux-dev", "flux-schnell")  # query, key and value under one name
    outside = names_in(tmp_path / "kohya.safetensors")
    assert len(outside) < len(own) if joined else len(outside) == len(own)


@pytest.mark.parametrize("name", ["sd1", "sd2", "sd2-v", "sdxl"])
def test_kohyas_names_are_those_that_diffusers_gives_them(bases, tmp_path, name):
    """Of every layer, convolutions and text encoders too, by diffusers' own `convert_state_dict_to_kohya`."""
    own = adapters_on(bases(name), "all")
    write_adapter(tmp_path / "a.safetensors", own, layout="diffusers")
    write_adapter(tmp_path / "b.safetensors", own, layout="kohya")
    theirs = convert_state_dict_to_kohya(load_file(tmp_path / "a.safetensors"))
    wanted = {key.split(".")[0] for key in theirs}
    if name != "sdxl":  # diffusers always numbers the text encoder; kohya does so only where there are two
        wanted = {key.replace("lora_te1_", "lora_te_") for key in wanted}
    assert names_in(tmp_path / "b.safetensors") == wanted


SD3_BLOCK = [  # as sd-scripts' lora_sd3.py names them; the last block's words end with their query, key and value
    *(
        f"{side}_{part}"
        for side in ("x_block", "context_block")
        for part in ("attn_qkv", "attn_proj", "mlp_fc1", "mlp_fc2")
    ),
]
FLUX_NAMES = [  # as sd-scripts' lora_flux.py names them
    *(
        f"double_blocks_0_{side}_{part}"
        for side in ("img", "txt")
        for part in ("attn_qkv", "attn_proj", "mlp_0", "mlp_2")
    ),
    "single_blocks_0_linear1",
    "single_blocks_0_linear2",
]
Z_BLOCK = [
    "attention_to_q",
    "attention_to_k",
    "attention_to_v",
    "attention_to_out_0",
    "feed_forward_w1",
    "feed_forward_w2",
    "feed_forward_w3",
]
WRITTEN_DOWN = {
    "sd3": {
        *(f"joint_blocks_0_{part}" for part in [*SD3_BLOCK, "x_block_attn2_qkv", "x_block_attn2_proj"]),
        *(f"joint_blocks_1_{part}" for part in SD3_BLOCK[:5]),
    },
    "flux-dev": set(FLUX_NAMES),
    "flux-schnell": set(FLUX_NAMES),
    "z-image": {f"{block}_0_{part}" for block in ("layers", "noise_refiner", "context_refiner") for part in Z_BLOCK},
}


@pytest.mark.parametrize("name", WRITTEN_DOWN)
def test_kohyas_names_are_those_that_are_written_down(bases, tmp_path, name):
    base = bases(name)
    own = {place: u for place, u in adapters_on(base, "attention+feed-forward").items() if place[0] == base.denoiser}
    write_adapter(tmp_path / "a.safetensors", own, layout="kohya")
    assert names_in(tmp_path / "a.safetensors") == {f"lora_unet_{part}" for part in WRITTEN_DOWN[name]}


def whole(update):
    return update.sigma * (update.parts["B"].flatten(1) @ update.parts["A"].flatten(1))
