"""Which family a file is for: the layers of `architectures` are those of diffusers' own classes, name by name.

The models have their real configs and no memory (torch's meta device).
"""

import json
from pathlib import Path

import pytest
import torch

from studio.adapters import Update
from studio.adapters.family import MODELS, family_of
from studio.adapters.kohya_names import stems
from studio.adapters.names import find_layer, index_layers, parse_key
from studio.adapters.original_names import original_names
from studio.adapters.writing import adapter_bytes
from tests.tiers import default

diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
from diffusers.loaders import lora_conversion_utils as theirs  # noqa: E402

STARTER = Path(__file__).parents[2] / "assets" / "starter" / "unet" / "config.json"
UNET = {"in_channels": 4, "out_channels": 4, "layers_per_block": 2, "sample_size": 64}
SDXL = UNET | {
    "block_out_channels": (320, 640, 1280),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD2 = UNET | {"cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20), "use_linear_projection": True}
SD3 = {"num_layers": 24, "num_attention_heads": 24, "caption_projection_dim": 1536}
KLEIN = {"guidance_embeds": False}
REAL = {  # the configs that the models are published with
    "Starter 1": ("UNet2DConditionModel", json.loads(STARTER.read_text()) | {"in_channels": 4, "out_channels": 4}),
    "Starter 2": ("UNet2DConditionModel", json.loads(STARTER.read_text())),
    "Stable Diffusion 1": ("UNet2DConditionModel", UNET | {"cross_attention_dim": 768}),
    "Stable Diffusion 2": ("UNet2DConditionModel", SD2),
    "SDXL": ("UNet2DConditionModel", SDXL),
    "SD 3 Medium": ("SD3Transformer2DModel", SD3),
    "SD 3.5 Medium": ("SD3Transformer2DModel", SD3 | {"dual_attention_layers": tuple(range(13))}),
    "SD 3.5 Large": (
        "SD3Transformer2DModel",
        {"num_layers": 38, "num_attention_heads": 38, "caption_projection_dim": 2432},
    ),
    "FLUX.1": ("FluxTransformer2DModel", {"guidance_embeds": True}),
    "Chroma": ("ChromaTransformer2DModel", {}),
    "FLUX.2 dev": ("Flux2Transformer2DModel", {}),
    "FLUX.2 klein 4B": (
        "Flux2Transformer2DModel",
        KLEIN | {"num_layers": 5, "num_single_layers": 20, "num_attention_heads": 24, "joint_attention_dim": 7680},
    ),
    "FLUX.2 klein 9B": (
        "Flux2Transformer2DModel",
        KLEIN | {"num_layers": 8, "num_single_layers": 24, "num_attention_heads": 32, "joint_attention_dim": 12288},
    ),
    "Qwen-Image": ("QwenImageTransformer2DModel", {}),
    "Z-Image": ("ZImageTransformer2DModel", {}),
    "Lumina 2": ("Lumina2Transformer2DModel", {"cap_feat_dim": 2304}),
    "Anima": (
        "CosmosTransformer3DModel",
        {"num_attention_heads": 16, "num_layers": 28, "text_embed_dim": 1024, "adaln_lora_dim": 256},
    ),
    "Krea 2": ("Krea2Transformer2DModel", {}),
    "HunyuanVideo": ("HunyuanVideoTransformer3DModel", {"guidance_embeds": True}),
    "LTX 2B": ("LTXVideoTransformer3DModel", {}),
    "LTX 13B": (
        "LTXVideoTransformer3DModel",
        {"num_attention_heads": 32, "attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48},
    ),
    "Wan 1.3B": ("WanTransformer3DModel", {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}),
    "Wan 14B": ("WanTransformer3DModel", {}),
    "Wan 14B of images": ("WanTransformer3DModel", {"in_channels": 36, "image_dim": 1280, "added_kv_proj_dim": 5120}),
    "Wan 5B": (
        "WanTransformer3DModel",
        {"num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48, "out_channels": 48},
    ),
}
LAYERS = (torch.nn.Linear, torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)


def real(name):
    maker, config = REAL[name]
    with torch.device("meta"):
        return getattr(diffusers, maker).from_config(config)


def lora(*shape):
    ones = [1 for _ in shape[2:]]
    a, b = torch.empty(2, *shape[1:], device="meta"), torch.empty(shape[0], 2, *ones, device="meta")
    return Update("lora", {"A": a, "B": b}, 2.0)


def file_of(shapes, component="transformer", only=""):
    return {(component, path): lora(*shape) for path, shape in shapes.items() if only in path}


def test_every_family_has_a_real_config():
    assert list(REAL) == list(MODELS)


@pytest.mark.parametrize("name", default(REAL, "Starter 2", "FLUX.2 klein 4B"))
def test_layers_equal_diffusers_own_class(name):
    layers = {path: layer.weight.shape for path, layer in real(name).named_modules() if isinstance(layer, LAYERS)}
    trimmed = {path: tuple(s[:2] if all(n == 1 for n in s[2:]) else s) for path, s in layers.items()}
    assert MODELS[name].denoiser() == trimmed


def test_text_encoders_equal_transformers():
    config = json.loads((STARTER.parents[1] / "text_encoder" / "config.json").read_text())
    sizes = {"hidden_size": 1280, "num_hidden_layers": 32, "intermediate_size": 5120, "num_attention_heads": 20}
    clip_g = transformers.CLIPTextConfig(**sizes)
    with torch.device("meta"):
        made = {
            ("Starter 2", "text_encoder"): transformers.CLIPTextModel(transformers.CLIPTextConfig.from_dict(config)),
            ("SDXL", "text_encoder_2"): transformers.CLIPTextModel(clip_g),
            ("FLUX.1", "text_encoder_2"): transformers.T5EncoderModel(
                transformers.T5Config(
                    d_model=4096, d_ff=10240, num_layers=24, num_heads=64, d_kv=64, feed_forward_proj="gated-gelu"
                )
            ),
        }
    for (name, component), model in made.items():
        layers = {
            path.removeprefix("text_model."): tuple(layer.weight.shape)
            for path, layer in model.named_modules()
            if isinstance(layer, torch.nn.Linear)
        }
        assert dict(MODELS[name].encoders)[component]() == layers


@pytest.mark.parametrize("name", MODELS)
def test_family_by_every_programs_names(name):
    shapes, family = MODELS[name].denoiser(), MODELS[name].family
    assert family_of(file_of(shapes)).name == family
    flat = {path.replace(".", "_"): shape for path, shape in shapes.items()}
    assert family_of(file_of(flat, "unet")).name == family
    original, renamed = {}, set()
    for spelled, path, rows in original_names({path: shape[0] for path, shape in shapes.items()}):
        above = original[spelled][0] if rows and spelled in original else 0
        original[spelled] = (above + shapes[path][0], *shapes[path][1:])
        renamed.add(path)
    if original:
        original |= {path: shape for path, shape in shapes.items() if path not in renamed}
        assert family_of(file_of(original, "")).name == family


FLUX_OR_CHROMA = "FLUX.1 or Chroma"
ATTENTION = {"FLUX.1": FLUX_OR_CHROMA, "Chroma": FLUX_OR_CHROMA}  # the two have the same attention layers


@pytest.mark.parametrize("name", MODELS)
def test_family_by_attention_alone(name):
    found = family_of(file_of(MODELS[name].denoiser(), only="to_"))
    assert found.name == ATTENTION.get(name, MODELS[name].family)
    assert not found.architecture or " or " not in found.name


def test_metadata_decides_only_between_fitting_families():
    layers = file_of(MODELS["Chroma"].denoiser(), only="to_q")
    assert family_of(layers, {"ss_base_model_version": "chroma"}).name == "Chroma"
    assert family_of(layers, {"modelspec.architecture": "flux-1-dev/lora"}).architecture == "flux-1"
    assert family_of(layers, {"ss_base_model_version": "sdxl_base_v1-0"}).name == FLUX_OR_CHROMA
    qwen = file_of(MODELS["Qwen-Image"].denoiser(), only="to_q")
    assert family_of(qwen, {"modelspec.architecture": "flux-1/lora"}).name == "Qwen-Image"


def test_files_of_text_encoders_alone():
    """SDXL's second encoder is SD 3's too; the first is that of four families, so the metadata must say which."""
    for component in ("text_encoder_2", ""):
        second = file_of(dict(MODELS["SDXL"].encoders)["text_encoder_2"](), component)
        assert family_of(second).candidates == ("SDXL", "Stable Diffusion 3")
        assert family_of(second, {"ss_base_model_version": "sdxl_base_v1-0"}).name == "SDXL"
    first = file_of(dict(MODELS["Stable Diffusion 1"].encoders)["text_encoder"](), "text_encoder")
    assert family_of(first).name == "" and len(family_of(first).candidates) == 4
    assert family_of(first, {"ss_base_model_version": "sd_v1"}).name == "Stable Diffusion 1"


def test_sdxl_slider_with_few_layers():
    """Concept sliders train one kind of attention in some blocks, under kohya's names."""
    key = "down_blocks_2_attentions_{}_transformer_blocks_{}_attn1_to_q"
    layers = {("unet", key.format(a, b)): lora(1280, 1280) for a in (0, 1) for b in range(10)}
    assert family_of(layers).name == "SDXL"


def test_unknown_models_are_not_guessed():
    odd = {("transformer", f"transformer_blocks.{n}.attn.to_q"): lora(2560, 2560) for n in range(40)}
    assert family_of(odd).name == "" and family_of(odd).architecture == ""
    assert family_of({}).why
    mixed = file_of(MODELS["Z-Image"].denoiser(), only="to_q") | odd
    assert family_of(mixed).name == ""


@pytest.mark.parametrize("name", MODELS)
def test_no_wrong_family_is_written(name):
    shapes = {path: shape for path, shape in MODELS[name].denoiser().items() if path.endswith(("to_q", "to_k"))}
    layers = {
        ("transformer", path): Update("lora", {"A": torch.ones(1, shape[1]), "B": torch.ones(shape[0], 1)}, 1.0)
        for path, shape in list(shapes.items())[:4]
    }
    head = adapter_bytes("a", layers, "diffusers")
    head = json.loads(head[8 : 8 + int.from_bytes(head[:8], "little")])["__metadata__"]
    written = head.get("modelspec.architecture", "")
    assert written in ("", f"{MODELS[name].architecture}/lora")
    if name not in ("FLUX.1", "Chroma") and not name.startswith("SD 3"):
        assert not any("double_blocks" in stem or "joint_blocks" in stem for stem, _ in stems(layers))


CONVERTERS = {  # the original authors' fused or renamed layers, through diffusers' converter for LoRA files
    "Z-Image": (
        theirs._convert_non_diffusers_z_image_lora_to_diffusers,
        "lora_unet_",
        {
            "layers_1_attention_qkv": (11520, 3840),
            "noise_refiner_0_attention_out": (3840, 3840),
            "context_refiner_1_attention_qkv": (11520, 3840),
            "layers_0_feed_forward_w1": (10240, 3840),
        },
    ),
    "Lumina 2": (
        theirs._convert_non_diffusers_lumina2_lora_to_diffusers,
        "diffusion_model.",
        {
            "layers.0.attention.qkv": (3840, 2304),
            "layers.0.attention.out": (2304, 2304),
            "layers.0.feed_forward.w1": (9216, 2304),
            "layers.0.feed_forward.w2": (2304, 9216),
            "layers.0.feed_forward.w3": (9216, 2304),
            "layers.0.adaLN_modulation.1": (9216, 1024),
        },
    ),
    "FLUX.2 klein 4B": (
        theirs._convert_non_diffusers_flux2_lora_to_diffusers,
        "diffusion_model.",
        {
            "double_blocks.1.img_attn.qkv": (9216, 3072),
            "double_blocks.0.txt_attn.qkv": (9216, 3072),
            "double_blocks.0.txt_attn.proj": (3072, 3072),
            "single_blocks.3.linear1": (27648, 3072),
            "single_blocks.3.linear2": (3072, 12288),
            "double_blocks.4.img_mlp.0": (18432, 3072),
        },
    ),
    "Anima": (
        theirs._convert_non_diffusers_anima_lora_to_diffusers,
        "diffusion_model.",
        {
            "blocks.3.self_attn.output_proj": (2048, 2048),
            "blocks.3.cross_attn.k_proj": (2048, 1024),
            "blocks.27.mlp.layer1": (8192, 2048),
            "blocks.0.adaln_modulation_mlp.2": (6144, 256),
        },
    ),
    "Krea 2": (
        theirs._convert_non_diffusers_krea2_lora_to_diffusers,
        "diffusion_model.",
        {
            "blocks.3.attn.wk": (1536, 6144),
            "blocks.3.attn.gate": (6144, 6144),
            "blocks.27.mlp.down": (6144, 16384),
            "txtfusion.refiner_blocks.1.attn.wo": (2560, 2560),
            "first": (6144, 64),
        },
    ),
    "HunyuanVideo": (
        theirs._convert_hunyuan_video_lora_to_diffusers,
        "",
        {
            "double_blocks.1.img_attn_qkv": (9216, 3072),
            "double_blocks.0.txt_attn_proj": (3072, 3072),
            "single_blocks.39.linear1": (21504, 3072),
            "single_blocks.0.linear2": (3072, 15360),
            "double_blocks.0.txt_mlp.fc1": (12288, 3072),
        },
    ),
    "Wan 1.3B": (
        theirs._convert_non_diffusers_wan_lora_to_diffusers,
        "diffusion_model.",
        {
            f"blocks.0.{part}": (1536, 1536)
            for part in (
                "self_attn.q",
                "self_attn.k",
                "self_attn.v",
                "self_attn.o",
                "cross_attn.q",
                "cross_attn.k",
                "cross_attn.v",
                "cross_attn.o",
            )
        }
        | {"blocks.0.ffn.0": (8960, 1536), "blocks.0.ffn.2": (1536, 8960)},
    ),
}


@pytest.mark.parametrize("name", default(CONVERTERS, "Z-Image"))
def test_original_names_equal_diffusers_converters(name):
    convert, prefix, layers = CONVERTERS[name]
    state, model = {}, real(name)
    down, up = ("lora_down", "lora_up") if name == "Z-Image" else ("lora_A", "lora_B")
    for layer, (out, width) in layers.items():
        state |= {
            f"{prefix}{layer}.{down}.weight": torch.randn(2, width),
            f"{prefix}{layer}.{up}.weight": torch.randn(out, 2),
        }
    expected = {key.removeprefix("transformer."): t for key, t in convert(dict(state)).items() if "lora_B" in key}
    index, found = {"transformer": index_layers(model)}, {}
    for key, tensor in state.items():
        parsed = parse_key(key)
        if parsed.part == "B":
            for place in find_layer(parsed.component, parsed.layer, index):
                found[f"{place.path}.lora_B.weight"] = tensor if place.rows is None else tensor[slice(*place.rows)]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], expected[key]) for key in found)
