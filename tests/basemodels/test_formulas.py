"""What each family sees, says and should say in training, as the public diffusers scripts write it down."""

import copy
import json

import diffusers
import pytest
import torch
from diffusers.training_utils import compute_density_for_timestep_sampling

from studio.basemodels import family_class, load_base
from studio.errors import BaseModelError, RunError
from studio.training.config_sections import TrainingConfig
from studio.training.objective import loss_of, timesteps
from tests.basemodels import tiny

UNETS, FLOWS = ("sd1", "sd2", "sd2-v", "sdxl"), ("sd3", "flux-dev", "flux-schnell", "z-image")


@pytest.fixture
def batch():
    draw = torch.Generator().manual_seed(3)

    def made(base):
        shape = (3, base.channels, 8, 8)
        return torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)

    return made


@pytest.mark.parametrize("name", UNETS)
def test_noise_and_target_of_a_schedule_are_its_schedulers(bases, batch, name):
    base = bases(name)
    latents, noise = batch(base)
    scheduler = diffusers.DDPMScheduler.from_config(base.pipeline.scheduler.config)
    t = base.times(torch.tensor([0.0, 0.5, 1.0]))
    assert t.tolist() == [0, 500, 999]
    assert torch.allclose(base.add_noise(latents, noise, t), scheduler.add_noise(latents, noise, t), atol=1e-6)
    v = name == "sd2-v"
    assert base.prediction_type == ("v_prediction" if v else "epsilon")
    wanted = scheduler.get_velocity(latents, noise, t) if v else noise
    assert torch.allclose(base.target(latents, noise, t), wanted, atol=1e-6)


@torch.no_grad()
def test_sdxl_is_told_how_its_image_was_cut_as_the_script_does(bases, batch):
    """train_text_to_image_lora_sdxl.py: original_size + crops_coords_top_left + target_size; heights first."""
    base = bases("sdxl")
    latents, noise = batch(base)
    t = torch.tensor([3, 300, 900])
    conditions = base.encode_prompt(["a cat", "", "a red apple"])
    states, pooled = [], None
    for tokenizer, encoder in (
        (base.pipeline.tokenizer, base.pipeline.text_encoder),
        (base.pipeline.tokenizer_2, base.pipeline.text_encoder_2),
    ):
        ids = tokenizer(
            ["a cat", "", "a red apple"], padding="max_length", max_length=77, return_tensors="pt"
        ).input_ids
        said = encoder(ids, output_hidden_states=True, return_dict=False)
        pooled = said[0]
        states.append(said[-1][-2])
    assert torch.equal(conditions["states"], torch.cat(states, -1)) and torch.equal(conditions["pooled"], pooled)
    told = base.size_conditioning([((640, 480), (7, 9), (64, 32))] * 3)
    assert told["time_ids"].tolist() == [[480, 640, 9, 7, 32, 64]] * 3
    noisy = base.add_noise(latents, noise, t)
    wanted = base.pipeline.unet(
        noisy,
        t,
        torch.cat(states, -1),
        added_cond_kwargs={"time_ids": torch.tensor([[480, 640, 9, 7, 32, 64.0]] * 3), "text_embeds": pooled},
    ).sample
    assert torch.equal(base.predict(noisy, t, conditions | told), wanted)
    uncut = base.size_conditioning([((64, 64), (0, 0), (64, 64))] * 3)
    assert torch.equal(base.predict(noisy, t, conditions), base.predict(noisy, t, conditions | uncut))
    assert not torch.equal(base.predict(noisy, t, conditions), wanted)


@pytest.mark.parametrize("name", FLOWS)
def test_noise_and_target_of_a_flow_are_those_of_the_scripts(bases, batch, name):
    """train_dreambooth_lora_sd3.py and _flux.py: (1 - sigma) x + sigma e at the timesteps of a copy of the scheduler;
    the flow is e - x.
    """
    base = bases(name)
    latents, noise = batch(base)
    scheduler = copy.deepcopy(base.pipeline.scheduler)
    u = torch.tensor([0.2, 0.5, 0.999])
    indices = (u * scheduler.config.num_train_timesteps).long()
    theirs, sigmas = scheduler.timesteps[indices], scheduler.sigmas[indices].reshape(-1, 1, 1, 1)
    t = base.times(1 - indices / 1000)  # theirs count from the noise
    assert torch.allclose(t, theirs, atol=1e-3)
    assert torch.allclose(base.add_noise(latents, noise, t), (1 - sigmas) * latents + sigmas * noise, atol=1e-5)
    assert torch.equal(base.target(latents, noise, t), noise - latents)
    assert base.snr(t) is None and base.prediction_type == "flow"
    assert torch.allclose(base.times(u, shift=1.0), 1000 * u)


def test_a_flows_noise_levels_are_drawn_as_the_scripts_draw_them(bases):
    draw = torch.Generator().manual_seed(0)
    shares = torch.rand(20_000, generator=draw)
    ours = timesteps(shares, TrainingConfig(), bases("sd3").usual_timesteps)
    torch.manual_seed(0)
    theirs = compute_density_for_timestep_sampling("logit_normal", 20_000, 0.0, 1.0)
    parts = torch.linspace(0.05, 0.95, 10)
    assert torch.allclose(ours.quantile(parts), theirs.quantile(parts), atol=0.01)


@torch.no_grad()
@pytest.mark.parametrize("name", ["flux-dev", "flux-schnell"])
def test_flux_gets_packed_latents_ids_and_a_guidance_of_one_in_training(bases, batch, name):
    """train_dreambooth_lora_flux.py."""
    base = bases(name)
    latents, noise = batch(base)
    t, conditions = torch.tensor([20.0, 500.0, 990.0]), base.encode_prompt(["a cat", "", "a red apple"])
    noisy = base.add_noise(latents, noise, t)
    pipe = diffusers.FluxPipeline
    said = base.model(
        hidden_states=pipe._pack_latents(noisy, 3, 16, 8, 8),
        timestep=t / 1000,
        guidance=torch.tensor([1.0]).expand(3) if name == "flux-dev" else None,
        pooled_projections=conditions["pooled"],
        encoder_hidden_states=conditions["states"],
        txt_ids=torch.zeros(conditions["states"].shape[1], 3),
        img_ids=pipe._prepare_latent_image_ids(3, 4, 4, "cpu", torch.float32),
        return_dict=False,
    )[0]
    wanted = pipe._unpack_latents(said, height=64, width=64, vae_scale_factor=8)
    assert torch.equal(base.predict(noisy, t, conditions), wanted)
    stronger = base.predict(noisy, t, base.guided(conditions, 4.0))
    assert torch.equal(stronger, wanted) == (name == "flux-schnell")


WORDS = ["a cat", "", "a red apple"]


@torch.no_grad()
@pytest.mark.parametrize("name", ["sd1", "sd2", "sd2-v"])
def test_a_unet_is_told_the_last_states_of_its_words(bases, batch, name):
    """train_text_to_image_lora.py: unet(noisy_latents, timesteps, text_encoder(input_ids)[0])[0]."""
    base = bases(name)
    latents, noise = batch(base)
    t, conditions = torch.tensor([3, 300, 900]), base.encode_prompt(WORDS)
    pipeline = base.pipeline
    ids = pipeline.tokenizer(WORDS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
    states = pipeline.text_encoder(ids, return_dict=False)[0]
    noisy = base.add_noise(latents, noise, t)
    assert torch.equal(base.predict(noisy, t, conditions), pipeline.unet(noisy, t, states, return_dict=False)[0])


@torch.no_grad()
def test_sd3_is_told_three_encoders_and_the_pooled_two(bases, batch):
    """train_dreambooth_lora_sd3.py: both CLIPs' last layers but one side by side, filled up with zeros to T5's width,
    T5's below them; timesteps of the scheduler as they are.
    """
    base = bases("sd3")
    latents, noise = batch(base)
    t, conditions = torch.tensor([20.0, 500.0, 990.0]), base.encode_prompt(WORDS)
    pipeline, states, pooled = base.pipeline, [], []
    for number in ("", "_2"):
        tokenizer, encoder = (getattr(pipeline, part + number) for part in ("tokenizer", "text_encoder"))
        ids = tokenizer(WORDS, padding="max_length", max_length=77, truncation=True, return_tensors="pt").input_ids
        said = encoder(ids, output_hidden_states=True)
        pooled.append(said[0])
        states.append(said.hidden_states[-2])
    clips = torch.cat(states, -1)
    ids = pipeline.tokenizer_3(
        WORDS, padding="max_length", max_length=256, truncation=True, add_special_tokens=True, return_tensors="pt"
    ).input_ids
    t5 = pipeline.text_encoder_3(ids)[0]
    filled = torch.nn.functional.pad(clips, (0, t5.shape[-1] - clips.shape[-1]))
    noisy = base.add_noise(latents, noise, t)
    wanted = pipeline.transformer(
        hidden_states=noisy,
        timestep=t,
        encoder_hidden_states=torch.cat([filled, t5], -2),
        pooled_projections=torch.cat(pooled, -1),
        return_dict=False,
    )[0]
    assert torch.allclose(base.predict(noisy, t, conditions), wanted, atol=1e-6)


@torch.no_grad()
def test_z_images_time_runs_from_noise_to_image_and_its_speed_is_turned(bases, batch):
    """train_dreambooth_lora_z_image.py: timestep_normalized = (1000 - t) / 1000, model_pred = -model_pred; each
    image's words without what fills them up.
    """
    base = bases("z-image")
    latents, noise = batch(base)
    t, conditions = torch.tensor([20.0, 500.0, 990.0]), base.encode_prompt(WORDS)
    words, _ = base.pipeline.encode_prompt(WORDS, do_classifier_free_guidance=False)
    noisy = base.add_noise(latents, noise, t)
    said = base.model(list(noisy.unsqueeze(2).unbind(0)), (1000 - t) / 1000, words, return_dict=False)[0]
    assert torch.allclose(base.predict(noisy, t, conditions), -torch.stack(said).squeeze(2), atol=1e-5)


@torch.no_grad()
def test_sd3_without_t5_is_told_zeros_instead(tmp_path):
    torch.manual_seed(0)
    tiny.sd3(with_t5=False).save_pretrained(tmp_path / "small")
    base = load_base(str(tmp_path / "small"), shared=False)
    assert "text_encoder_3" not in base.modules()
    states = base.encode_prompt(["a cat"])["states"]
    assert states.shape[1] > 77 and states[:, :77].any() and not states[:, 77:].any()


def test_min_snr_is_refused_where_there_is_none(bases, batch):
    base = bases("sd3")
    latents, noise = batch(base)
    with pytest.raises(RunError, match="min_snr_gamma to 0"):
        loss_of(
            base,
            latents,
            base.encode_prompt([""] * 3),
            noise,
            torch.full((3,), 500.0),
            settings=TrainingConfig(min_snr_gamma=5),
        )


@pytest.mark.parametrize(
    "said, words",
    [("StableDiffusionXLImg2ImgPipeline", "refiner"), ("WanPipeline", "no family"), ("FluxFillPipeline", "holes")],
)
def test_what_is_no_base_is_refused_with_a_reason(tmp_path, said, words):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": said}))
    with pytest.raises(BaseModelError, match=words):
        family_class(tmp_path)
