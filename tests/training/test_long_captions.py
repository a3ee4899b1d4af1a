"""Captions are read to their end, by the function that reads prompts: in training, validation, previews and images."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.errors import BaseModelError
from studio.generation import Recipe, read_recipe
from studio.generation.drawing import encode_prompts
from studio.training import config_from, train
from studio.training.cache import Cache
from studio.training.changes import as_begun
from studio.training.config_sections import DataConfig
from studio.training.distributed import Distributed
from studio.training.events import Step, Validation
from studio.training.examples import BatchLoader, Row, about_tokens, encode_missing, list_examples
from studio.training.train_step import TrainStep
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels import tiny

LONG = "red apple, " * 100  # 300 tokens


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("bases"), {}

    def base(line):
        name, _, options = line.partition("?")
        if name != "starter" and not (root / name).exists():
            tiny.save(name, root)
        if line not in made:
            place = name if name == "starter" else str(root / name)
            made[line] = load_base(place + (f"?{options}" if options else ""), shared=False)
        return made[line]

    return base


@pytest.fixture
def images(tmp_path):
    """images(captions): a folder with an image for each."""

    def make(*captions):
        folder, draw = tmp_path / "images", np.random.default_rng(0)
        folder.mkdir(exist_ok=True)
        for number, caption in enumerate(captions):
            Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
            (folder / f"{number}.txt").write_text(caption)
        return folder

    return make


def loaded(folder, base, cache, **settings):
    """(examples, the loader of their batches) once all is in the cache."""
    data = DataConfig(folder=str(folder), **settings)
    examples, _ = list_examples(open_dataset(folder).items, base, cache, data, 0)
    list(encode_missing(examples, base, cache, Distributed(), threading.Event(), data))
    return examples, BatchLoader(base, cache, data)


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["starter", *tiers.default(tiny.MAKERS, "sdxl", "flux-dev", "z-image")])
@pytest.mark.parametrize("skip", tiers.default([1, 2], 2))
def test_training_reads_a_caption_as_an_image_does(bases, images, tmp_path, name, skip):
    base = bases(name)
    examples, reader = loaded(images("red apple", LONG + "blue"), base, Cache(tmp_path / "cache"), clip_skip=skip)
    for example in examples:
        caption = example.captions[0]
        recipe = Recipe(prompt=caption, guidance=1.0, clip_skip=skip)
        cond, _ = encode_prompts(base, recipe)
        assert same(reader.read([Row(example, False, caption)]).conditions, cond)
    if base.reads_on:
        assert cond["states"].shape[1] == 5 * 77


@torch.no_grad()
@pytest.mark.parametrize("name", tiers.default(["starter", "sd1", "sd2", "sdxl"], "starter", "sdxl"))
def test_each_75_tokens_are_what_the_pipeline_makes_of_them_alone(bases, name):
    base, pieces = bases(name), ["apple " * 75, "fish " * 75, "red cup"]
    found = base.encode_prompt(["".join(pieces)])
    how = {"device": base.device, "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    alone = [base.pipeline.encode_prompt(piece, **how) for piece in pieces]
    assert torch.allclose(found["states"], torch.cat([one[0] for one in alone], 1), atol=1e-5)
    if name == "sdxl":  # the summary of the first chunk, as in kohya's scripts
        assert torch.allclose(found["pooled"], alone[0][2], atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd1", "sdxl"])
def test_a_short_caption_means_the_same_beside_a_long_one(bases, images, tmp_path, name):
    base = bases(name)
    examples, reader = loaded(images("red apple", LONG), base, Cache(tmp_path / "cache"))
    rows = [Row(example, False, example.captions[0]) for example in examples]
    both = reader.read(rows).conditions
    assert both["mask"].sum(1).tolist() == [77, 4 * 77]
    noisy, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 200])
    together = base.predict(noisy, t, both)
    for place, row in enumerate(rows):
        alone = base.predict(noisy[place : place + 1], t[place : place + 1], reader.read([row]).conditions)
        assert torch.allclose(together[place : place + 1], alone, atol=1e-5)
    seen = base.predict(noisy, t, {key: value for key, value in both.items() if key != "mask"})
    assert not torch.allclose(seen[:1], together[:1], atol=1e-3), "the mask hides nothing"


def run(folder, workspace, base, **settings):
    """(its held-out losses, the losses of its steps); validation and previews are part of it."""
    usual = {
        "name": "x",
        "data.folder": str(folder),
        "base": base,
        "training.steps": 1,
        "training.batch_size": 2,
        "adapter.rank": 2,
        "adapter.targets": "attention",
        "training.warmup": 0,
        "data.caption_dropout": 0,
        "data.held_out": str(folder.parent / "held"),
        "validation.every": 1,
        "preview.every": 1,
        "preview.steps": 1,
        "preview.prompts": ["red apple"],
        "data.clip_skip": 2,
    }
    events = list(train(config_from(usual | settings), Workspace.open(workspace)))
    return [[event.loss for event in events if isinstance(event, kind)] for kind in (Validation, Step)]


CASES = tiers.default([(0, False), (75, False), (0, True), (75, True)])


@pytest.mark.parametrize(("most", "text_encoder"), CASES)
def test_a_run_learns_from_the_last_words_of_300_tokens(bases, images, tmp_path, most, text_encoder):
    """Two runs that differ in these alone; the held-out images' own words are as long."""
    base, found = str(bases("sd1").folder), []
    settings = {"data.max_token_length": most, "adapter.text_encoder": text_encoder}
    for words in ("a blue fish", "white cups"):
        images(LONG + words).rename(tmp_path / "held")
        Image.radial_gradient("L").save(tmp_path / "held" / "0.png")  # not one that is trained on
        found.append(run(images("red apple", LONG + words), tmp_path / words, base, **settings))
        (tmp_path / "held").rename(tmp_path / f"held before {words}")
    (held, losses), (other_held, other_losses) = found
    assert (held[0] == other_held[0], losses == other_losses) == (most == 75,) * 2
    preview = tmp_path / "white cups" / "runs" / "x" / "previews" / "000001-0.png"
    assert read_recipe(preview).values["clip_skip"] == 2


def test_the_text_encoder_trains_on_a_batch_of_short_and_long_captions(bases, images, tmp_path):
    """A fresh adapter changes nothing: the conditions are those of the cache, and gradients reach the text encoder."""
    base = bases("sd1")
    folder, cache = images("red apple", LONG + "blue"), Cache(tmp_path / "cache")
    examples, reader = loaded(folder, base, cache)
    step = TrainStep(config_from({"data.folder": str(folder), "adapter.text_encoder": True}), base, Distributed())
    try:
        rows = [Row(example, False, example.captions[0]) for example in examples]
        live = step.conditions(BatchLoader(base, cache, reader.data, texts=False).read(rows))
        cached = reader.read(rows).conditions
        assert live.keys() == cached.keys()
        assert all(torch.allclose(live[key], cached[key], atol=1e-6) for key in live)
        live["states"][1, 77:].sum().backward()  # the words behind the first 75
        assert any(p.grad is not None and p.grad.any() for p in step.adapters["text_encoder"].parameters())
    finally:
        for adapter in step.adapters.values():
            adapter.detach()


@torch.no_grad()
@pytest.mark.parametrize("name", tiers.default(["sd3", "flux-dev", "flux-schnell", "z-image"], "flux-dev"))
def test_the_length_of_t5_and_qwen_is_a_setting_of_the_base(bases, images, tmp_path, name):
    base, plain = bases(f"{name}?max_sequence_length=32"), bases(name)
    caption = "red apple " * 40
    examples, reader = loaded(images(caption), base, Cache(tmp_path / "cache"))
    read = reader.read([Row(examples[0], False, examples[0].captions[0])]).conditions
    assert same(read, encode_prompts(base, Recipe(prompt=caption, guidance=1.0))[0])
    clip = 77 if name == "sd3" else 0
    assert read["states"].shape[1] == 32 + clip < plain.encode_prompt([caption])["states"].shape[1]
    said = about_tokens(examples, base)
    assert len(said) == 1 and "is not trained" in said[0] and not about_tokens(examples, plain)
    again, other = loaded(tmp_path / "images", plain, Cache(tmp_path / "cache"))
    assert not same(read, other.read([Row(again[0], False, again[0].captions[0])]).conditions), "another cache key"
    if name == "flux-dev":
        theirs, _, _ = plain.pipeline.encode_prompt(caption, caption, device=plain.device, max_sequence_length=32)
        assert torch.equal(read["states"], theirs)


@pytest.mark.parametrize(
    ("line", "part"),
    [("sd1?max_sequence_length=128", "in chunks of 75"), ("flux-dev?max_sequence_length=600", "at most 512 tokens")],
)
def test_a_length_that_a_base_does_not_read_is_refused(bases, line, part):
    with pytest.raises(BaseModelError, match=part):
        bases(line)


def test_a_run_of_before_goes_on_with_75_tokens(bases):
    config, said = as_begun(config_from({"data.folder": "x"}), "0.1.0")
    assert config.data.max_token_length == 75 and any("75 tokens" in line for line in said)
    config, said = as_begun(config_from({"data.folder": "x", "base": str(bases("z-image").folder)}), "0.1.0")
    assert config.data.max_token_length == 0 and not said
    config, said = as_begun(config_from({"data.folder": "x"}), "0.2.0.dev0")
    assert config.data.max_token_length == 0 and not said
