"""Names of other programs for a run's settings: the same meaning is taken and said, another one is refused."""

import pytest

from studio.errors import ConfigError
from studio.training.aliases import ALIASES, REFUSED
from studio.training.config import RunConfig, config_from, config_from_toml, config_to_toml, dotted

DATA = {"data.folder": "x"}


@pytest.mark.parametrize(
    ("name", "value", "setting", "here"),
    [
        ("network_dim", "32", "adapter.rank", 32),
        ("network_alpha", 16, "adapter.alpha", 16.0),
        ("max_train_steps", "1600", "training.steps", 1600),
        ("max_train_epochs", "10", "training.epochs", 10),
        ("gradient_accumulation_steps", 4, "training.accumulation", 4),
        ("unet_lr", "1e-4", "training.learning_rate", 1e-4),
        ("text_encoder_lr", 5e-5, "training.text_encoder_rate", 5e-5),
        ("ip_noise_gamma", 0.1, "training.input_perturbation", 0.1),
        ("keep_tokens", 2, "data.keep_tags", 2),
        ("caption_dropout_rate", 0.1, "data.caption_dropout", 0.1),
        ("shuffle_caption", True, "data.shuffle_tags", True),
        ("bucket_no_upscale", "true", "data.upscale", False),
        ("bucket_no_upscale", False, "data.upscale", True),
        ("network_train_unet_only", "false", "adapter.text_encoder", True),
        ("resolution", "768,768", "data.resolution", 768),
        ("resolution", 512, "data.resolution", 512),
        ("min_timestep", 200, "training.least_noise", 0.2),
        ("max_timestep", "800", "training.most_noise", 0.8),
        ("mixed_precision", "no", "training.precision", "fp32"),
        ("lr_warmup_steps", 50, "training.warmup", 50),
        ("max_grad_norm", 0, "training.clip", 0.0),
        ("snr_gamma", 5, "training.min_snr_gamma", 5.0),
        ("data.regularization", "ordinary", "data.regularisation", "ordinary"),
        ("data.unmasked_weight", 0.3, "data.outside", 0.3),
        ("data.validation_folder", "held", "data.held_out", "held"),
        ("training.gradient_clipping", 2, "training.clip", 2.0),
        ("training.min_timestep", 100, "training.least_noise", 0.1),
        ("training.max_timestep", 900, "training.most_noise", 0.9),
    ],
)  # fmt: skip
def test_a_name_of_the_same_meaning_is_taken_and_said_once(name, value, setting, here):
    said: list[str] = []
    config = config_from(DATA | {name: value}, said.append)
    assert dotted(config)[setting] == here
    assert len(said) == 1 and said[0].startswith(f"{name} is {setting} = ")


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("train_batch_size", 4, "on one device, 4"),
        ("optimizer_type", "AdamW8bit", "training.optimizer = adamw-8bit"),
        ("optimizer_type", "prodigyopt.Prodigy", "training.optimizer = prodigy"),
        ("optimizer_type", "DAdaptAdam", "one of adamw, "),
        ("lr_scheduler", "cosine_with_restarts", "training.schedule = cosine-restarts"),
        ("v_parameterization", True, "prediction_type=v_prediction"),
        ("loss_type", "smooth_l1", "l2 or huber"),
        ("resolution", "768,512", "side of a square"),
        ("lr_warmup_steps", 0.1, "how many steps"),
        ("min_timestep", "low", "must be a number"),
    ],
)  # fmt: skip
def test_a_name_of_another_meaning_is_refused_with_the_translation(name, value, part):
    with pytest.raises(ConfigError, match=part) as caught:
        config_from(DATA | {name: value})
    assert str(caught.value).startswith(f"{name}: ")


def test_every_alias_leads_to_a_setting_and_none_hides_one():
    names = set(dotted(config_from(DATA)))
    assert {alias.key for alias in ALIASES.values()} <= names
    assert not (set(ALIASES) | set(REFUSED)) & (set(RunConfig.model_fields) | names) and not set(ALIASES) & set(REFUSED)


def test_what_is_given_later_wins_under_either_name():
    assert config_from({**DATA, "training.steps": 10, "max_train_steps": 20}).training.steps == 20
    assert config_from({**DATA, "max_train_steps": 20, "training.steps": 11}).training.steps == 11


def test_a_toml_file_of_kohyas_names_is_read_and_ours_is_read_as_ever(tmp_path):
    said: list[str] = []
    file = tmp_path / "kohya.toml"
    file.write_text(
        'train_data_dir = "cats"\nnetwork_dim = 8\n[training_arguments]\nmax_train_steps = 30\nseed = 7\n'
        '[adapter]\ntargets = "attention"\n'
    )
    config = config_from_toml(file, said.append)
    assert (config.data.folder, config.adapter.rank, config.training.steps, config.training.seed) == ("cats", 8, 30, 7)
    assert config.adapter.targets == "attention" and len(said) == 4
    file.write_text(config_to_toml(config))
    assert config_from_toml(file, said.append) == config and len(said) == 4


@pytest.mark.parametrize("name", ["adapter.seed", "preview.rank", "network_dims", "training"])
def test_a_name_that_no_program_has_there_is_no_setting(name):
    with pytest.raises(ConfigError, match=name.split(".")[-1]):
        config_from(DATA | {name: 3})
