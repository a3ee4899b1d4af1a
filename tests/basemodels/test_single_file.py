"""A checkpoint in the first authors' layout: told by its tensors, loaded without the network, drawn like its folder."""

import shutil

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from PIL import ImageChops
from safetensors.torch import load_file, save_file

from studio.basemodels import family_class, load_base, single_file
from studio.basemodels.card import describe_base
from studio.basemodels.defaults import variant_of
from studio.basemodels.single_file import kind_of
from studio.errors import BaseModelError
from studio.generation import draw
from tests import tiers
from tests.basemodels.original import write_flux, write_sd1, write_sd3, write_sdxl
from tests.basemodels.test_drawing import without
from tests.basemodels.test_training import RECIPE

WRITERS = {"sd1": write_sd1, "sd2-v": write_sd1, "sdxl": write_sdxl}


@pytest.fixture
def checkpoint(folders, tmp_path):
    """checkpoint(name): the file, its tiny configs beside it."""

    def made(name):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folders(name), **without(folders(name)))
        WRITERS[name](pipeline, tmp_path / "old.safetensors")
        shutil.copytree(folders(name), tmp_path / "old", ignore=shutil.ignore_patterns("*.safetensors"))
        return tmp_path / "old.safetensors"

    return made


@pytest.mark.parametrize("name", tiers.default(WRITERS, "sd2-v", "sdxl"))
def test_a_single_file_draws_what_its_folder_draws(bases, checkpoint, name):
    file = checkpoint(name)
    base = load_base(str(file), shared=False)
    assert ImageChops.difference(draw(base, RECIPE), draw(bases(name), RECIPE)).getbbox() is None
    assert base.identity("vae") != bases(name).identity("vae")
    assert base.prediction_type == bases(name).prediction_type


def test_marks_of_v_prediction_and_zero_snr_are_heeded(checkpoint):
    """NoobAI v-prediction's files carry them."""
    file = checkpoint("sdxl")
    save_file({**load_file(file), "v_pred": torch.zeros(1), "ztsnr": torch.zeros(1)}, file)
    noob = file.rename(file.with_name("noobaiXL.safetensors"))
    (file.parent / "old").rename(file.parent / "noobaiXL")
    base = load_base(str(noob), shared=False)
    assert base.prediction_type == "v_prediction" and base.alphas[-1] == 0
    assert base.scheduler().config.timestep_spacing == "trailing"
    card, variant = describe_base(str(noob)), variant_of(str(noob))
    assert (card.prediction_type, card.zero_terminal_snr) == ("v_prediction", True)
    assert variant.title == "NoobAI v-prediction" and variant.settings["preview.guidance_rescale"] == 0.7


@pytest.mark.full
def test_a_family_that_is_not_recognised_can_be_said(bases, checkpoint, monkeypatch):
    file = checkpoint("sd1")

    def unrecognised(*_):
        raise BaseModelError("x")

    monkeypatch.setattr(single_file, "kind_of", unrecognised)
    with pytest.raises(BaseModelError, match="^x$"):
        load_base(str(file), shared=False)
    assert load_base(f"{file}?family=sd2", shared=False).title == bases("sd1").title
    assert family_class(file, "sdxl").title == "SDXL"


@pytest.mark.parametrize(
    "name, write", [("sd3", write_sd3), ("flux-dev", write_flux), tiers.in_full("flux-schnell", write_flux)]
)
def test_a_denoiser_alone_draws_with_the_rest_from_beside_it(bases, folders, tmp_path, monkeypatch, name, write):
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folders(name))
    write(pipeline, tmp_path / "alone.safetensors")
    narrow(monkeypatch, convert_flux_transformer_checkpoint_to_diffusers, {3072: 32})
    shutil.copytree(folders(name), tmp_path / "alone")
    shutil.rmtree(tmp_path / "alone" / "transformer")
    (tmp_path / "alone" / "transformer").mkdir()
    shutil.copy(folders(name) / "transformer" / "config.json", tmp_path / "alone" / "transformer")
    base = load_base(str(tmp_path / "alone.safetensors"), shared=False)
    apart = ImageChops.difference(draw(base, RECIPE), draw(bases(name), RECIPE))
    assert max(high for _, high in apart.getextrema()) <= 1  # layers that lay in one are added up in another order
    shutil.rmtree(tmp_path / "alone" / "text_encoder_2")
    shutil.rmtree(tmp_path / "alone" / "text_encoder")
    with pytest.raises(BaseModelError, match="text encoders.*and the VAE"):
        load_base(str(tmp_path / "alone.safetensors"), shared=False)


def narrow(monkeypatch, function, numbers):
    """diffusers' converter of FLUX has the true width written into it; here it gets the tiny model's."""
    code = function.__code__
    consts = tuple(numbers.get(one, one) if type(one) is int else one for one in code.co_consts)
    monkeypatch.setattr(function, "__code__", code.replace(co_consts=consts))


UNET = "model.diffusion_model."
FIRST = {f"{UNET}input_blocks.0.0.weight": (320, 4, 3, 3)}


def reads(width):
    return FIRST | {f"{UNET}input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight": (640, width)}


@pytest.mark.parametrize(
    "shapes, title",
    [
        (reads(768), "Stable Diffusion 1"),
        (reads(1024), "Stable Diffusion 2"),
        (reads(2048), "SDXL"),
        ({f"{UNET}joint_blocks.{n}.x_block.attn.qkv.weight": (1, 1) for n in range(24)}, "Stable Diffusion 3"),
        (
            {f"{UNET}joint_blocks.{n}.x_block.attn2.qkv.weight": (1, 1) for n in range(24)},
            "Stable Diffusion 3.5 medium",
        ),
        ({f"{UNET}joint_blocks.{n}.x_block.attn.qkv.weight": (1, 1) for n in range(38)}, "Stable Diffusion 3.5 large"),
        ({"double_blocks.0.img_attn.qkv.weight": (1, 1), "guidance_in.in_layer.weight": (1, 1)}, "FLUX.1 dev"),
        ({f"{UNET}double_blocks.0.img_attn.qkv.weight": (1, 1)}, "FLUX.1 schnell"),
    ],
)
def test_the_family_is_told_by_the_tensors(shapes, title):
    assert kind_of(shapes, "x").title == title


@pytest.mark.parametrize(
    "shapes, words",
    [
        (reads(1280), "refiner"),
        ({f"{UNET}input_blocks.0.0.weight": (320, 9, 3, 3)}, "fills holes"),
        ({"lora_unet_x.lora_up.weight": (4, 4)}, "adapter"),
        ({"a": (1,)}, "none of its layers has a known name"),
    ],
)
def test_what_is_no_base_is_refused_with_the_reason(shapes, words):
    with pytest.raises(BaseModelError, match=words):
        kind_of(shapes, "x.safetensors")


def test_a_damaged_file_is_said_in_one_line(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    with pytest.raises(BaseModelError, match="download it again"):
        family_class(tmp_path / "torn.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(BaseModelError, match="known name"):
        family_class(tmp_path / "other.safetensors")
