"""The first authors' names of transformers that diffusers renamed, beside FLUX.1 and SD 3: one table a model.

In the tables `#` stands for a block's number. A layer of the original that diffusers split into several has them all,
in the order of its rows.
"""

import re
from collections.abc import Iterator, Mapping

Table = Mapping[str, str | tuple[str, ...]]  # original name: diffusers' path, or the paths that it holds

_PARTS = ("layers", "noise_refiner", "context_refiner")

_Z_IMAGE: dict[str, str | tuple[str, ...]] = {
    "x_embedder": "all_x_embedder.2-1",
    "final_layer.linear": "all_final_layer.2-1.linear",
    "final_layer.adaLN_modulation.1": "all_final_layer.2-1.adaLN_modulation.1",
}
_LUMINA2: dict[str, str | tuple[str, ...]] = {
    "cap_embedder.1": "time_caption_embed.caption_embedder.1",
    "t_embedder.mlp.0": "time_caption_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_caption_embed.timestep_embedder.linear_2",
    "final_layer.linear": "norm_out.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear_1",
}
for _part in _PARTS:
    for _table, _attention in ((_Z_IMAGE, "attention"), (_LUMINA2, "attn")):
        _path = f"{_part}.#.{_attention}"
        _table[f"{_part}.#.attention.qkv"] = (f"{_path}.to_q", f"{_path}.to_k", f"{_path}.to_v")
        _table[f"{_part}.#.attention.out"] = f"{_path}.to_out.0"
    _LUMINA2 |= {f"{_part}.#.feed_forward.w{n}": f"{_part}.#.feed_forward.linear_{n}" for n in (1, 2, 3)}
    _LUMINA2[f"{_part}.#.adaLN_modulation.1"] = f"{_part}.#.norm1.linear"

_DOUBLE, _SINGLE = "transformer_blocks.#", "single_transformer_blocks.#"


def _fused(*names: str, of: str = f"{_DOUBLE}.attn") -> tuple[str, ...]:
    return tuple(f"{of}.{name}" for name in names)


_FLUX2: Table = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "double_blocks.#.img_attn.qkv": _fused("to_q", "to_k", "to_v"),
    "double_blocks.#.txt_attn.qkv": _fused("add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.#.img_attn.proj": f"{_DOUBLE}.attn.to_out.0",
    "double_blocks.#.txt_attn.proj": f"{_DOUBLE}.attn.to_add_out",
    "double_blocks.#.img_mlp.0": f"{_DOUBLE}.ff.linear_in",
    "double_blocks.#.img_mlp.2": f"{_DOUBLE}.ff.linear_out",
    "double_blocks.#.txt_mlp.0": f"{_DOUBLE}.ff_context.linear_in",
    "double_blocks.#.txt_mlp.2": f"{_DOUBLE}.ff_context.linear_out",
    "single_blocks.#.linear1": f"{_SINGLE}.attn.to_qkv_mlp_proj",
    "single_blocks.#.linear2": f"{_SINGLE}.attn.to_out",
}
_HUNYUAN_VIDEO: Table = {
    "img_in.proj": "x_embedder.proj",
    "final_layer.linear": "proj_out",
    "double_blocks.#.img_attn_qkv": _fused("to_q", "to_k", "to_v"),
    "double_blocks.#.txt_attn_qkv": _fused("add_q_proj", "add_k_proj", "add_v_proj"),
    "double_blocks.#.img_attn_proj": f"{_DOUBLE}.attn.to_out.0",
    "double_blocks.#.txt_attn_proj": f"{_DOUBLE}.attn.to_add_out",
    "double_blocks.#.img_mlp.fc1": f"{_DOUBLE}.ff.net.0.proj",
    "double_blocks.#.img_mlp.fc2": f"{_DOUBLE}.ff.net.2",
    "double_blocks.#.txt_mlp.fc1": f"{_DOUBLE}.ff_context.net.0.proj",
    "double_blocks.#.txt_mlp.fc2": f"{_DOUBLE}.ff_context.net.2",
    "double_blocks.#.img_mod.linear": f"{_DOUBLE}.norm1.linear",
    "double_blocks.#.txt_mod.linear": f"{_DOUBLE}.norm1_context.linear",
    "single_blocks.#.linear1": (*_fused("to_q", "to_k", "to_v", of=f"{_SINGLE}.attn"), f"{_SINGLE}.proj_mlp"),
    "single_blocks.#.linear2": f"{_SINGLE}.proj_out",
    "single_blocks.#.modulation.linear": f"{_SINGLE}.norm.linear",
}
_WAN: Table = {
    **{f"blocks.#.self_attn.{ours}": f"blocks.#.attn1.to_{ours}" for ours in "qkv"},
    **{f"blocks.#.cross_attn.{ours}": f"blocks.#.attn2.to_{ours}" for ours in "qkv"},
    **{f"blocks.#.cross_attn.{ours}_img": f"blocks.#.attn2.add_{ours}_proj" for ours in "kv"},
    "blocks.#.self_attn.o": "blocks.#.attn1.to_out.0",
    "blocks.#.cross_attn.o": "blocks.#.attn2.to_out.0",
    "blocks.#.ffn.0": "blocks.#.ffn.net.0.proj",
    "blocks.#.ffn.2": "blocks.#.ffn.net.2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
}
_ANIMA: Table = {
    **{f"blocks.#.self_attn.{ours}_proj": f"{_DOUBLE}.attn1.to_{ours}" for ours in "qkv"},
    **{f"blocks.#.cross_attn.{ours}_proj": f"{_DOUBLE}.attn2.to_{ours}" for ours in "qkv"},
    "blocks.#.self_attn.output_proj": f"{_DOUBLE}.attn1.to_out.0",
    "blocks.#.cross_attn.output_proj": f"{_DOUBLE}.attn2.to_out.0",
    "blocks.#.mlp.layer1": f"{_DOUBLE}.ff.net.0.proj",
    "blocks.#.mlp.layer2": f"{_DOUBLE}.ff.net.2",
    **{
        f"blocks.#.adaln_modulation_{part}.{k}": f"{_DOUBLE}.norm{n}.linear_{k}"
        for n, part in enumerate(("self_attn", "cross_attn", "mlp"), 1)
        for k in (1, 2)
    },
    "final_layer.adaln_modulation.1": "norm_out.linear_1",
    "final_layer.adaln_modulation.2": "norm_out.linear_2",
    "final_layer.linear": "proj_out",
    "x_embedder.proj.1": "patch_embed.proj",
    "t_embedder.1.linear_1": "time_embed.t_embedder.linear_1",
    "t_embedder.1.linear_2": "time_embed.t_embedder.linear_2",
}
_KREA2_ATTENTION = {"wq": "to_q", "wk": "to_k", "wv": "to_v", "wo": "to_out.0", "gate": "to_gate"}
_KREA2: dict[str, str | tuple[str, ...]] = {
    "first": "img_in",
    "last.linear": "final_layer.linear",
    "tmlp.0": "time_embed.linear_1",
    "tmlp.2": "time_embed.linear_2",
    "tproj.1": "time_mod_proj",
    "txtmlp.1": "txt_in.linear_1",
    "txtmlp.3": "txt_in.linear_2",
    "txtfusion.projector": "text_fusion.projector",
}
for _name, _path in (
    ("blocks.#", _DOUBLE),
    ("txtfusion.layerwise_blocks.#", "text_fusion.layerwise_blocks.#"),
    ("txtfusion.refiner_blocks.#", "text_fusion.refiner_blocks.#"),
):
    _KREA2 |= {f"{_name}.attn.{theirs}": f"{_path}.attn.{ours}" for theirs, ours in _KREA2_ATTENTION.items()}
    _KREA2 |= {f"{_name}.mlp.{part}": f"{_path}.ff.{part}" for part in ("gate", "up", "down")}

# (a path by which the model is known, its table); the first that the model has counts
_TABLES: tuple[tuple[str, Table], ...] = (
    (r"single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj", _FLUX2),
    (r"context_embedder\.token_refiner\.", _HUNYUAN_VIDEO),
    (r"layers\.\d+\.attention\.to_q", _Z_IMAGE),
    (r"layers\.\d+\.attn\.to_q", _LUMINA2),
    (r"blocks\.\d+\.attn2\.to_q", _WAN),
    (r"transformer_blocks\.\d+\.norm1\.linear_1", _ANIMA),
    (r"transformer_blocks\.\d+\.attn\.to_gate", _KREA2),
)


_BLOCK = re.compile(r"(\D*\.)(\d+)\.")  # the first number of a path


def table_of(paths: Mapping[str, int]) -> Table | None:
    """The table of the model that has these layers; None for any other model."""
    text = "\n".join(paths)
    return next((table for sign, table in _TABLES if re.search(rf"^{sign}", text, re.MULTILINE)), None)


def named_by(table: Table, paths: Mapping[str, int]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(original name, the paths that it holds), for each block that the model has."""
    blocks: dict[str, set[str]] = {}
    for stem, number in {found.groups() for path in paths if (found := _BLOCK.match(path))}:
        blocks.setdefault(stem, set()).add(number)
    for name, held in table.items():
        parts = (held,) if isinstance(held, str) else held
        if "#" not in name:
            yield name, parts
            continue
        for number in sorted(blocks.get(parts[0].partition("#")[0], ()), key=int):
            yield name.replace("#", number), tuple(part.replace("#", number) for part in parts)
