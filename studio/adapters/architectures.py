"""The layers of the models that adapters are made for: {path as diffusers names it: shape of the weight}.

Each function computes a whole model from a few numbers, so that a file can be compared with models that are not
installed. A test compares every one with diffusers' own model class.
"""

from collections.abc import Iterable

Shapes = dict[str, tuple[int, ...]]  # (out, in), or (out, in, kh, kw) of a convolution
Shape = tuple[str, tuple[int, ...]]

_QKV = ("to_q", "to_k", "to_v")


def unet(
    text: int,
    widths: tuple[int, ...] = (320, 640, 1280, 1280),
    depths: tuple[int, ...] = (1, 1, 1, 0),
    pooled: int = 0,
    layers: int = 2,
    latents: int = 4,
) -> Shapes:
    """UNet2DConditionModel. text: width of the text states; depths: transformer blocks per attention, 0 for none.

    latents: channels of the latents.
    """
    time, last = 4 * widths[0], len(widths) - 1
    out: Shapes = {
        "conv_in": (widths[0], latents, 3, 3),
        "conv_out": (latents, widths[0], 3, 3),
        "time_embedding.linear_1": (time, widths[0]),
        "time_embedding.linear_2": (time, time),
    }
    if pooled:
        out |= {"add_embedding.linear_1": (time, pooled), "add_embedding.linear_2": (time, time)}
    before = widths[0]
    for block, (width, depth) in enumerate(zip(widths, depths)):
        name = f"down_blocks.{block}"
        for n in range(layers):
            out |= _resnet(f"{name}.resnets.{n}", width, width if n else before, time)
            out |= _unet_attention(f"{name}.attentions.{n}", width, depth, text)
        if block != last:
            out[f"{name}.downsamplers.0.conv"] = (width, width, 3, 3)
        before = width
    for n in range(2):
        out |= _resnet(f"mid_block.resnets.{n}", widths[-1], widths[-1], time)
    out |= _unet_attention("mid_block.attentions.0", widths[-1], max(1, depths[-1]), text)
    up, deep = widths[::-1], depths[::-1]
    for block, (width, depth) in enumerate(zip(up, deep)):
        name, skip = f"up_blocks.{block}", up[min(block + 1, last)]
        for n in range(layers + 1):
            below = before if n == 0 else width
            out |= _resnet(f"{name}.resnets.{n}", width, below + (skip if n == layers else width), time)
            out |= _unet_attention(f"{name}.attentions.{n}", width, depth, text)
        if block != last:
            out[f"{name}.upsamplers.0.conv"] = (width, width, 3, 3)
        before = width
    return out


def _resnet(name: str, width: int, inputs: int, time: int) -> Shapes:
    out: Shapes = {
        f"{name}.conv1": (width, inputs, 3, 3),
        f"{name}.conv2": (width, width, 3, 3),
        f"{name}.time_emb_proj": (width, time),
    }
    return out | ({f"{name}.conv_shortcut": (width, inputs)} if inputs != width else {})


def _unet_attention(name: str, width: int, depth: int, text: int) -> Shapes:
    out: Shapes = {f"{name}.proj_in": (width, width), f"{name}.proj_out": (width, width)} if depth else {}
    for n in range(depth):
        block = f"{name}.transformer_blocks.{n}"
        for part in (*_QKV, "to_out.0"):
            out[f"{block}.attn1.{part}"] = (width, width)
            out[f"{block}.attn2.{part}"] = (width, text if part in ("to_k", "to_v") else width)
        out |= _feed_forward(f"{block}.ff", width, 8 * width, 4 * width)
    return out


def _feed_forward(name: str, width: int, inner: int, outer: int = 0) -> Shapes:
    """diffusers' FeedForward; a gated one gives twice as many numbers as it takes back."""
    return {f"{name}.net.0.proj": (inner, width), f"{name}.net.2": (width, outer or inner)}


def _joint_attention(name: str, width: int, context_out: bool = True) -> Shapes:
    parts = (*_QKV, "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", *(("to_add_out",) if context_out else ()))
    return {f"{name}.{part}": (width, width) for part in parts}


def _embedders(name: str, width: int, **inputs: int) -> Shapes:
    out: Shapes = {}
    for part, size in inputs.items():
        out |= {f"{name}.{part}.linear_1": (width, size), f"{name}.{part}.linear_2": (width, width)}
    return out


def sd3(width: int, blocks: int, dual: int = 0) -> Shapes:
    """SD3Transformer2DModel. dual: blocks at the start with a second self-attention."""
    out: Shapes = {
        "pos_embed.proj": (width, 16, 2, 2),
        "context_embedder": (width, 4096),
        "norm_out.linear": (2 * width, width),
        "proj_out": (64, width),
        **_embedders("time_text_embed", width, timestep_embedder=256, text_embedder=2048),
    }
    for n in range(blocks):
        name, last = f"transformer_blocks.{n}", n == blocks - 1
        out |= _joint_attention(f"{name}.attn", width, not last) | _feed_forward(f"{name}.ff", width, 4 * width)
        out[f"{name}.norm1.linear"] = ((9 if n < dual else 6) * width, width)
        out[f"{name}.norm1_context.linear"] = ((2 if last else 6) * width, width)
        if n < dual:
            out |= {f"{name}.attn2.{part}": (width, width) for part in (*_QKV, "to_out.0")}
        if not last:
            out |= _feed_forward(f"{name}.ff_context", width, 4 * width)
    return out


def flux1(modulated: bool = True) -> Shapes:
    """FluxTransformer2DModel (with guidance); without modulations it is Chroma's body."""
    width = 3072
    out = _double_and_single(width, 19, 38, modulated)
    out |= {"x_embedder": (width, 64), "context_embedder": (width, 4096), "proj_out": (64, width)}
    if modulated:
        out["norm_out.linear"] = (2 * width, width)
        out |= _embedders("time_text_embed", width, timestep_embedder=256, guidance_embedder=256, text_embedder=768)
    return out


def chroma() -> Shapes:
    """ChromaTransformer2DModel: FLUX.1 whose modulations come from one distilled layer."""
    out, name = flux1(modulated=False), "distilled_guidance_layer"
    out |= {f"{name}.in_proj": (5120, 64), f"{name}.out_proj": (3072, 5120)}
    for n in range(5):
        out |= {f"{name}.layers.{n}.linear_{part}": (5120, 5120) for part in (1, 2)}
    return out


def _double_and_single(width: int, double: int, single: int, modulated: bool) -> Shapes:
    out: Shapes = {}
    for n in range(double):
        name = f"transformer_blocks.{n}"
        out |= _joint_attention(f"{name}.attn", width)
        out |= _feed_forward(f"{name}.ff", width, 4 * width) | _feed_forward(f"{name}.ff_context", width, 4 * width)
        if modulated:
            out |= {f"{name}.{norm}.linear": (6 * width, width) for norm in ("norm1", "norm1_context")}
    for n in range(single):
        name = f"single_transformer_blocks.{n}"
        out |= {f"{name}.attn.{part}": (width, width) for part in _QKV}
        out |= {f"{name}.proj_mlp": (4 * width, width), f"{name}.proj_out": (width, 5 * width)}
        if modulated:
            out[f"{name}.norm.linear"] = (3 * width, width)
    return out


def flux2(width: int, double: int, single: int, text: int, guidance: bool) -> Shapes:
    """Flux2Transformer2DModel. text: width of the text states."""
    out: Shapes = {
        "x_embedder": (width, 128),
        "context_embedder": (width, text),
        "proj_out": (128, width),
        "norm_out.linear": (2 * width, width),
        "double_stream_modulation_img.linear": (6 * width, width),
        "double_stream_modulation_txt.linear": (6 * width, width),
        "single_stream_modulation.linear": (3 * width, width),
        **_embedders("time_guidance_embed", width, timestep_embedder=256),
    }
    if guidance:
        out |= _embedders("time_guidance_embed", width, guidance_embedder=256)
    for n in range(double):
        name = f"transformer_blocks.{n}"
        out |= _joint_attention(f"{name}.attn", width)
        for part in ("ff", "ff_context"):
            out |= {f"{name}.{part}.linear_in": (6 * width, width), f"{name}.{part}.linear_out": (width, 3 * width)}
    for n in range(single):
        name = f"single_transformer_blocks.{n}.attn"
        out |= {f"{name}.to_qkv_mlp_proj": (9 * width, width), f"{name}.to_out": (width, 4 * width)}
    return out


def qwen_image() -> Shapes:
    """QwenImageTransformer2DModel."""
    width = 3072
    out: Shapes = {
        "img_in": (width, 64),
        "txt_in": (width, 3584),
        "norm_out.linear": (2 * width, width),
        "proj_out": (64, width),
        **_embedders("time_text_embed", width, timestep_embedder=256),
    }
    for n in range(60):
        name = f"transformer_blocks.{n}"
        out |= _joint_attention(f"{name}.attn", width)
        for side in ("img", "txt"):
            out[f"{name}.{side}_mod.1"] = (6 * width, width)
            out |= _feed_forward(f"{name}.{side}_mlp", width, 4 * width)
    return out


def z_image() -> Shapes:
    """ZImageTransformer2DModel."""
    width = 3840
    out: Shapes = {
        "all_x_embedder.2-1": (width, 64),
        "all_final_layer.2-1.linear": (64, width),
        "all_final_layer.2-1.adaLN_modulation.1": (width, 256),
        "t_embedder.mlp.0": (1024, 256),
        "t_embedder.mlp.2": (256, 1024),
        "cap_embedder.1": (width, 2560),
    }
    for part, count in (("layers", 30), ("noise_refiner", 2), ("context_refiner", 2)):
        for n in range(count):
            name = f"{part}.{n}"
            out |= {f"{name}.attention.{leaf}": (width, width) for leaf in (*_QKV, "to_out.0")}
            out |= {f"{name}.feed_forward.w{k}": (width, 10240) if k == 2 else (10240, width) for k in (1, 2, 3)}
            if part != "context_refiner":
                out[f"{name}.adaLN_modulation.0"] = (4 * width, 256)
    return out


def lumina2() -> Shapes:
    """Lumina2Transformer2DModel."""
    width, time = 2304, 1024
    out: Shapes = {
        "x_embedder": (width, 64),
        "norm_out.linear_1": (width, time),
        "norm_out.linear_2": (64, width),
        "time_caption_embed.timestep_embedder.linear_1": (time, 256),
        "time_caption_embed.timestep_embedder.linear_2": (time, time),
        "time_caption_embed.caption_embedder.1": (width, 2304),
    }
    for part, count in (("layers", 26), ("noise_refiner", 2), ("context_refiner", 2)):
        for n in range(count):
            name = f"{part}.{n}"
            out |= {f"{name}.attn.{leaf}": (width, width) for leaf in ("to_q", "to_out.0")}
            out |= {f"{name}.attn.{leaf}": (width // 3, width) for leaf in ("to_k", "to_v")}
            for k in (1, 2, 3):
                out[f"{name}.feed_forward.linear_{k}"] = (width, 4 * width) if k == 2 else (4 * width, width)
            if part != "context_refiner":
                out[f"{name}.norm1.linear"] = (4 * width, time)
    return out


def anima() -> Shapes:
    """CosmosTransformer3DModel with Anima's numbers, those of Cosmos Predict2 2B."""
    width, low = 2048, 256
    out: Shapes = {
        "patch_embed.proj": (width, 68),
        "time_embed.t_embedder.linear_1": (width, width),
        "time_embed.t_embedder.linear_2": (3 * width, width),
        "norm_out.linear_1": (low, width),
        "norm_out.linear_2": (2 * width, low),
        "proj_out": (64, width),
    }
    for n in range(28):
        name = f"transformer_blocks.{n}"
        for part in (*_QKV, "to_out.0"):
            out[f"{name}.attn1.{part}"] = (width, width)
            out[f"{name}.attn2.{part}"] = (width, 1024 if part in ("to_k", "to_v") else width)
        for norm in (1, 2, 3):
            out |= {f"{name}.norm{norm}.linear_1": (low, width), f"{name}.norm{norm}.linear_2": (3 * width, low)}
        out |= _feed_forward(f"{name}.ff", width, 4 * width)
    return out


def krea2() -> Shapes:
    """Krea2Transformer2DModel."""
    width, text = 6144, 2560
    out: Shapes = {
        "img_in": (width, 64),
        "final_layer.linear": (64, width),
        "time_mod_proj": (6 * width, width),
        "text_fusion.projector": (1, 12),
        "txt_in.linear_1": (width, text),
        "txt_in.linear_2": (width, width),
        **_embedders("", width, time_embed=256),
    }
    for n in range(28):
        out |= _krea2_block(f"transformer_blocks.{n}", width, width // 4, 16384)
    for n in range(2):
        for part in ("layerwise_blocks", "refiner_blocks"):
            out |= _krea2_block(f"text_fusion.{part}.{n}", text, text, 6912)
    return {name.lstrip("."): shape for name, shape in out.items()}


def _krea2_block(name: str, width: int, keys: int, inner: int) -> Shapes:
    out: Shapes = {f"{name}.attn.{part}": (width, width) for part in ("to_q", "to_gate", "to_out.0")}
    out |= {f"{name}.attn.{part}": (keys, width) for part in ("to_k", "to_v")}
    return out | {f"{name}.ff.{part}": (inner, width) for part in ("gate", "up")} | {f"{name}.ff.down": (width, inner)}


def hunyuan_video() -> Shapes:
    """HunyuanVideoTransformer3DModel."""
    width, context = 3072, "context_embedder"
    out = _double_and_single(width, 20, 40, True)
    out |= {
        "x_embedder.proj": (width, 16, 1, 2, 2),
        "norm_out.linear": (2 * width, width),
        "proj_out": (64, width),
        f"{context}.proj_in": (width, 4096),
        **_embedders("time_text_embed", width, timestep_embedder=256, guidance_embedder=256, text_embedder=768),
        **_embedders(f"{context}.time_text_embed", width, timestep_embedder=256, text_embedder=4096),
    }
    for n in range(2):
        name = f"{context}.token_refiner.refiner_blocks.{n}"
        out |= {f"{name}.attn.{part}": (width, width) for part in (*_QKV, "to_out.0")}
        out |= _feed_forward(f"{name}.ff", width, 4 * width) | {f"{name}.norm_out.linear": (2 * width, width)}
    return out


def ltx(width: int = 2048, blocks: int = 28, text: int = 4096) -> Shapes:
    """LTXVideoTransformer3DModel."""
    out: Shapes = {
        "proj_in": (width, 128),
        "proj_out": (128, width),
        "time_embed.linear": (6 * width, width),
        "caption_projection.linear_1": (width, text),
        "caption_projection.linear_2": (width, width),
        **_embedders("time_embed.emb", width, timestep_embedder=256),
    }
    for n in range(blocks):
        name = f"transformer_blocks.{n}"
        out |= {f"{name}.{a}.{part}": (width, width) for a in ("attn1", "attn2") for part in (*_QKV, "to_out.0")}
        out |= _feed_forward(f"{name}.ff", width, 4 * width)
    return out


def wan(width: int, blocks: int, inner: int, channels: int = 16, images: bool = False) -> Shapes:
    """WanTransformer3DModel. images: the image-to-video model of Wan 2.1, which attends to an image too."""
    embed = "condition_embedder"
    out: Shapes = {
        "patch_embedding": (width, channels, 1, 2, 2),
        "proj_out": (64 if channels != 48 else 192, width),
        f"{embed}.time_proj": (6 * width, width),
        **_embedders(embed, width, time_embedder=256, text_embedder=4096),
    }
    for n in range(blocks):
        name = f"blocks.{n}"
        out |= {f"{name}.{a}.{part}": (width, width) for a in ("attn1", "attn2") for part in (*_QKV, "to_out.0")}
        out |= _feed_forward(f"{name}.ffn", width, inner)
        if images:
            out |= {f"{name}.attn2.{part}": (width, width) for part in ("add_k_proj", "add_v_proj")}
    if images:
        name = f"{embed}.image_embedder.ff.net"
        out |= {f"{name}.0.proj": (1280, 1280), f"{name}.2": (width, 1280)}
    return out


def clip_text(width: int, blocks: int) -> Shapes:
    """transformers' CLIPTextModel, without its embeddings."""
    out: Shapes = {}
    for n in range(blocks):
        name = f"encoder.layers.{n}"
        out |= {f"{name}.self_attn.{part}": (width, width) for part in ("q_proj", "k_proj", "v_proj", "out_proj")}
        out |= {f"{name}.mlp.fc1": (4 * width, width), f"{name}.mlp.fc2": (width, 4 * width)}
    return out


def t5_text() -> Shapes:
    """transformers' T5EncoderModel, T5 v1.1 XXL."""
    width, inner = 4096, 10240
    out: Shapes = {}
    for n in range(24):
        name = f"encoder.block.{n}.layer"
        out |= {f"{name}.0.SelfAttention.{part}": (width, width) for part in "qkvo"}
        out |= {f"{name}.1.DenseReluDense.wi_{k}": (inner, width) for k in (0, 1)}
        out[f"{name}.1.DenseReluDense.wo"] = (width, inner)
    return out


def all_names(
    shapes: Shapes, spelled: Iterable[tuple[str, str, tuple[int, int] | None]]
) -> dict[str, tuple[str, set[tuple[int, ...]]]]:
    """{flattened name: (path, shapes)} of a model by diffusers' and by the original names, fused layers as one.

    spelled: `original_names` of the model.
    """
    named = dict[str, tuple[str, tuple[int, ...]]]()
    for name, path, rows in spelled:
        above = named[name][1][0] if rows and name in named else 0
        named[name] = (path, (above + shapes[path][0], *shapes[path][1:]))
    out: dict[str, tuple[str, set[tuple[int, ...]]]] = {}
    for name, (path, shape) in (*((path, (path, shape)) for path, shape in shapes.items()), *named.items()):
        out.setdefault(name.replace(".", "_"), (path, set()))[1].add(shape)
    return out
