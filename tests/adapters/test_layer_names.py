"""Keys of every layout lead to the same layer of a live model."""

import pytest
from torch import nn

from studio.adapters.names import Place, find_layer, index_layers, kohya_name, parse_key
from studio.errors import AdapterError

Q = "mid_block.attentions.0.attn1.to_q"


@pytest.mark.parametrize(
    "key, expected",
    [
        (f"unet.{Q}.lora_A.weight", ("unet", Q, "A")),
        (f"unet.{Q}.lora_B.default.weight", ("unet", Q, "B")),
        (f"unet.{Q}.lora_A", ("unet", Q, "A")),
        (f"base_model.model.{Q}.lora_B.weight", ("", Q, "B")),
        (f"unet.base_model.model.{Q}.lora_B.weight", ("unet", Q, "B")),
        (f"unet.{Q}.lora.down.weight", ("unet", Q, "A")),
        ("unet.mid.attn1.processor.to_q_lora.down.weight", ("unet", "mid.attn1.to_q", "A")),
        ("mid.attn1.processor.to_out_lora.up.weight", ("", "mid.attn1.to_out.0", "B")),
        ("text_encoder.t.self_attn.to_q_lora.up.weight", ("text_encoder", "t.self_attn.q_proj", "B")),
        ("text_encoder.t.mlp.fc1.lora_linear_layer.up.weight", ("text_encoder", "t.mlp.fc1", "B")),
        ("lora_unet_mid_to_q.lora_down.weight", ("unet", "mid_to_q", "A")),
        ("lora_te_x.lora_up.weight", ("text_encoder", "x", "B")),
        ("lora_te1_x.alpha", ("text_encoder", "x", "alpha")),
        ("lora_te2_x.alpha", ("text_encoder_2", "x", "alpha")),
        ("lora_unet_x.dora_scale", ("unet", "x", "dora_scale")),
        ("unet.x.lora_B.bias", ("unet", "x", "bias")),
        ("unet.conv_in.weight", None),
        ("lora_unet_x.hada_w1_a", ("unet", "x", "hada_w1_a")),
    ],
)
def test_each_layout_is_parsed(key, expected):
    assert parse_key(key) == expected


def test_flattened_names_are_looked_up_not_unflattened():
    model = nn.ModuleDict({"up_blocks": nn.ModuleDict({"time_emb_proj": nn.Linear(1, 1)})})
    index = index_layers(model)
    assert find_layer("unet", "up_blocks_time_emb_proj", {"unet": index}) == (Place("unet", "up_blocks.time_emb_proj"),)


def test_a_name_that_fits_two_layers_is_not_guessed():
    model = nn.ModuleDict({"a_b": nn.ModuleDict({"c": nn.Linear(1, 1)}), "a": nn.ModuleDict({"b_c": nn.Linear(1, 1)})})
    with pytest.raises(AdapterError, match="two layers"):
        find_layer("unet", "a_b_c", {"unet": index_layers(model)})
    assert find_layer("unet", "a.b_c", {"unet": index_layers(model)}) == (Place("unet", "a.b_c"),)


@pytest.mark.parametrize("inside", ["encoder", "text_model.encoder"])
@pytest.mark.parametrize("key", ["encoder.q", "text_model.encoder.q", "text_model_encoder_q", "encoder_q"])
def test_clip_is_found_with_or_without_its_text_model_level(inside, key):
    model = nn.Linear(1, 1)
    for name in reversed([*inside.split("."), "q"]):
        model = nn.ModuleDict({name: model})
    assert find_layer("te", key, {"te": index_layers(model)}) == (Place("te", f"{inside}.q"),)


def test_kohya_names_tell_one_text_encoder_from_two():
    path = "encoder.layers.0.self_attn.q_proj"
    assert kohya_name("text_encoder", path) == "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
    assert kohya_name("text_encoder", path, True).startswith("lora_te1_text_model_")
    assert kohya_name("text_encoder_2", path, True).startswith("lora_te2_text_model_")
    with pytest.raises(AdapterError, match="use unet, "):
        kohya_name("banana", path)
