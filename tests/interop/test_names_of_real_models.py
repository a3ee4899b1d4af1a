"""Every layer of the real models is found by each name that programs have for it; diffusers' converters agree.

The models have their real configs and no memory (torch's meta device).
"""

import re

import pytest
import torch

from studio.adapters import Update
from studio.adapters.family import family_of
from studio.adapters.layers import can_carry
from studio.adapters.names import Place, find_layer, index_layers, parse_key
from studio.errors import AdapterError

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
from diffusers.loaders import lora_conversion_utils as theirs  # noqa: E402
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint  # noqa: E402


def unet(**config):
    return diffusers.UNet2DConditionModel(in_channels=4, out_channels=4, layers_per_block=2, **config)


def sd15():
    return unet(sample_size=64, cross_attention_dim=768)


def sdxl():
    return unet(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def flux():
    return diffusers.FluxTransformer2DModel(num_layers=2, num_single_layers=2, guidance_embeds=True)


def sd3():
    return diffusers.SD3Transformer2DModel(sample_size=64, num_layers=2, dual_attention_layers=(0,))


def clip():
    return transformers.CLIPTextModel(transformers.CLIPTextConfig())


MODELS = {"sd15": sd15, "sdxl": sdxl, "flux": flux, "sd3": sd3}


@pytest.fixture(scope="module")
def models():
    with torch.device("meta"):
        return {name: make() for name, make in (MODELS | {"clip": clip}).items()}


def layers_of(model):
    return [path for path, layer in model.named_modules() if path and can_carry(layer)]


def find(key, model, component="unet"):
    parsed = parse_key(key)
    return find_layer(parsed.component, parsed.layer, {component: index_layers(model)})


@pytest.mark.parametrize("name", [*MODELS, "clip"])
def test_every_layer_is_found_by_its_diffusers_and_kohya_names(models, name):
    model, component = models[name], "text_encoder" if name == "clip" else "unet"
    index = {component: index_layers(model)}
    prefix = "lora_te_text_model_" if name == "clip" else "lora_unet_"
    for path in layers_of(model):
        flat = path.removeprefix("text_model.").replace(".", "_")
        for key in (f"{component}.{path}.lora_A.weight", f"{prefix}{flat}.lora_down.weight"):
            parsed = parse_key(key)
            assert find_layer(parsed.component, parsed.layer, index) == (Place(component, path),), key


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_has_an_original_name_but_those_that_diffusers_changed(models, name):
    model = models[name]
    layers = set(layers_of(model))
    original = {
        "input_blocks",
        "middle_block",
        "output_blocks",
        "time_embed",
        "label_emb",
        "out",
        "double_blocks",
        "single_blocks",
        "joint_blocks",
        "final_layer",
        "img_in",
        "txt_in",
        "time_in",
        "vector_in",
        "guidance_in",
        "x_embedder",
        "t_embedder",
        "y_embedder",
    }
    reached = {
        path
        for key, places in index_layers(model).items()
        if places and key not in layers and key.split(".")[0] in original
        for path, _ in places
    }
    same = {"context_embedder"} if name == "sd3" else set()  # SD 3's own name for it
    swapped = {"norm_out.linear"} | ({"transformer_blocks.1.norm1_context.linear"} if name == "sd3" else set())
    missing = {path for path in layers - reached - same - swapped if ".norm_" not in path}
    assert reached and not missing, sorted(missing)[:5]


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_original_unet_names_lead_where_diffusers_leads_whole_checkpoints(models, name):
    """A checkpoint of the original names, one number a layer, goes through diffusers' converter for whole models."""
    model = models[name]
    original = {
        key: places[0][0]
        for key, places in index_layers(model).items()
        if places and re.match(r"(input_blocks|middle_block|output_blocks|time_embed|label_emb|out)\.", key)
    }
    assert set(original.values()) == set(layers_of(model))
    numbers = {key: torch.tensor([float(n)]) for n, key in enumerate(original)}
    parts = ("weight", "bias")
    checkpoint = {f"model.diffusion_model.{key}.{part}": value for key, value in numbers.items() for part in parts}
    converted = convert_ldm_unet_checkpoint(checkpoint, dict(model.config))
    expected = {path: numbers[key] for key, path in original.items()}
    assert {key.removesuffix(".weight"): value for key, value in converted.items() if key[-4:] != "bias"} == expected


def test_fused_flux_layers_are_cut_as_diffusers_cuts_them(models):
    """Random numbers through diffusers' converter and through ours give the same rows to the same layers."""
    model = models["flux"]
    sizes = {path: layer.weight.shape for path, layer in model.named_modules() if path and can_carry(layer)}
    fused = {
        "double_blocks_0_img_attn_qkv": 3 * 3072,
        "double_blocks_1_txt_attn_qkv": 3 * 3072,
        "single_blocks_1_linear1": 7 * 3072,
        "double_blocks_0_img_mlp_0": 4 * 3072,
        "single_blocks_0_linear2": 3072,
    }
    state = {}
    for name, out in fused.items():
        state[f"lora_unet_{name}.lora_up.weight"] = torch.randn(out, 2)
        state[f"lora_unet_{name}.lora_down.weight"] = torch.randn(2, 5)
        state[f"lora_unet_{name}.alpha"] = torch.tensor(2.0)
    converted = theirs._convert_kohya_flux_lora_to_diffusers(dict(state))
    seen = 0
    for name in fused:
        for place in find(f"lora_unet_{name}.lora_up.weight", model, "transformer"):
            assert place.component == "transformer" and place.path in sizes
            up = state[f"lora_unet_{name}.lora_up.weight"]
            rows = up if place.rows is None else up[slice(*place.rows)]
            assert torch.equal(rows, converted[f"transformer.{place.path}.lora_B.weight"]), place
            seen += 1
    assert seen == sum(key.endswith("lora_B.weight") for key in converted)


@pytest.mark.parametrize(
    "key, paths",
    [
        ("diffusion_model.double_blocks.0.img_attn.qkv.lora_A.weight", ["to_q", "to_k", "to_v"]),
        ("double_blocks.0.processor.qkv_lora1.down.weight", ["to_q", "to_k", "to_v"]),
        ("double_blocks.0.processor.qkv_lora2.down.weight", ["add_q_proj", "add_k_proj", "add_v_proj"]),
        ("double_blocks.0.processor.proj_lora1.up.weight", ["to_out.0"]),
        ("transformer.transformer_blocks.0.attn.to_q.lora_B.weight", ["to_q"]),
        ("lora_transformer_transformer_blocks_0_attn_to_q.lora_up.weight", ["to_q"]),
        ("lycoris_transformer_blocks_0_attn_to_q.lokr_w1", ["to_q"]),
        ("base_model.model.transformer_blocks.0.attn.to_q.lora_A.weight", ["to_q"]),
    ],
)
def test_flux_is_found_by_every_programs_names(models, key, paths):
    places = find(key, models["flux"], "transformer")
    assert [place.path for place in places] == [f"transformer_blocks.0.attn.{path}" for path in paths]


def test_fused_sd3_layers_are_cut_into_query_key_and_value(models):
    places = find("diffusion_model.joint_blocks.1.x_block.attn.qkv.lora_B.weight", models["sd3"], "transformer")
    width = models["sd3"].transformer_blocks[1].attn.to_q.weight.shape[0]
    assert [(place.path[-4:], place.rows) for place in places] == [
        ("to_q", (0, width)),
        ("to_k", (width, 2 * width)),
        ("to_v", (2 * width, 3 * width)),
    ]


def test_sd3s_last_context_modulation_is_not_put_on_the_wrong_half(models):
    """diffusers swapped its scale and shift: `convert_sd3_transformer_checkpoint_to_diffusers`."""
    key = "diffusion_model.joint_blocks.{}.context_block.adaLN_modulation.1.lora_B.weight"
    assert find(key.format(0), models["sd3"], "transformer")[0].path == "transformer_blocks.0.norm1_context.linear"
    with pytest.raises(AdapterError, match="no such layer"):
        find(key.format(1), models["sd3"], "transformer")


FAMILIES = {"sd15": "Stable Diffusion 1", "sdxl": "SDXL"}


@pytest.mark.parametrize("name, expected", FAMILIES.items())
def test_the_family_is_told_by_names_and_sizes(models, name, expected):
    layers = {}
    for path, layer in models[name].named_modules():
        if isinstance(layer, torch.nn.Linear):
            out, width = layer.weight.shape
            layers["unet", path] = Update("lora", {"A": torch.empty(2, width), "B": torch.empty(out, 2)}, 2.0)
    assert family_of(layers).name == expected
    flat = {("unet", path.replace(".", "_")): update for (_, path), update in layers.items()}
    assert family_of(flat).name == expected
