"""Each family the whole way: load, encode, train, resume, save, load in diffusers with peft, draw."""

import threading

import diffusers
import pytest
import scipy.stats
import torch
from PIL import Image, ImageChops

from studio.adapters import attach_file, read_adapter
from studio.basemodels import load_base
from studio.generation import Recipe, draw
from studio.training import config_from, train, train_step
from studio.training.events import ExportChecked, Finished, Step, Stopped
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels.test_drawing import drawn_by, without
from tests.basemodels.tiny import MAKERS, SIDE

RECIPE = Recipe(prompt="red apple", seed=1, steps=2, width=SIDE, height=SIDE, guidance=3.0)


def settings(folder, image, **more):
    return {
        "name": "run",
        "base": str(folder),
        "data.folder": str(image),
        "data.caption_dropout": 0,
        "adapter.rank": 4,
        "training.steps": 30,
        "training.batch_size": 4,
        "training.learning_rate": 3e-2,
        "training.warmup": 3,
        "training.checkpoint_every": 100,
        "preview.every": 0,
        "validation.every": 0,
        **more,
    }


def losses(events):
    return [event.loss for event in events if isinstance(event, Step)]


@pytest.mark.parametrize("name", tiers.default(MAKERS, "flux-dev"))
def test_one_image_is_learned_and_its_adapter_goes_out_into_diffusers(bases, folders, image, tmp_path, name):
    folder, workspace, stop, seen = folders(name), Workspace.open(tmp_path), threading.Event(), []
    config = config_from(settings(folder, image))
    for event in train(config, workspace, stop):
        seen.append(event)
        if isinstance(event, Step) and event.step == 20:
            stop.set()
    assert isinstance(seen[-1], Stopped)
    more = list(train(config, workspace, folder=tmp_path / "runs" / "run"))
    assert isinstance(more[-1], Finished)
    found = losses(seen) + losses(more)
    assert len(found) == 30 and sum(found[-8:]) / 8 < 0.85 * sum(found[:3]) / 3, found
    proof = next(event for event in more if isinstance(event, ExportChecked))
    assert proof.difference < 1 and not proof.unused

    file, base = tmp_path / "runs" / "run" / "adapter.safetensors", bases(name)
    plain = draw(base, RECIPE)
    adapter = attach_file(read_adapter(file), base.modules())
    ours = draw(base, RECIPE)
    adapter.strength = 0.0
    assert ImageChops.difference(draw(base, RECIPE), plain).getbbox() is None
    adapter.detach()
    assert ImageChops.difference(draw(base, RECIPE), plain).getbbox() is None
    assert max(high for _, high in ImageChops.difference(ours, plain).getextrema()) > 4

    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **without(folder))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    assert max(high for _, high in ImageChops.difference(drawn_by(pipeline, RECIPE), ours).getextrema()) <= 2


@pytest.mark.parametrize(
    "name", tiers.default(["sd1", "sd2-v", "sd2", "sdxl", "sd3", "flux-dev", "flux-schnell"], "sd3")
)
def test_text_encoders_train_and_are_read_by_diffusers(folders, image, tmp_path, name):
    folder = folders(name)
    config = settings(folder, image, **{"training.steps": 3, "adapter.text_encoder": True, "training.warmup": 1})
    assert isinstance(list(train(config_from(config), Workspace.open(tmp_path)))[-1], Finished)
    file = tmp_path / "runs" / "run" / "adapter.safetensors"
    base = load_base(str(folder), shared=False)
    components = {component for component, _ in read_adapter(file).layers}
    assert components == {base.denoiser, *base.trained_encoders}
    before = base.encode_prompt(["red apple"])
    adapter = attach_file(read_adapter(file), base.modules())
    ours = base.encode_prompt(["red apple"])
    assert adapter.report and not adapter.report.unused
    assert any(not torch.equal(before[key], ours[key]) for key in ours)
    pipeline = diffusers.DiffusionPipeline.from_pretrained(folder, **without(folder))
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_lora_weights(file.parent, weight_name=file.name)
    adapter.strength = 1.0
    theirs = drawn_by(pipeline, RECIPE)
    assert max(high for _, high in ImageChops.difference(theirs, draw(base, RECIPE)).getextrema()) <= 2


def test_a_step_draws_latents_anew_from_the_distribution_that_the_vae_gives(folders, image, tmp_path, monkeypatch):
    whole, seen = train_step.loss_of, []

    def watched(base, latents, *more, **rest):
        seen.append(latents)
        return whole(base, latents, *more, **rest)

    monkeypatch.setattr(train_step, "loss_of", watched)
    config = settings(folders("sd1"), image, **{"training.steps": 4, "training.warmup": 0})
    assert isinstance(list(train(config_from(config), Workspace.open(tmp_path)))[-1], Finished)
    with Image.open(image / "one.png") as opened:
        one = opened.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    mean, spread = load_base(str(folders("sd1")), shared=False).encode_image([one])
    drawn = (torch.cat(seen) - mean) / spread
    assert len(drawn) == 16 and scipy.stats.kstest(drawn.flatten().numpy(), scipy.stats.norm.cdf).pvalue > 0.01
