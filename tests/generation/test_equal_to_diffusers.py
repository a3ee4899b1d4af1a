"""Images with adapters are those of diffusers and peft; after any number of moves the base is what it was."""

import subprocess
import sys

import diffusers
import numpy as np
import peft
import pytest
import torch
from PIL import Image

from studio.adapters.layer_adapters import LayerAdapters
from studio.basemodels import base_folder, load_base
from studio.generation import AppliedAdapter, Recipe, generate
from studio.generation.adapter_cache import cache_of
from studio.generation.schedulers import DIFFUSION
from tests import tiers
from tests.generation.plain import apart, disturb, pipeline, same, theirs

QUICK = {"prompt": "red apple, on a blue background", "steps": 4, "seed": 7}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "q_proj", "v_proj", "out_proj"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two adapters that diffusers and peft made of the starter, one with a text encoder's part."""
    found = []
    for number, name in enumerate(("one", "two")):
        pipe = pipeline()
        parts = {"unet": pipe.unet} | ({"text_encoder": pipe.text_encoder} if name == "one" else {})
        layers, settings = {}, {}
        for part, model in parts.items():
            model.add_adapter(peft.LoraConfig(r=4, lora_alpha=6, target_modules=TARGETS))
            disturb((p for key, p in model.named_parameters() if "lora_" in key), number)
            key = f"{part}_lora_layers"
            layers[key] = diffusers.utils.convert_state_dict_to_diffusers(peft.get_peft_model_state_dict(model))
            settings[f"{part}_lora_adapter_metadata"] = model.peft_config["default"].to_dict()
        file = tmp_path_factory.mktemp("adapters") / f"{name}.safetensors"
        pipe.save_lora_weights(file.parent, weight_name=file.name, **layers, **settings)
        found.append(file)
    return found


@pytest.fixture(scope="module")
def with_peft(files):
    """diffusers' pipeline with both files loaded, drawing at {file's stem: strength}."""
    pipe = pipeline()
    for file in files:
        pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name=file.stem)

    def drawn(recipe, strengths):
        pipe.set_adapters(list(strengths), list(strengths.values()))
        kind, changes = DIFFUSION.get(recipe.scheduler, ("DDIMScheduler", {}))
        own = pipe.scheduler
        if recipe.scheduler in DIFFUSION:
            pipe.scheduler = getattr(diffusers, kind).from_config(own.config, **changes)
        try:
            return theirs(pipe, recipe)
        finally:
            pipe.scheduler = own

    return drawn


@pytest.fixture(scope="module")
def bare():
    return theirs(pipeline(), Recipe(**QUICK))


@pytest.mark.parametrize(
    "one, two",
    [
        tiers.in_full(0.3, 0),
        tiers.in_full(1, 0),
        tiers.in_full(0.8, 0.35),
        (-0.6, 1.2),
        tiers.in_full({"unet": 0.9, "text_encoder": 0.2}, 0),
        ({"unet": 0.0, "text_encoder": 1.3}, 0.5),
    ],
)
def test_with_adapters_as_diffusers_and_peft(files, with_peft, bare, one, two):
    apart_ = isinstance(one, dict)
    strength, words = (one["unet"], one["text_encoder"]) if apart_ else (one, None)
    uses = [
        AppliedAdapter(file=files[0], strength=strength, text_strength=words),
        AppliedAdapter(file=files[1], strength=two),
    ]
    ours = generate(Recipe(**QUICK, adapters=uses))
    assert apart(ours, with_peft(Recipe(**QUICK), {"one": one} | ({"two": two} if two else {}))) < 0.1
    assert apart(ours, bare) > 1


@pytest.mark.parametrize(
    "more",
    [
        {"scheduler": "Euler a", "width": 192, "height": 64},
        {"negative_prompt": "green", "guidance": 7},
        tiers.in_full({"scheduler": "DPM++ 2M Karras"}),
        tiers.in_full({"guidance": 1}),
    ],
)
def test_whatever_the_scheduler_the_guidance_and_the_size(files, with_peft, more):
    recipe = Recipe(**QUICK | more, adapters=((files[0], 0.7), (files[1], 0.4)))
    assert apart(generate(recipe), with_peft(recipe, {"one": 0.7, "two": 0.4})) < 0.1


@pytest.mark.parametrize("moves", tiers.default([8, 50]))
def test_after_moves_of_a_slider_strength_0_is_the_plain_pipelines_image(files, bare, moves):
    for place in (number / moves for number in range(moves)):
        use = AppliedAdapter(file=files[0], strength=2 * place - 1, blocks={"unet.up_blocks": place})
        last = generate(Recipe(**QUICK | {"steps": 1}, adapters=(use, (files[1], 1 - 2 * place))))
    assert not same(last, generate(Recipe(**QUICK | {"steps": 1})))
    assert same(generate(Recipe(**QUICK, adapters=((files[0], 0), (files[1], 0)))), bare)
    plain = diffusers.UNet2DConditionModel.from_pretrained(base_folder("starter"), subfolder="unet").state_dict()
    ours = load_base("starter").model.state_dict()
    assert plain.keys() == ours.keys() and all(torch.equal(plain[key], ours[key]) for key in plain)


@pytest.mark.full
def test_a_move_there_and_back_gives_the_same_pixels(files):
    """What is kept for the next image must not show in it: neither what was merged nor the words that were read."""
    uses = [
        (AppliedAdapter(file=files[0], strength=a, text_strength=t), AppliedAdapter(file=files[1], strength=b))
        for a, t, b in ((1, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1), (1, 1, 1))
    ]
    first = [generate(Recipe(**QUICK, adapters=one)) for one in uses]
    assert len({image.tobytes() for image in first}) == len(uses)
    for one, image in [*zip(uses, first), *reversed([*zip(uses, first)])]:
        assert same(generate(Recipe(**QUICK, adapters=one)), image)


def test_words_are_read_again_only_when_something_that_reads_them_changes(files, monkeypatch):
    base, read = load_base("starter"), []
    encode = base.encode_parts
    monkeypatch.setattr(base, "encode_parts", lambda *a, **k: (read.append(1), encode(*a, **k))[1])

    def reads(prompt, strength, words, **more) -> bool:
        use = AppliedAdapter(file=files[0], strength=strength, text_strength=words)
        before = len(read)
        generate(Recipe(**QUICK | {"prompt": prompt, "steps": 1} | more, adapters=(use,)))
        return len(read) > before

    assert reads("a pear, alone", 1, 1)
    assert not reads("a pear, alone", 0.5, 1)
    assert not reads("a pear, alone", 0.5, 1, seed=8)
    assert reads("a pear, alone", 0.5, 0.9)
    assert reads("a pear, alone", 0.5, 0.9, negative_prompt="red")
    assert reads("a pear, alone", 0.5, 0.9, clip_skip=2)
    assert reads("a plum, alone", 0.5, 0.9)
    assert not reads("a pear, alone", 1, 1)


def test_weights_are_merged_again_only_when_a_strength_or_a_number_moved(files, monkeypatch):
    merged, merge = [], LayerAdapters._merge
    monkeypatch.setattr(LayerAdapters, "_merge", lambda on, layers: (merged.append(1), merge(on, layers))[1])

    def merges(**more) -> bool:
        before = len(merged)
        generate(Recipe(**QUICK | {"steps": 1, "seed": len(merged)}, adapters=(AppliedAdapter(file=files[1], **more),)))
        return len(merged) > before

    assert merges(strength=0.61)
    assert not merges(strength=0.61)
    assert not merges(strength=0.0)
    assert not merges(strength=0.61)
    assert merges(strength=0.61, blocks={"unet.mid_block": 0.5})
    assert merges(strength=0.61)
    latest = list(cache_of(load_base())._read.values())[-1]
    for _, layer, _ in latest.items():
        layer.B.data = layer.B.data.clone()  # as programs write that don't count it
    assert merges(strength=0.61)


@pytest.mark.full
def test_a_second_process_draws_the_same_pixels(files, tmp_path):
    base = str(base_folder("starter"))
    recipe = Recipe(**QUICK, base=base, adapters=((files[0], 0.8), (files[1], -0.25)))
    out = tmp_path / "again.png"
    flags = {"--prompt": recipe.prompt, "--seed": 7, "--steps": 4, "--base": base, "--out": out}
    flags |= {"--width": 128, "--height": 128, "--guidance": recipe.guidance}
    words = [str(word) for pair in flags.items() for word in pair]
    adapters = ["--adapter", f"{files[0]}:0.8", "--adapter", f"{files[1]}:-0.25"]
    command = [sys.executable, "-m", "studio", "generate", *words, *adapters]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.asarray(Image.open(out)), np.asarray(generate(recipe)))
