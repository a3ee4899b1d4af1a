"""What comes with the package for single files: settings at true size, and CLIP's tokenizer. No weights are made."""

import json
import re

import diffusers
import pytest
import torch
import transformers
from PIL import ImageChops

from studio.adapters.original_names import original_names
from studio.basemodels import load_base
from studio.basemodels import single_file as files
from studio.basemodels.clip_vocabulary import clip_tokenizer
from studio.basemodels.tokens import token_counter
from studio.errors import BaseModelError
from studio.generation import draw
from tests import tiers
from tests.basemodels import tiny
from tests.basemodels.original import write_sd1, write_sd3
from tests.basemodels.test_training import RECIPE

# What the models' cards and papers count, in parameters.
COUNTS = {
    "sd1": {"unet": 859_520_964, "vae": 83_653_863, "text_encoder": 123_060_480},
    "sd2": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sd2-base": {"unet": 865_910_724, "vae": 83_653_863, "text_encoder": 340_387_840},
    "sdxl": {"unet": 2_567_463_684, "vae": 83_653_863, "text_encoder": 123_060_480, "text_encoder_2": 694_659_840},
    "sd3": {"transformer": 2_028_328_000, "vae": 83_819_683, "text_encoder_3": 4_762_310_656},
    "sd3.5-medium": {"transformer": 2_243_171_520, "text_encoder_2": 694_659_840},
    "sd3.5-large": {"transformer": 8_056_627_520},
    "flux-dev": {"transformer": 11_901_408_320, "text_encoder_2": 4_762_310_656},
    "flux-schnell": {"transformer": 11_891_178_560},
}


def on_paper(kind, part):
    """The component without memory for its weights."""
    config = json.loads((files.CONFIGS / kind / part / "config.json").read_text())
    with torch.device("meta"):
        if "_class_name" in config:
            return getattr(diffusers, config["_class_name"]).from_config(config)
        made = getattr(transformers, config["architectures"][0])
        return made(made.config_class(**config))


@pytest.mark.parametrize("kind", tiers.default(COUNTS, "sd1"))
def test_the_settings_make_the_true_models(kind):
    for part, count in COUNTS[kind].items():
        assert sum(p.numel() for p in on_paper(kind, part).parameters()) == count, part
    index = json.loads((files.CONFIGS / kind / "model_index.json").read_text())
    assert index["_class_name"] == files.KINDS[kind].pipeline
    parts = {name for name, said in index.items() if isinstance(said, list) and said[0] and "tokenizer" not in name}
    assert parts == {folder.name for folder in (files.CONFIGS / kind).iterdir() if folder.is_dir()}


@pytest.mark.parametrize("kind", tiers.default(["sd1", "sd2", "sdxl"], "sdxl"))
def test_a_checkpoint_of_true_size_is_converted_into_the_model_of_these_settings(kind):
    """By diffusers' own converter, from names in the first authors' layout."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint

    unet = on_paper(kind, "unet")
    state = unet.state_dict()
    names = {
        path: name for name, path, rows in original_names({k.rpartition(".")[0]: 1 for k in state}) if rows is None
    }
    old = {
        f"model.diffusion_model.{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value
        for key, value in state.items()
    }
    assert (
        files.kind_of({key: tuple(value.shape) for key, value in old.items()}, "x").pipeline
        == files.KINDS[kind].pipeline
    )
    found = convert_ldm_unet_checkpoint(dict(old), dict(unet.config))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in state.items()}


@pytest.mark.parametrize("kind", tiers.default(["flux-dev", "flux-schnell"]))
def test_a_flux_file_of_true_size_is_converted_into_the_model_of_these_settings(kind):
    from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers

    state = on_paper(kind, "transformer").state_dict()
    held = {}
    for name, path, _ in original_names({k.removesuffix(".weight"): len(v) for k, v in state.items()}):
        held.setdefault(name, []).append(path)
    old = {
        f"{name}.{part}": torch.cat([state[f"{path}.{part}"] for path in paths])
        for name, paths in held.items()
        for part in ("weight", "bias")
        if f"{paths[0]}.{part}" in state
    }
    for key, value in state.items():
        found = re.fullmatch(r"(single_)?transformer_blocks\.(\d+)\.attn\.norm_(added_)?([qk])\.weight", key)
        if found:
            side = "txt_attn.norm" if found[3] else "img_attn.norm"
            block = f"single_blocks.{found[2]}.norm" if found[1] else f"double_blocks.{found[2]}.{side}"
            old[f"{block}.{'query' if found[4] == 'q' else 'key'}_norm.scale"] = value
    for part in ("weight", "bias"):
        old[f"final_layer.adaLN_modulation.1.{part}"] = state[f"norm_out.linear.{part}"]
    assert files.kind_of({key: tuple(value.shape) for key, value in old.items()}, "x") is files.KINDS[kind]
    found = convert_flux_transformer_checkpoint_to_diffusers(dict(old))
    assert {key: value.shape for key, value in found.items()} == {key: value.shape for key, value in state.items()}


def test_clips_tokens_are_those_that_everyone_knows():
    tokenizer = clip_tokenizer()
    assert len(tokenizer) == 49408 and tokenizer.model_max_length == 77
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    astronaut = [49406, 320, 8853, 539, 550, 18376, 6765, 320, 4558, 49407]
    assert tokenizer("A photograph of an  astronaut riding a horse").input_ids == astronaut
    assert tokenizer("cat", padding="max_length").input_ids == [49406, 2368] + [49407] * 75
    assert clip_tokenizer("!")("cat", padding="max_length").input_ids == [49406, 2368, 49407] + [0] * 74
    said = "héllo 🎨 猫, it's 123"
    assert re.sub(r"\s", "", tokenizer.decode(tokenizer(said).input_ids[1:-1])) == re.sub(r"\s", "", said)


@pytest.fixture
def nothing_else(tmp_path, monkeypatch):
    """No cache, nobody to ask, and the package's settings, made tiny: put(name, pipeline)."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "CONFIGS", tmp_path / "configs")

    def put(name, pipeline):
        pipeline.save_pretrained(tmp_path / "configs" / name)
        for file in (tmp_path / "configs" / name).rglob("*"):
            if file.is_file() and (file.suffix == ".safetensors" or "tokenizer" in file.parent.name):
                file.unlink()
        for folder in (tmp_path / "configs" / name).glob("tokenizer*"):
            folder.rmdir()
        return tmp_path / "only" / "my model.safetensors"

    (tmp_path / "only").mkdir()
    return put


def with_clips_words(monkeypatch):
    """tiny's models, with CLIP's vocabulary."""
    monkeypatch.setattr(tiny, "WORDS", 49408)
    monkeypatch.setattr(tiny, "END", 49407)
    monkeypatch.setattr(tiny, "clip_tokenizer", clip_tokenizer)


def test_a_file_and_nothing_else_draws(nothing_else, monkeypatch, tmp_path):
    with_clips_words(monkeypatch)
    whole = tiny.save("sd1", tmp_path)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(whole, safety_checker=None)
    file = nothing_else("sd1", pipeline)
    write_sd1(pipeline, file)
    found = draw(load_base(str(file), shared=False), RECIPE)
    assert ImageChops.difference(found, draw(load_base(str(whole), shared=False), RECIPE)).getbbox() is None
    assert token_counter(str(file))("a photo of a cat") == (5, "")


@pytest.mark.full
def test_a_file_that_was_trained_to_say_v_is_recognised_by_its_mark(nothing_else, monkeypatch, tmp_path):
    with_clips_words(monkeypatch)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(tiny.save("sd1", tmp_path), safety_checker=None)
    file = nothing_else("sd1", pipeline)
    write_sd1(pipeline, file, {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)})
    base = load_base(str(file), shared=False)
    assert base.prediction_type == "v_prediction" and base.alphas[-1] < 1e-6
    assert load_base(f"{file}?prediction_type=epsilon", shared=False).prediction_type == "epsilon"


def test_what_a_file_lacks_and_is_not_here_is_said_in_one_sentence(nothing_else):
    pipeline = tiny.sd3()
    file = nothing_else("sd3.5-medium", pipeline)
    write_sd3(pipeline, file)
    with pytest.raises(BaseModelError, match="text encoders, tokenizers and the VAE of stabilityai/.*-medium") as said:
        load_base(str(file), shared=False)
    assert "into a folder my model beside it" in str(said.value) and "\n" not in str(said.value)
