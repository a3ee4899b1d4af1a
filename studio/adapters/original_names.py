"""What the models' first authors call the layers that diffusers renamed: for files made with those names.

Everything is computed from the paths of the live model, so that a UNet of any depth is understood. Some original layers
hold several of diffusers' as one: query, key and value of an attention, in FLUX's single blocks the first half of the
feed-forward too. Those map to ranges of output rows.
"""

import re
from collections import Counter
from collections.abc import Iterator

from studio.adapters.original_dit_names import named_by, table_of

Sizes = dict[str, int]  # path of a layer: its outputs

# Inside a residual block of the Stable Diffusion UNet.
_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_FLUX = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
}
_FLUX_DOUBLE = {
    "attn.to_out.0": "img_attn.proj",
    "attn.to_add_out": "txt_attn.proj",
    "ff.net.0.proj": "img_mlp.0",
    "ff.net.2": "img_mlp.2",
    "ff_context.net.0.proj": "txt_mlp.0",
    "ff_context.net.2": "txt_mlp.2",
    "norm1.linear": "img_mod.lin",
    "norm1_context.linear": "txt_mod.lin",
}
_FLUX_SINGLE = {"proj_out": "linear2", "norm.linear": "modulation.lin"}
_SD3 = {
    "pos_embed.proj": "x_embedder.proj",
    "proj_out": "final_layer.linear",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
}
_SD3_BLOCK = {
    "attn.to_out.0": "x_block.attn.proj",
    "attn2.to_out.0": "x_block.attn2.proj",
    "attn.to_add_out": "context_block.attn.proj",
    "ff.net.0.proj": "x_block.mlp.fc1",
    "ff.net.2": "x_block.mlp.fc2",
    "ff_context.net.0.proj": "context_block.mlp.fc1",
    "ff_context.net.2": "context_block.mlp.fc2",
    "norm1.linear": "x_block.adaLN_modulation.1",
    "norm1_context.linear": "context_block.adaLN_modulation.1",
}
_QKV, _ADDED = ("to_q", "to_k", "to_v"), ("add_q_proj", "add_k_proj", "add_v_proj")

Named = tuple[str, tuple[str, ...]]  # an original name, and the paths that it holds in the order of its rows


def original_names(sizes: Sizes) -> Iterator[tuple[str, str, tuple[int, int] | None]]:
    """(original name, path, its rows of the original layer or None for all) for every layer that has one.

    sizes: {path: outputs} of a UNet2DConditionModel, FluxTransformer2DModel, SD3Transformer2DModel or a model of
    `original_dit_names`; of any other model nothing comes. The last modulation of FLUX and SD3 (`norm_out.linear`), and
    that of the context in SD3's last block, are left out: there diffusers swapped the two halves, which rows of one
    layer can't express.
    """
    table = table_of(sizes)
    if table is not None:
        named: Iterator[Named] = named_by(table, sizes)
    elif any(path.startswith("down_blocks.0.resnets.") for path in sizes):
        named = _unet(sizes)
    elif any(path.startswith("single_transformer_blocks.") for path in sizes):
        named = _flux(sizes)
    elif "pos_embed.proj" in sizes and any(path.startswith("transformer_blocks.0.attn.") for path in sizes):
        named = _sd3(sizes)
    else:
        return
    for name, paths in named:
        if not all(path in sizes for path in paths):
            continue
        start = 0
        for path in paths:
            yield name, path, None if len(paths) == 1 else (start, start + sizes[path])
            start += sizes[path]


def _unet(sizes: Sizes) -> Iterator[Named]:
    """Stable Diffusion 1, 2 and XL: input_blocks, middle_block, output_blocks, one number a residual block."""
    blocks = {m.groups() for path in sizes if (m := re.match(r"(down|up)_blocks\.(\d+)\.resnets\.(\d+)\.", path))}
    depth = Counter((way, int(block)) for way, block, _ in blocks)  # residual blocks in each
    with_attention = {m[1] for path in sizes if (m := re.match(r"(up_blocks\.\d+)\.attentions\.", path))}
    for path in sizes:
        if path in _UNET:
            yield _UNET[path], (path,)
        elif m := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", path):
            place = 2 * int(m[2]) + (m[1] == "attentions")
            yield f"middle_block.{place}.{_RESNET.get(m[3], m[3])}", (path,)
        elif m := re.fullmatch(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", path):
            way, block, kind, number, rest = m[1], int(m[2]), m[3], int(m[4]), m[5]
            if way == "down":
                first = 1 + sum(depth["down", b] + 1 for b in range(block))
            else:
                first = sum(depth["up", b] for b in range(block))
            stem = "input_blocks" if way == "down" else "output_blocks"
            if kind == "resnets":
                yield f"{stem}.{first + number}.0.{_RESNET.get(rest, rest)}", (path,)
            elif kind == "attentions":
                yield f"{stem}.{first + number}.1.{rest}", (path,)
            elif kind == "downsamplers":
                yield f"{stem}.{first + depth[way, block]}.0.op", (path,)
            elif kind == "upsamplers":
                inside = 2 if f"up_blocks.{block}" in with_attention else 1
                yield f"{stem}.{first + depth[way, block] - 1}.{inside}.{rest}", (path,)


def _flux(sizes: Sizes) -> Iterator[Named]:
    """Black Forest Labs' names, and those of XLabs (qkv1, proj1: the image's, 2: the text's)."""
    for path, name in _FLUX.items():
        yield name, (path,)
    for block in _numbers(sizes, "transformer_blocks"):
        path, name = f"transformer_blocks.{block}", f"double_blocks.{block}"
        for ours, theirs in _FLUX_DOUBLE.items():
            yield f"{name}.{theirs}", (f"{path}.{ours}",)
        for number, (side, parts) in enumerate((("img", _QKV), ("txt", _ADDED)), 1):
            fused = tuple(f"{path}.attn.{part}" for part in parts)
            yield f"{name}.{side}_attn.qkv", fused
            yield f"{name}.qkv{number}", fused
        yield f"{name}.proj1", (f"{path}.attn.to_out.0",)
        yield f"{name}.proj2", (f"{path}.attn.to_add_out",)
    for block in _numbers(sizes, "single_transformer_blocks"):
        path, name = f"single_transformer_blocks.{block}", f"single_blocks.{block}"
        for ours, theirs in _FLUX_SINGLE.items():
            yield f"{name}.{theirs}", (f"{path}.{ours}",)
        fused = tuple(f"{path}.attn.{part}" for part in _QKV)
        yield f"{name}.linear1", (*fused, f"{path}.proj_mlp")
        yield f"{name}.qkv", fused
        yield f"{name}.proj", (f"{path}.proj_out",)


def _sd3(sizes: Sizes) -> Iterator[Named]:
    for path, name in _SD3.items():
        yield name, (path,)
    for block in _numbers(sizes, "transformer_blocks"):
        path, name = f"transformer_blocks.{block}", f"joint_blocks.{block}"
        last = f"{path}.ff_context.net.2" not in sizes  # its context's modulation has swapped halves, like norm_out
        for ours, theirs in _SD3_BLOCK.items():
            if last and ours == "norm1_context.linear":
                continue
            yield f"{name}.{theirs}", (f"{path}.{ours}",)
        for attention in ("attn", "attn2"):
            yield f"{name}.x_block.{attention}.qkv", tuple(f"{path}.{attention}.{part}" for part in _QKV)
        yield f"{name}.context_block.attn.qkv", tuple(f"{path}.attn.{part}" for part in _ADDED)


def _numbers(sizes: Sizes, blocks: str) -> list[int]:
    return sorted({int(m[1]) for path in sizes if (m := re.match(rf"{blocks}\.(\d+)\.", path))})
