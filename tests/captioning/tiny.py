"""Captioners' models with random weights, a few kilobytes each, from transformers' own configs, saved as on the hub."""

import json

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    BertTokenizer,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    CLIPConfig,
    CLIPModel,
    Florence2Config,
    Florence2ForConditionalGeneration,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

VISION = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT = {**VISION, "num_key_value_heads": 1, "max_position_embeddings": 512}
QWEN_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
QWEN_TOKENS += ["<|video_pad|>"]
QWEN_CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
JOY_CHAT = (  # takes plain text and sets the image's place itself
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}]{% if m.role == 'user' %}<image>{% endif %}"
    "{{ m.content | trim }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)


def images(count: int = 3, seed: int = 0) -> list[Image.Image]:
    """RGB noise in coarse squares, of different shapes."""
    rng = np.random.default_rng(seed)
    shapes = [(90, 60), (48, 80), (64, 64), (120, 40)]
    coarse = [Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)) for _ in range(count)]
    return [image.resize(shapes[i % 4], Image.Resampling.NEAREST) for i, image in enumerate(coarse)]


def tokenizer(special: list[str], **named) -> PreTrainedTokenizerFast:
    """Bytes, and these special tokens; named: what they are for, as bos_token="<s>"."""
    letters = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    inner = Tokenizer(models.BPE(letters, []))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    inner.add_special_tokens(special)
    return PreTrainedTokenizerFast(tokenizer_object=inner, **named)


def save(model, folder, **files: dict) -> None:
    """The model with livelier weights than training begins with, and JSON files beside it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn(weight.shape, generator=generator) * (2 / weight[0].numel()) ** 0.5)
    model.save_pretrained(folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def image_processor(kind: str, side: int, **more) -> dict:
    """preprocessor_config.json."""
    square = {"height": side, "width": side}
    usual = {"do_resize": True, "do_normalize": True, "do_rescale": True, "resample": 3, "size": square}
    return {"image_processor_type": kind, **usual, "image_mean": [0.5] * 3, "image_std": [0.5] * 3} | more


def bert(folder) -> BertTokenizer:
    known = "[PAD] [UNK] [CLS] [SEP] [MASK] a of painting red cat dog on the grass sky ##s , ."
    words = known.split()
    (folder / "vocab.txt").write_text("\n".join(words))
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


def blip(folder):
    words = bert(folder)
    words.save_pretrained(folder)
    text = {  # as on the hub, what begins a text is a token that the tokenizer doesn't have
        **TEXT,
        "vocab_size": len(words) + 2,
        "bos_token_id": len(words),
        "sep_token_id": 3,
        "eos_token_id": 3,
        "pad_token_id": 0,
        "encoder_hidden_size": 16,
        "projection_dim": 16,
    }
    del text["num_key_value_heads"]
    config = BlipConfig(text_config=text, vision_config={**VISION, "image_size": 32, "patch_size": 8})
    save(BlipForConditionalGeneration(config), folder, preprocessor_config=image_processor("BlipImageProcessor", 32))
    return folder


def blip2(folder, queries: int | None = 4):
    special = ["<pad>", "</s>", "<image>"]
    words = tokenizer(special, bos_token="</s>", eos_token="</s>", pad_token="<pad>")
    words.save_pretrained(folder)
    ids = {word: words.convert_tokens_to_ids(word) for word in special}
    text = {
        "model_type": "opt",
        "vocab_size": len(words),
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
        "max_position_embeddings": 128,
        "bos_token_id": ids["</s>"],
        "eos_token_id": ids["</s>"],
        "pad_token_id": ids["<pad>"],
    }
    config = Blip2Config(
        vision_config={**VISION, "image_size": 32, "patch_size": 8},
        qformer_config={**VISION, "encoder_hidden_size": 16, "vocab_size": 30},
        text_config=text,
        num_query_tokens=4,
        image_token_index=ids["<image>"],
        image_text_hidden_size=16,
    )
    files = {"preprocessor_config": image_processor("BlipImageProcessor", 32)}
    files["processor_config"] = {"processor_class": "Blip2Processor", "num_query_tokens": queries}
    save(Blip2ForConditionalGeneration(config), folder, **files)
    return folder


def florence(folder):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<image>"]
    words = tokenizer(
        special,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    words.save_pretrained(folder)
    ids = {word: words.convert_tokens_to_ids(word) for word in special}
    text = {
        "model_type": "bart",
        "vocab_size": len(words),
        "d_model": 16,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "max_position_embeddings": 256,
        "bos_token_id": ids["<s>"],
        "pad_token_id": ids["<pad>"],
        "eos_token_id": ids["</s>"],
        "decoder_start_token_id": ids["</s>"],
        "forced_bos_token_id": None,
    }
    vision = {
        "depths": [1, 1, 1, 1],
        "embed_dim": [8, 8, 16, 16],
        "num_heads": [1, 1, 2, 2],
        "num_groups": [1, 1, 2, 2],
        "window_size": 4,
        "projection_dim": 16,
        "drop_path_rate": 0.0,
    }
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=ids["<image>"])
    save(
        Florence2ForConditionalGeneration(config),
        folder,
        preprocessor_config=image_processor("CLIPImageProcessor", 64, do_center_crop=False, image_seq_length=5),
        processor_config={
            "processor_class": "Florence2Processor",
            "num_additional_image_tokens": 0,
            "post_processor_config": {"pure_text": {}},
        },
    )
    return folder


def qwen(folder, newer: bool = True):
    """Qwen3-VL, or Qwen2.5-VL."""
    words = tokenizer(QWEN_TOKENS, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    words.chat_template = QWEN_CHAT
    words.save_pretrained(folder)
    end, _, stop, begin, close, image, video = (words.convert_tokens_to_ids(token) for token in QWEN_TOKENS)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    text = {
        **TEXT,
        "vocab_size": len(words),
        "eos_token_id": stop,
        "bos_token_id": end,
        "pad_token_id": end,
        "rope_parameters": rope,
    }
    ids = {"image_token_id": image, "video_token_id": video}
    ids |= {"vision_start_token_id": begin, "vision_end_token_id": close}
    vision = {"depth": 2, "hidden_size": 16, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 16}
    if newer:
        text["head_dim"] = 8
        vision |= {"patch_size": 16, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **ids))
    else:
        vision |= {"patch_size": 14, "fullatt_block_indexes": [1], "window_size": 56}
        model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    patch = vision["patch_size"]
    pixels = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
    sizes = {"size": pixels, "patch_size": patch, "temporal_patch_size": 2, "merge_size": 2}
    save(model, folder, preprocessor_config=image_processor("Qwen2VLImageProcessor", 32, **sizes))
    return folder


def llava(folder, chat: str = JOY_CHAT, told: bool = True):
    """LLaVA with a SigLIP eye, as JoyCaption is. told: the processor knows the patch size."""
    special = ["<pad>", "<|begin_of_text|>", "<|eot_id|>", "<image>"]
    words = tokenizer(special, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>", pad_token="<pad>")
    words.chat_template = chat
    words.save_pretrained(folder)
    ids = {word: words.convert_tokens_to_ids(word) for word in special}
    text = {
        **TEXT,
        "model_type": "llama",
        "vocab_size": len(words),
        "bos_token_id": ids["<|begin_of_text|>"],
        "eos_token_id": ids["<|eot_id|>"],
        "pad_token_id": ids["<pad>"],
    }
    config = LlavaConfig(
        text_config=text,
        vision_config={**VISION, "model_type": "siglip_vision_model", "image_size": 32, "patch_size": 8},
        image_token_index=ids["<image>"],
        vision_feature_select_strategy="full",
        image_seq_length=16,
    )
    files = {"preprocessor_config": image_processor("SiglipImageProcessor", 32)}
    known = {"patch_size": 8, "vision_feature_select_strategy": "full"} if told else {}
    files["processor_config"] = {"processor_class": "LlavaProcessor", "image_token": "<image>", **known}
    save(LlavaForConditionalGeneration(config), folder, **files)
    return folder


def clip(folder):
    special = ["<s>", "</s>"]
    words = tokenizer(special, bos_token="<s>", eos_token="</s>", pad_token="</s>", model_max_length=32)
    words.save_pretrained(folder)
    ids = {"bos_token_id": 256, "eos_token_id": 257, "pad_token_id": 257}
    text = {**VISION, "vocab_size": len(words), "max_position_embeddings": 32, **ids, "projection_dim": 8}
    vision = {**VISION, "image_size": 32, "patch_size": 8, "projection_dim": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}, "size": {"shortest_edge": 32}}
    save(model, folder, preprocessor_config=image_processor("CLIPImageProcessor", 32, **crop))
    return folder


def wd(folder, size: int = 24, batch: int | str = "batch"):
    """A tagger whose probabilities are simple: the means of the three channels in the middle, over 255, and more.

    Tags: three ratings, then general ones (the first three: mean of channel 0, 1, 2 of the input), then a character.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rows = [("general", 9), ("sensitive", 9), ("explicit", 9), ("long_hair", 0), ("^_^", 0), ("red_dress", 0)]
    rows.append(("hatsune_miku_(cosplay)", 4))
    header = "tag_id,name,category,count\n"
    lines = [f'{i},"{name}",{category},1\n' for i, (name, category) in enumerate(rows)]
    (folder / "selected_tags.csv").write_text(header + "".join(lines))
    mixed = np.zeros((3, len(rows)), np.float32)
    mixed[0, [0, 3]] = mixed[1, [1, 4]] = mixed[2, [2, 5]] = 1 / 255
    mixed[:, 6] = 1 / 3 / 255
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "mixed"], ["output"]),
    ]
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, size, size, 3])]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, len(rows)])]
    graph = helper.make_graph(nodes, "tagger", inputs, outputs, [numpy_helper.from_array(mixed, "mixed")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder
