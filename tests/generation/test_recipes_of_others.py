"""Recipes that other programs write, in the forms that their sources write them: read, and what is not is said.

The forms are typed from the programs' public writers (A1111's `infotext_utils`, Fooocus' `meta_parser`, InvokeAI 2's
RFC 266, SwarmUI's "Image Metadata Format") and from readers of NovelAI's, Civitai's and Draw Things' images: no code of
theirs runs here.
"""

import json

import pytest
from PIL import Image

from studio.errors import GenerationError
from studio.generation import read_recipe
from studio.generation.foreign_text import read_parameters
from studio.generation.sampler_names import scheduler_named
from tests.generation.pngs import node, png, said

# A1111's text ---------------------------------------------------------------------------------------------------------


def test_facts_stand_in_the_line_that_begins_with_steps():
    """A1111 12128: extensions write lines below."""
    found = read_parameters(
        "a boat\nNegative prompt: fog\nSteps: 22, Sampler: DPM++ 2M, CFG scale: 7, Seed: 991, Size: 512x768\n"
        "Template: a {boat|ship}\nNegative Template: fog"
    )
    assert found.values == {
        "prompt": "a boat",
        "negative_prompt": "fog",
        "steps": 22,
        "guidance": 7.0,
        "seed": 991,
        "width": 512,
        "height": 768,
        "scheduler": "DPM++ 2M",
    }
    said(found)
    said(read_parameters("a\nSteps: 2, Seed: 1\nsomething else"), "something else")


def test_a_prompt_may_speak_of_negative_prompts_and_steps():
    found = read_parameters(
        'a poster that says "Negative prompt: none", red\nNegative prompt: fog\nmist\nSteps: 2, Seed: 1'
    )
    assert found.values["prompt"] == 'a poster that says "Negative prompt: none", red'
    assert found.values["negative_prompt"] == "fog\nmist" and found.values["steps"] == 2
    assert read_parameters("Steps: of a stair\nSteps: 2, Seed: 1").values["prompt"] == "Steps: of a stair"
    assert read_parameters("only words").values == {"prompt": "only words", "negative_prompt": ""}


def test_forges_flux_has_its_guidance_in_the_distilled_scale():
    text = "a\nSteps: 20, Sampler: Euler, Schedule type: Simple, CFG scale: 1, Distilled CFG Scale: 3.5, Seed: 1"
    found = read_parameters(text + ", Model: flux1-dev, Module 1: ae, Version: f2.0.1v1.10.1")
    assert (
        found.values["guidance"] == 3.5 and found.values["scheduler"] == "Euler" and found.values["base"] == "flux1-dev"
    )
    said(found)
    said(read_parameters(text.replace("CFG scale: 1,", "CFG scale: 2,")), "CFG scale 2 and distilled CFG scale 3.5")


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours", "problem"),
    [
        ("DPM++ 2M", "Karras", "DPM++ 2M Karras", ""),
        ("DPM++ 2M Karras", "", "DPM++ 2M Karras", ""),
        ("DPM++ 2M", "Automatic", "DPM++ 2M Karras", ""),
        ("DPM++ 2M", "", "DPM++ 2M", ""),
        ("DPM++ 2M", "Beta", "DPM++ 2M", "'beta'"),
        ("DPM++ 2M SDE", "Automatic", "DPM++ 2M SDE", "'exponential'"),
        ("Euler a", "Automatic", "Euler a", ""),
        ("Euler a", "Uniform", "Euler a", ""),
        ("Restart", "Karras", "", "'Restart'"),
        ("dpmpp_2m_sde_gpu", "karras", "DPM++ 2M SDE Karras", ""),
        ("euler_ancestral", "normal", "Euler a", ""),
        ("dpmpp_2m", "sgm_uniform", "DPM++ 2M", "'sgm_uniform'"),
        ("uni_pc", "simple", "UniPC", ""),
        ("dpmpp_2m_k", "", "DPM++ 2M Karras", ""),
        ("euler_a", "", "Euler a", ""),
        ("kdpm_2_a", "", "DPM2 a", ""),
        ("k_dpmpp_2m", "karras", "DPM++ 2M Karras", ""),
        ("k_euler_ancestral", "native", "Euler a", ""),
        ("lms_k", "", "LMS", "'karras'"),
        ("res_multistep", "beta57", "", "'res_multistep'"),
        ("LCM", "", "LCM", ""),
    ],
)
def test_samplers_and_schedules_are_read_or_said(sampler, schedule, ours, problem):
    found, complaint = scheduler_named(sampler, schedule)
    assert found == ours and (problem in complaint if problem else not complaint)


def test_what_changes_an_image_and_is_not_taken_over_is_listed():
    found = read_parameters(
        "a\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Model hash: ab, VAE: x.pt, ENSD: 31337, "
        'Denoising strength: 0.4, Hires upscale: 2, RNG: CPU, Lora hashes: "ink: 12", Version: v1.10'
    )
    said(found, "VAE x.pt, ENSD 31337, Hires upscale 2, RNG CPU")
    said(read_parameters("a\nSteps: 20, Denoising strength: 0.4"), "another image")
    assert (
        read_parameters("a\nSteps: 20, Sampler: UniPC, App: SD.Next, Operations: txt2img").values["scheduler"]
        == "UniPC"
    )


def test_the_text_that_0_1_wrote_has_the_text_encoder_second():
    (adapter,) = read_parameters("a <lora:ink:0.8:0.2>\nSteps: 1, Version: LoRA Studio 0.1.0").adapters
    assert (adapter["strength"], adapter["text_strength"]) == (0.8, 0.2)
    (adapter,) = read_parameters("a <lora:ink:0.8:0.2>\nSteps: 1, Version: v1.10").adapters
    assert (adapter["strength"], adapter["text_strength"]) == (0.2, 0.8)


@pytest.mark.parametrize("order", ["utf-16-be", "utf-16-le"])
@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_jpeg_and_webp_carry_it_in_exif(tmp_path, kind, order):
    text = "a bøat\nNegative prompt: fog\nSteps: 7, Sampler: Euler a, Seed: 5"
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + text.encode(order)
    Image.new("RGB", (8, 8)).save(tmp_path / f"a.{kind}", exif=exif)
    found = read_recipe(tmp_path / f"a.{kind}")
    assert found.values == {"prompt": "a bøat", "negative_prompt": "fog", "steps": 7, "seed": 5, "scheduler": "Euler a"}


# JSON -----------------------------------------------------------------------------------------------------------------

SWARM = {
    "sui_image_params": {
        "prompt": "a cat",
        "negativeprompt": "fog",
        "model": "OfficialStableDiffusion/sd_xl_base_1.0",
        "seed": 1,
        "steps": 20,
        "cfgscale": 6.5,
        "width": 1024,
        "height": 768,
        "sampler": "dpmpp_2m",
        "scheduler": "karras",
        "loras": ["style/ink"],
        "loraweights": ["0.8"],
        "aspectratio": "4:3",
        "swarm_version": "0.9.6.0",
        "refinerupscale": 1.5,
    },
    "sui_extra_data": {"date": "2025-01-25"},
}


def check_swarm(found):
    assert found.values == {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "base": "sd_xl_base_1.0",
        "seed": 1,
        "steps": 20,
        "guidance": 6.5,
        "width": 1024,
        "height": 768,
        "scheduler": "DPM++ 2M Karras",
    }
    assert found.adapters == [{"file": "ink", "strength": 0.8, "text_strength": None}]
    said(found, "refinerupscale 1.5")


def test_swarmui(tmp_path):
    check_swarm(read_recipe(png(tmp_path / "a.png", parameters=SWARM)))
    for tag in (0x9286, 0x0110):  # UserComment, and Model in older versions
        exif = Image.Exif()
        if tag == 0x0110:
            exif[tag] = json.dumps(SWARM)
        else:
            exif.get_ifd(0x8769)[tag] = b"UNICODE\0" + json.dumps(SWARM).encode("utf-16-le")
        Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
        check_swarm(read_recipe(tmp_path / "a.jpg"))


def test_invokeai(tmp_path):
    data = {
        "generation_mode": "sdxl_txt2img",
        "positive_prompt": "a cat",
        "negative_prompt": "fog",
        "width": 1024,
        "height": 1024,
        "seed": 7,
        "rand_device": "cpu",
        "cfg_scale": 5.5,
        "cfg_rescale_multiplier": 0,
        "steps": 30,
        "scheduler": "dpmpp_2m_k",
        "model": {"name": "juggernaut", "base": "sdxl"},
        "loras": [{"model": {"name": "ink"}, "weight": 0.6}],
        "app_version": "5.6.0",
        "seamless_x": True,
    }
    found = read_recipe(png(tmp_path / "a.png", invokeai_metadata=data, invokeai_graph="{}"))
    assert found.values == {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "width": 1024,
        "height": 1024,
        "seed": 7,
        "guidance": 5.5,
        "steps": 30,
        "base": "juggernaut",
        "scheduler": "DPM++ 2M Karras",
    }
    assert found.adapters == [{"file": "ink", "strength": 0.6, "text_strength": None}]
    said(found, "seamless_x True")
    old = read_recipe(png(tmp_path / "b.png", Dream='"a cat [fog]" -s 50 -S 42 -W 512 -H 640 -C 7.5 -A k_euler_a'))
    assert old.values == {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "steps": 50,
        "seed": 42,
        "width": 512,
        "height": 640,
        "guidance": 7.5,
        "scheduler": "Euler a",
    }


def test_fooocus(tmp_path):
    data = {
        "adm_guidance": "(1.5, 0.8, 0.3)",
        "base_model": "juggernautXL_v8",
        "base_model_hash": "ab",
        "created_by": "",
        "full_negative_prompt": ["fog"],
        "full_prompt": ["cinematic still a cat"],
        "guidance_scale": 4,
        "loras": [["ink", 0.1, "ab"]],
        "metadata_scheme": "fooocus",
        "negative_prompt": "fog",
        "performance": "Speed",
        "prompt": "a cat",
        "refiner_model": "None",
        "resolution": "(512, 768)",
        "sampler": "dpmpp_2m_sde_gpu",
        "scheduler": "karras",
        "seed": "1234",
        "sharpness": 2,
        "steps": 60,
        "styles": "['Fooocus V2']",
        "version": "Fooocus v2.5.5",
    }
    found = read_recipe(png(tmp_path / "a.png", parameters=data, fooocus_scheme="fooocus"))
    assert found.values == {
        "prompt": "a cat",
        "negative_prompt": "fog",
        "guidance": 4.0,
        "seed": 1234,
        "steps": 60,
        "width": 512,
        "height": 768,
        "base": "juggernautXL_v8",
        "scheduler": "DPM++ 2M SDE Karras",
    }
    assert found.adapters == [{"file": "ink", "strength": 0.1, "text_strength": None}]
    said(found, "styles", "sharpness 2")
    exif = Image.Exif()  # its JPEGs hold both in the first directory
    exif[0x9286], exif[0x927C] = json.dumps(data), "fooocus"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.jpg", exif=exif)
    assert read_recipe(tmp_path / "a.jpg").values == found.values


def test_novelai(tmp_path):
    data = {
        "prompt": "{cat}, ink",
        "uc": "fog",
        "steps": 28,
        "height": 1216,
        "width": 832,
        "scale": 5.0,
        "seed": 99,
        "sampler": "k_euler_ancestral",
        "noise_schedule": "karras",
        "sm": True,
        "request_type": "PromptGenerateRequest",
    }
    found = read_recipe(
        png(tmp_path / "a.png", Software="NovelAI", Source="Stable Diffusion XL C1E1DE52", Comment=data)
    )
    assert found.values == {
        "prompt": "{cat}, ink",
        "negative_prompt": "fog",
        "steps": 28,
        "height": 1216,
        "width": 832,
        "guidance": 5.0,
        "seed": 99,
        "base": "Stable Diffusion XL C1E1DE52",
        "scheduler": "Euler a",
    }
    said(found, "NovelAI's emphasis", "'karras' of Euler a", "sm True")


def test_fooocus_lists_each_adapter_twice_and_it_acts_once(tmp_path):
    """Its `FooocusMetadataParser.to_string` writes `loras` beside the `lora_combined_N` that they come from."""
    data = {
        "prompt": "a cat",
        "base_model": "x",
        "loras": [["ink", 0.1, "ab"], ["wash", -0.5, "cd"]],
        "lora_combined_1": "ink : 0.1",
        "lora_combined_2": "wash : -0.5",
        "refiner_model": "None",
        "refiner_switch": 0.5,
        "vae": "Default (model)",
    }
    found = read_recipe(png(tmp_path / "a.png", parameters=data, fooocus_scheme="fooocus"))
    assert [(one["file"], one["strength"]) for one in found.adapters] == [("ink", 0.1), ("wash", -0.5)]
    said(found)
    del data["loras"]
    data["lora_combined_3"] = "False : off : 1.0"
    data["lora_combined_4"] = "True : on.safetensors : 0.7"
    found = read_recipe(png(tmp_path / "a.png", parameters=data, fooocus_scheme="fooocus"))
    assert [(one["file"], one["strength"]) for one in found.adapters] == [("ink", 0.1), ("wash", -0.5), ("on", 0.7)]


def test_fooocus_text_names_its_adapters_beside_the_prompt():
    found = read_parameters(
        "a cat, sharp\nNegative prompt: fog\nSteps: 30, Sampler: DPM++ 2M SDE Karras, Seed: 5, Size: 512x768, "
        "CFG scale: 4, Sharpness: 2, Model: juggernaut, Scheduler: karras, Raw prompt: a cat, "
        'Raw negative prompt: fog, Lora hashes: "ink: ab, wash: cd", Lora weights: "ink: 0.5, wash: -1", '
        "Version: Fooocus v2.5.5"
    )
    assert [(one["file"], one["strength"]) for one in found.adapters] == [("ink", 0.5), ("wash", -1.0)]
    assert found.values["scheduler"] == "DPM++ 2M SDE Karras"
    said(found, "Sharpness 2")


def test_civitais_models_and_a1111s_embeddings_are_read_or_said():
    found = read_parameters(
        "a cat\nSteps: 22, Sampler: DPM++ 2M Karras, CFG scale: 3.8, Seed: 8, Size: 832x1216, Clip skip: 2, "
        'Created Date: 2024-09-23T06:17:42Z, Civitai resources: [{"type":"checkpoint","modelVersionId":1,"modelName":'
        '"SD XL","modelVersionName":"v1.0"},{"type":"lora","weight":0.85,"modelVersionId":2,"modelName":"Double, '
        'Exposure"},{"type":"lycoris","modelName":"style"},{"type":"embed","weight":1,"modelVersionId":3,"modelName":'
        '"negativeXL"}], Civitai metadata: {}'
    )
    assert found.values["base"] == "SD XL" and found.values["seed"] == 8
    assert [(one["file"], one["strength"]) for one in found.adapters] == [("Double, Exposure", 0.85), ("style", 1.0)]
    said(found, "Civitai's embed negativeXL")
    said(read_parameters('a\nSteps: 1, TI hashes: "easynegative: c74b, bad-hands: aa"'), "'easynegative', 'bad-hands'")
    read_parameters("a\nSteps: 1, Civitai resources: [{" + "[" * 50_000)  # damaged: no error


def test_novelais_characters_are_said(tmp_path):
    caption = {"base_caption": "two cats", "char_captions": [{"char_caption": "a red cat", "centers": []}]}
    data = {"prompt": "two cats", "uc": "", "steps": 28, "v4_prompt": {"caption": caption, "use_coords": False}}
    found = read_recipe(png(tmp_path / "a.png", Software="NovelAI", Comment=data))
    said(found, "The prompt of 1 character is not taken over: 'a red cat'")


def test_invokeais_canvas_and_style_prompt_are_said(tmp_path):
    data = {
        "positive_prompt": "a cat",
        "positive_style_prompt": "ink",
        "seed": 1,
        "canvas_v2_metadata": {"controlLayers": [{"id": "x"}], "regionalGuidance": [], "referenceImages": [{}]},
    }
    found = read_recipe(png(tmp_path / "a.png", invokeai_metadata=data))
    said(found, "style prompt 'ink'", "canvas is not taken over: controlLayers, referenceImages")
    data = {"positive_prompt": "a cat", "positive_style_prompt": "a cat", "canvas_v2_metadata": {"controlLayers": []}}
    said(read_recipe(png(tmp_path / "a.png", invokeai_metadata=data)))


# Hostile --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "texts",
    [
        {"prompt": "{"},
        {"prompt": "[]", "workflow": "[]"},
        {"prompt": "[" * 100_000},
        {"invokeai_metadata": "[]"},
        {"prompt": {"1": node("KSampler", model=["1", 0], positive=["1", 0], latent_image=["1", 0])} | {"2": 3}},
        {
            "prompt": {
                str(n): node("KSampler", model=[str(n + 1), 0], positive=[str(n + 1), 0], latent_image=[0, 0])
                for n in range(3000)
            }
        },
        {"prompt": {"1": node("X", a=["1", 0])}},
        {"workflow": {"nodes": [3], "links": [[]]}},
        {"workflow": {"nodes": 5}},
        {"parameters": {"sui_image_params": 3}},
        {"parameters": {"sui_image_params": {"loras": 5}}},
        {"parameters": "{}"},
        {"parameters": {"prompt": [], "base_model": {}, "loras": [[]]}},
        {"Comment": "3", "Software": "NovelAI"},
        {"Comment": {"prompt": "x", "v4_prompt": {"caption": [3]}}, "Software": "NovelAI"},
        {"sd-metadata": "[]"},
        {"sd-metadata": {"image": {"prompt": [3]}}},
        {"sd-metadata": {"images": []}},
        {"parameters": {"c": 3, "uc": [], "lora": [3]}},
        {"parameters": "a\nSteps: 1, Lora weights: ink"},
        {"invokeai_metadata": {"loras": [3], "model": 5}},
        {"parameters": {"prompt": "x", "base_model": 1, "lora_combined_1": "x"}},
    ],
)
def test_a_damaged_recipe_of_another_program_is_one_line(tmp_path, texts):
    try:
        found = read_recipe(png(tmp_path / "a.png", **texts))
    except GenerationError as error:
        assert "\n" not in str(error) and len(str(error)) < 200
    else:
        assert all(len(line) < 2000 for line in found.problems)


def test_numbers_out_of_range_are_said_one_by_one(tmp_path):
    data = {
        "sui_image_params": {
            "prompt": "x" * 9000,
            "steps": 1e9,
            "seed": "NaN",
            "cfgscale": None,
            "width": True,
            "loras": ["a"],
            "loraweights": ["99"],
        }
    }
    found = read_recipe(png(tmp_path / "a.png", parameters=data))
    assert found.values == {"prompt": "x" * 4000, "negative_prompt": ""} and not found.adapters
    said(found, "cut to 4000", "steps: ", "seed: ", "width: ", "'a' was left out")
