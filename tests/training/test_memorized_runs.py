"""Memorization, planted: an adapter that is trained far too long on four images is reported, a healthy run is not.

On the starter, whose image encoder compares, and on Stable Diffusion 1.5 and SDXL at tiny size, where the VAE's latents
do. The two are the starter's own trained parts in the classes of those models, for images of 64 pixels; SDXL's second
encoder is new, and its UNet is taught for some seconds what the starter's predicts.
"""

import copy

import diffusers
import pytest
import torch

from studio.basemodels import load_base
from studio.datasets import open_dataset
from studio.datasets.images import open_image
from studio.training import config_from, train
from studio.training.events import Finished, Warned
from studio.workspace import ASSETS, Workspace
from tests.basemodels import tiny

pytestmark = pytest.mark.slow
DATASETS = ASSETS / "datasets"
UNSEEN = ("red apple, on a yellow", "fish, on a pink", "bell, on a red")
SIDE, TEACHING = 64, 120  # steps of SDXL's UNet


def sd15(folder):
    parts = load_base(shared=False).pipeline.components | {"image_encoder": None, "feature_extractor": None}
    parts["unet"].register_to_config(sample_size=SIDE // 8)
    diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False).save_pretrained(folder)
    return folder


def sdxl(folder):
    starter = load_base(shared=False).pipeline
    teacher, width = starter.unet, starter.text_encoder.config.hidden_size
    torch.manual_seed(0)
    second = tiny.clip(24, 12)
    config = dict(teacher.config) | {
        "sample_size": SIDE // 8,
        "cross_attention_dim": width + 24, "addition_embed_type": "text_time", "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 12,
    }  # fmt: skip
    unet = diffusers.UNet2DConditionModel.from_config(config)
    state = unet.state_dict()
    for key, value in teacher.state_dict().items():  # SDXL's states are the starter's, and the second encoder's behind
        state[key] = (
            value if value.shape == state[key].shape else torch.cat([value, value.new_zeros(len(value), 24)], 1)
        )
    for key in state:
        if key.startswith("add_embedding.linear_2"):
            state[key] = torch.zeros_like(state[key])
    unet.load_state_dict(state)
    pipeline = diffusers.StableDiffusionXLPipeline(
        vae=starter.vae, text_encoder=starter.text_encoder, tokenizer=starter.tokenizer, text_encoder_2=second,
        tokenizer_2=copy.deepcopy(starter.tokenizer), unet=unet, scheduler=starter.scheduler,
        force_zeros_for_empty_prompt=False,
    )  # fmt: skip
    teach(pipeline, teacher)
    pipeline.save_pretrained(folder)
    return folder


def teach(pipeline, teacher):
    """The new UNet predicts what the starter's does, from SDXL's states: those of the last layer but one."""
    items = [item for name in ("silhouette", "moody-cat") for item in open_dataset(DATASETS / name).items]
    with torch.no_grad():
        small = [item.load().resize((SIDE, SIDE)) for item in items]
        pixels = torch.cat([pipeline.image_processor.preprocess(image) for image in small])
        latents = pipeline.vae.encode(pixels).latents
        captions = [item.caption for item in items]
        ids = pipeline.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
        plain = pipeline.text_encoder(ids.input_ids).last_hidden_state
        states, _, pooled, _ = pipeline.encode_prompt(captions, do_classifier_free_guidance=False)
    times = torch.tensor([[SIDE, SIDE, 0.0, 0.0, SIDE, SIDE]])
    optimizer, draw = torch.optim.AdamW(pipeline.unet.parameters(), 3e-4), torch.Generator().manual_seed(0)
    for _ in range(TEACHING):
        rows = torch.randint(len(items), (8,), generator=draw)
        t = torch.randint(1000, (8,), generator=draw)
        noisy = pipeline.scheduler.add_noise(latents[rows], torch.randn(8, *latents.shape[1:], generator=draw), t)
        with torch.no_grad():
            wanted = teacher(noisy, t, plain[rows]).sample
        added = {"text_embeds": pooled[rows], "time_ids": times.expand(8, -1)}
        loss = (pipeline.unet(noisy, t, states[rows], added_cond_kwargs=added).sample - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    made = {}

    def base(name):
        if name not in made:
            make = {"sd1": sd15, "sdxl": sdxl}.get(name)
            made[name] = str(make(tmp_path_factory.mktemp(name))) if make else name
        return made[name]

    return base


def warnings(tmp_path, settings):
    config = config_from({
        "training.batch_size": 4, "training.learning_rate": 1e-3, "adapter.rank": 16, "preview.steps": 10,
        "validation.every": 0, "data.caption_dropout": 0, "training.checkpoint_every": 1000, **settings,
    })  # fmt: skip
    events = list(train(config, Workspace.open(tmp_path / "workspace")))
    assert isinstance(events[-1], Finished)
    return [event.message for event in events if isinstance(event, Warned)]


@pytest.mark.parametrize("name", ["starter", "sd1", "sdxl"])
def test_four_images_trained_far_too_long_are_reported(tmp_path, bases, name):
    """The previews ask for what was trained on, and at the end they are those images."""
    folder = tmp_path / "four"
    folder.mkdir()
    items = open_dataset(DATASETS / "pixel").items[4:20:4]
    for item in items:
        open_image(item.path).save(folder / item.path.name)
        (folder / item.path.name).with_suffix(".txt").write_text(item.caption)
    said = warnings(tmp_path, {
        "data.folder": str(folder), "base": bases(name), "training.steps": 150, "preview.every": 150,
        "preview.prompts": [item.caption for item in items], "training.learning_rate": 2e-3,
    })  # fmt: skip
    found = [line for line in said if "may be memorized" in line]
    assert found and any(item.path.name in line for item in items for line in found), said
    assert not any("check is off" in line for line in said)


@pytest.mark.parametrize("name", ["starter", "sd1", "sdxl"])
def test_a_healthy_run_is_not_reported(tmp_path, bases, name):
    """Twenty-four images, the starter's preset, and things to draw that are not among them."""
    said = warnings(tmp_path, {
        "data.folder": str(DATASETS / "silhouette"), "base": bases(name), "training.steps": 150, "preview.every": 75,
        "preview.prompts": [f"{what} background" for what in UNSEEN],
    })  # fmt: skip
    assert not [line for line in said if "memoriz" in line], said
