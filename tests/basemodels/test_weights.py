"""A base is known by its weights: by their content, wherever they lie and whatever they are called."""

import json
import shutil

import pytest

from studio.basemodels import base_folder, load_base, weights
from studio.generation import Recipe, read_recipe
from studio.generation.image_metadata import save_image
from studio.services.generation import adapter_summary, restored
from studio.workspace import Workspace


@pytest.fixture
def copied(tmp_path):
    return shutil.copytree(base_folder("starter"), tmp_path / "copied")


def change_a_byte(file):
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def test_the_hash_follows_the_content_of_what_draws(copied):
    here = weights.weights_hash(base_folder("starter"))
    assert weights.weights_hash(copied) == here
    change_a_byte(copied / "image_encoder" / "model.safetensors")
    assert weights.weights_hash(copied) == here  # it names, it does not draw
    change_a_byte(copied / "unet" / "diffusion_pytorch_model.safetensors")
    assert weights.weights_hash(copied) != here


def test_large_files_are_sampled_from_end_to_end(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "LARGE", 1000)
    monkeypatch.setattr(weights, "_PIECES", 3)
    monkeypatch.setattr(weights, "_PIECE", 100)
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(bytes(5000))
    two.write_bytes(bytes(5000))
    assert weights.file_hash(one) == weights.file_hash(two)
    change_a_byte(two)
    assert weights.file_hash(one) != weights.file_hash(two)
    assert weights.file_hash(tmp_path / "none") == ""


def test_cache_keys_are_the_content_not_the_place(copied):
    here, there = load_base("starter"), load_base(str(copied), shared=False)
    assert here.identity("vae") == there.identity("vae")
    assert here.identity("vae") != here.identity(*here.text_parts)


def test_a_sentence_says_what_was_made_on_other_weights(copied):
    here = base_folder("starter")
    assert weights.made_elsewhere("It", "starter", weights.weights_hash(here), here) == ""
    assert weights.made_elsewhere("It", "anime", "", here) == ""  # not known, so nothing is claimed
    change_a_byte(copied / "unet" / "diffusion_pytorch_model.safetensors")
    said = weights.made_elsewhere("It", "starter", "", copied)  # a file of release 0.1
    assert said.startswith("It was made on Starter 1") and "release 0.1" in said
    assert "other weights of anime (abc; here " in weights.made_elsewhere("It", "anime", "abc", here)


def test_a_recipe_holds_the_hash_and_one_of_other_weights_says_so(tmp_path):
    from PIL import Image

    workspace = Workspace.open(tmp_path)
    path = save_image(Image.new("RGB", (64, 64)), Recipe(prompt="key"), tmp_path)
    assert read_recipe(path).base_hash == weights.weights_hash(base_folder("starter"))
    assert restored(workspace, path)[2] == []
    with Image.open(path) as image:
        values = json.loads(image.info["lora-studio"]) | {"base_hash": "0" * 64}
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_itxt("lora-studio", json.dumps(values))
    other = tmp_path / "other.png"
    Image.new("RGB", (64, 64)).save(other, pnginfo=info)
    assert "other weights of starter (0000000000" in restored(workspace, other)[2][0]


def test_an_adapter_of_other_weights_says_so_in_its_line(tmp_path):
    import torch
    from safetensors.torch import save_file

    workspace = Workspace.open(tmp_path)
    name = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    tensors = {f"{name}.lora_down.weight": torch.zeros(2, 256), f"{name}.lora_up.weight": torch.zeros(256, 2)}
    for key, said in (("new", weights.weights_hash(base_folder("starter"))), ("old", "1" * 64)):
        metadata = {"studio.base": "starter", "studio.base_hash": said}
        save_file(tensors, workspace.adapters / f"{key}.safetensors", metadata)
    assert "other weights" not in adapter_summary(workspace, "file:new.safetensors")[0]
    assert "other weights of starter (1111111111" in adapter_summary(workspace, "file:old.safetensors")[0]
