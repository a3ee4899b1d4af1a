"""Tiny models written as their first authors lay out a checkpoint. The names are written down here by hand
for the VAE and the text encoder; those of the UNet are compared with diffusers' converter in tests/interop.
"""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from studio.adapters.original_names import original_names

_VAE = [
    (r"(en|de)coder\.mid_block\.resnets\.(\d)\.", lambda m: f"{m[1]}coder.mid.block_{int(m[2]) + 1}."),
    (r"(en|de)coder\.mid_block\.attentions\.0\.", r"\1coder.mid.attn_1."),
    (r"encoder\.down_blocks\.(\d)\.resnets\.(\d)\.", r"encoder.down.\1.block.\2."),
    (r"encoder\.down_blocks\.(\d)\.downsamplers\.0\.", r"encoder.down.\1.downsample."),
    (r"decoder\.up_blocks\.(\d)\.resnets\.(\d)\.", lambda m: f"decoder.up.{3 - int(m[1])}.block.{m[2]}."),
    (r"decoder\.up_blocks\.(\d)\.upsamplers\.0\.", lambda m: f"decoder.up.{3 - int(m[1])}.upsample."),
    (r"conv_shortcut", "nin_shortcut"),
    (r"conv_norm_out", "norm_out"),
    (r"attn_1\.group_norm", "attn_1.norm"),
    (r"attn_1\.to_([qkv])\.", r"attn_1.\1."),
    (r"attn_1\.to_out\.0\.", "attn_1.proj_out."),
]


def write_sd1(pipeline, file: Path, more: dict | None = None) -> None:
    """One .safetensors file of `pipeline`, keys as CompVis has them. more: tensors besides."""
    out = dict(more or {}) | _unet(pipeline) | _vae(pipeline)
    for key, value in pipeline.text_encoder.state_dict().items():
        out[f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    _write(out, file)


def write_sdxl(pipeline, file: Path) -> None:
    """The same, keys as Stability AI's SDXL has them: the second text encoder in OpenCLIP's layout."""
    out = _unet(pipeline) | _vae(pipeline)
    for key, value in pipeline.text_encoder.state_dict().items():
        out[f"conditioner.embedders.0.transformer.text_model.{key.removeprefix('text_model.')}"] = value
    state = {key.removeprefix("text_model."): value for key, value in pipeline.text_encoder_2.state_dict().items()}
    start = "conditioner.embedders.1.model"
    out[f"{start}.text_projection"] = state["text_projection.weight"].T
    out[f"{start}.logit_scale"] = torch.tensor(4.6)
    out[f"{start}.token_embedding.weight"] = state["embeddings.token_embedding.weight"]
    out[f"{start}.positional_embedding"] = state["embeddings.position_embedding.weight"]
    layers = {key.split(".")[2] for key in state if key.startswith("encoder.layers.")}
    names = {
        "layer_norm1": "ln_1",
        "layer_norm2": "ln_2",
        "self_attn.out_proj": "attn.out_proj",
        "mlp.fc1": "mlp.c_fc",
        "mlp.fc2": "mlp.c_proj",
    }
    for part in ("weight", "bias"):
        out[f"{start}.ln_final.{part}"] = state[f"final_layer_norm.{part}"]
        for n in layers:
            ours, theirs = f"encoder.layers.{n}", f"{start}.transformer.resblocks.{n}"
            together = [state[f"{ours}.self_attn.{one}_proj.{part}"] for one in "qkv"]
            out[f"{theirs}.attn.in_proj_{part}"] = torch.cat(together)
            out |= {f"{theirs}.{new}.{part}": state[f"{ours}.{old}.{part}"] for old, new in names.items()}
    _write(out, file)


def _unet(pipeline) -> dict:
    out, unet = {}, pipeline.unet.state_dict()
    modules = {key.rpartition(".")[0]: 1 for key in unet}
    names = {path: name for name, path, rows in original_names(modules) if rows is None}
    for key, value in unet.items():
        path, _, part = key.rpartition(".")
        out[f"model.diffusion_model.{names[path]}.{part}"] = value
    return out


def _vae(pipeline) -> dict:
    out = {}
    for key, value in pipeline.vae.state_dict().items():
        for ours, theirs in _VAE:
            key = re.sub(ours, theirs, key)
        flat = re.search(r"attn_1\.(q|k|v|proj_out)\.weight", key)
        out[f"first_stage_model.{key}"] = value[..., None, None] if flat else value
    return out


def _write(tensors: dict, file: Path) -> None:
    save_file({key: value.contiguous().clone() for key, value in tensors.items()}, file)


_SD3_NORMS = {
    "attn.norm_q": "x_block.attn.ln_q",
    "attn.norm_k": "x_block.attn.ln_k",
    "attn2.norm_q": "x_block.attn2.ln_q",
    "attn2.norm_k": "x_block.attn2.ln_k",
    "attn.norm_added_q": "context_block.attn.ln_q",
    "attn.norm_added_k": "context_block.attn.ln_k",
}


_FLUX_NORMS = {
    "norm_q": ("img_attn", "query"),
    "norm_k": ("img_attn", "key"),
    "norm_added_q": ("txt_attn", "query"),
    "norm_added_k": ("txt_attn", "key"),
}


def write_flux(pipeline, file: Path) -> None:
    """The transformer alone, keys as Black Forest Labs has them."""
    state = pipeline.transformer.state_dict()
    sizes = {key.removesuffix(".weight"): len(value) for key, value in state.items() if key.endswith(".weight")}
    held: dict[str, list[str]] = {}
    for name, path, _ in original_names(sizes):
        held.setdefault(name, []).append(path)
    out = {}
    for part in ("weight", "bias"):
        for name, paths in held.items():
            if f"{paths[0]}.{part}" in state:
                out[f"{name}.{part}"] = torch.cat([state[f"{path}.{part}"] for path in paths])
        scale, shift = state[f"norm_out.linear.{part}"].chunk(2)
        out[f"final_layer.adaLN_modulation.1.{part}"] = torch.cat([shift, scale])
    for key, value in state.items():
        found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.attn\.(norm_\w+)\.weight", key)
        if found:
            side, which = _FLUX_NORMS[found[3]]
            start = f"single_blocks.{found[2]}" if found[1] else f"double_blocks.{found[2]}.{side}"
            out[f"{start}.norm.{which}_norm.scale"] = value
    _write(out, file)


def write_sd3(pipeline, file: Path) -> None:
    """The transformer alone, keys as Stability AI has them."""
    state = pipeline.transformer.state_dict()
    sizes = {key.removesuffix(".weight"): len(value) for key, value in state.items() if key.endswith(".weight")}
    held: dict[str, list[str]] = {}
    for name, path, _ in original_names(sizes):
        held.setdefault(name, []).append(path)
    out = {"pos_embed": state["pos_embed.pos_embed"]}
    for part in ("weight", "bias"):
        for name, paths in held.items():
            out[f"{name}.{part}"] = torch.cat([state[f"{path}.{part}"] for path in paths])
        out[f"context_embedder.{part}"] = state[f"context_embedder.{part}"]
        last = max(int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks."))
        swapped = {
            "norm_out.linear": "final_layer.adaLN_modulation.1",
            f"transformer_blocks.{last}.norm1_context.linear": f"joint_blocks.{last}.context_block.adaLN_modulation.1",
        }
        for path, name in swapped.items():  # scale and shift the other way round
            scale, shift = state[f"{path}.{part}"].chunk(2)
            out[f"{name}.{part}"] = torch.cat([shift, scale])
    for key, value in state.items():
        found = re.fullmatch(r"transformer_blocks\.(\d+)\.(attn2?\.norm_\w+)\.weight", key)
        if found:
            out[f"joint_blocks.{found[1]}.{_SD3_NORMS[found[2]]}.weight"] = value
    save_file({f"model.diffusion_model.{key}": value.contiguous().clone() for key, value in out.items()}, file)
