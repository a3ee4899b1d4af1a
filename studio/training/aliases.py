"""Settings under the names of other programs: kohya's scripts, diffusers' example scripts, OneTrainer.

A name that means the same here is accepted, and reported as what it became. One that means something else is refused
with the translation, since a run that is silently another one is worse than none.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from studio.errors import ConfigError

Report = Callable[[str], None]


@dataclass(frozen=True)
class Alias:
    """key: the setting here; convert: its value here."""

    key: str
    convert: Callable[[Any], Any] = lambda value: value


def _is_true(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "false", "0", "no"):
        return text in ("true", "1", "yes")
    raise ConfigError(f"must be true or false (you gave {value!r}).")


def _not(value: Any) -> bool:
    return not _is_true(value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"must be a number (you gave {str(value)[:60]!r}).") from None


def _share(value: Any) -> float:
    """A timestep of 0 to 1000 as a share of the noise schedule."""
    return _number(value) / 1000


def _steps(value: Any) -> Any:
    """kohya reads a number below 1 as a share of the steps."""
    if 0 < _number(value) < 1:
        raise ConfigError("a share of the steps is not read here: write how many steps, as training.warmup = 100.")
    return int(_number(value))


def _side(value: Any) -> Any:
    """512, "512" or "512,512"."""
    sides = [part.strip() for part in str(value).strip("[]()").replace("x", ",").split(",")]
    if len(set(sides)) != 1:
        raise ConfigError(f"data.resolution is the side of a square, buckets do the rest (you gave {value!r}).")
    return sides[0]


def _precision(value: Any) -> str:
    return {"no": "fp32", "none": "fp32"}.get(str(value).lower(), str(value))


ALIASES = {
    # kohya's scripts
    "pretrained_model_name_or_path": Alias("base"),
    "output_name": Alias("name"),
    "train_data_dir": Alias("data.folder"),
    "image_dir": Alias("data.folder"),
    "reg_data_dir": Alias("data.regularisation"),
    "prior_loss_weight": Alias("data.regularisation_weight"),
    "num_repeats": Alias("data.repeats"),
    "enable_bucket": Alias("data.buckets"),
    "bucket_no_upscale": Alias("data.upscale", _not),
    "flip_aug": Alias("data.flip"),
    "shuffle_caption": Alias("data.shuffle_tags"),
    "keep_tokens": Alias("data.keep_tags"),
    "caption_dropout_rate": Alias("data.caption_dropout"),
    "caption_tag_dropout_rate": Alias("data.tag_dropout"),
    "keep_tokens_separator": Alias("data.keep_tags_separator"),
    "enable_wildcard": Alias("data.wildcards"),
    "max_token_length": Alias("data.max_token_length"),
    "clip_skip": Alias("data.clip_skip"),
    "alpha_mask": Alias("data.masks"),
    "resolution": Alias("data.resolution", _side),
    "network_dim": Alias("adapter.rank"),
    "network_alpha": Alias("adapter.alpha"),
    "network_dropout": Alias("adapter.dropout"),
    "network_weights": Alias("adapter.init_from"),
    "dim_from_weights": Alias("adapter.init_resize", _not),
    "network_train_unet_only": Alias("adapter.text_encoder", _not),
    "max_train_steps": Alias("training.steps"),
    "max_train_epochs": Alias("training.epochs"),
    "num_train_epochs": Alias("training.epochs"),
    "gradient_accumulation_steps": Alias("training.accumulation"),
    "learning_rate": Alias("training.learning_rate"),
    "unet_lr": Alias("training.learning_rate"),
    "text_encoder_lr": Alias("training.text_encoder_rate"),
    "loraplus_lr_ratio": Alias("training.lora_plus"),
    "lr_warmup_steps": Alias("training.warmup", _steps),
    "lr_scheduler_num_cycles": Alias("training.restarts"),
    "max_grad_norm": Alias("training.clip"),
    "seed": Alias("training.seed"),
    "huber_c": Alias("training.huber_c"),
    "huber_schedule": Alias("training.huber_schedule"),
    "debiased_estimation_loss": Alias("training.debiased_estimation"),
    "multires_noise_iterations": Alias("training.pyramid_noise"),
    "multires_noise_discount": Alias("training.pyramid_discount"),
    "sigmoid_scale": Alias("training.logit_std"),
    "logit_mean": Alias("training.logit_mean"),
    "logit_std": Alias("training.logit_std"),
    "mode_scale": Alias("training.mode_scale"),
    "stop_text_encoder_training": Alias("training.text_encoder_stop"),
    "min_snr_gamma": Alias("training.min_snr_gamma"),
    "noise_offset": Alias("training.noise_offset"),
    "ip_noise_gamma": Alias("training.input_perturbation"),
    "discrete_flow_shift": Alias("training.shift"),
    "min_timestep": Alias("training.least_noise", _share),
    "max_timestep": Alias("training.most_noise", _share),
    "mixed_precision": Alias("training.precision", _precision),
    "gradient_checkpointing": Alias("training.gradient_checkpointing"),
    "save_every_n_steps": Alias("training.checkpoint_every"),
    "sample_every_n_steps": Alias("preview.every"),
    "sample_prompts": Alias("preview.prompts"),
    "validation_split": Alias("validation.fraction"),
    "validate_every_n_steps": Alias("validation.every"),
    # diffusers' example scripts
    "instance_data_dir": Alias("data.folder"),
    "class_data_dir": Alias("data.regularisation"),
    "class_prompt": Alias("data.class_prompt"),
    "num_class_images": Alias("data.class_images"),
    "random_flip": Alias("data.flip"),
    "rank": Alias("adapter.rank"),
    "lora_alpha": Alias("adapter.alpha"),
    "lora_dropout": Alias("adapter.dropout"),
    "train_text_encoder": Alias("adapter.text_encoder"),
    "snr_gamma": Alias("training.min_snr_gamma"),
    "checkpointing_steps": Alias("training.checkpoint_every"),
    "checkpoints_total_limit": Alias("training.keep_checkpoints"),
    "validation_prompt": Alias("preview.prompts", lambda value: value if isinstance(value, list) else [value]),
    "assistant_lora_path": Alias("training.training_adapter"),  # ai-toolkit's
    "diff_output_preservation_multiplier": Alias("data.prior_prediction"),  # and these two, of DOP
    "diff_output_preservation_class": Alias("data.class_word"),
    "use_rslora": Alias("adapter.rank_stabilized"),  # PEFT's
    "rank_stabilized": Alias("adapter.rank_stabilized"),
    # The field's words for settings that are called otherwise here, with or without their section in front
    "regularization": Alias("data.regularisation"),
    "regularization_folder": Alias("data.regularisation"),
    "regularization_weight": Alias("data.regularisation_weight"),
    "unmasked_weight": Alias("data.outside"),  # OneTrainer's
    "validation_folder": Alias("data.held_out"),
    "validation_data_dir": Alias("data.held_out"),
    "gradient_clipping": Alias("training.clip"),
    "warmup_steps": Alias("training.warmup", _steps),
    "ema_decay": Alias("training.ema"),
}

_OPTIMIZERS = {
    "adamw": "adamw",
    "adamw8bit": "adamw-8bit",
    "pagedadamw8bit": "adamw-8bit",
    "lion": "lion",
    "lion8bit": "lion-8bit",
    "came": "came",
    "muon": "muon",
    "prodigyplusschedulefree": "prodigy-schedule-free",
    "prodigyschedulefree": "prodigy-schedule-free",
    "adafactor": "adafactor",
    "prodigy": "prodigy",
    "adamwschedulefree": "schedule-free-adamw",
}
_SCHEDULES = {
    "constant": "constant",
    "constant_with_warmup": "constant",
    "cosine": "cosine",
    "linear": "linear",
    "cosine_with_restarts": "cosine-restarts",
    "polynomial": "polynomial",
}


def _optimizer(value: Any) -> str:
    name = _OPTIMIZERS.get(str(value).rsplit(".", 1)[-1].lower())
    here = f"training.optimizer = {name}" if name else f"training.optimizer, one of {', '.join(_names(_OPTIMIZERS))}"
    return f"optimizers have settings of their own there: write {here}, and check training.learning_rate"


def _schedule(value: Any) -> str:
    name = _SCHEDULES.get(str(value).lower())
    here = f"training.schedule = {name}" if name else f"training.schedule, one of {', '.join(_names(_SCHEDULES))}"
    return f"schedules end elsewhere there (cosine at 0, here at a tenth of the rate): write {here}"


def _names(table: Mapping[str, str]) -> list[str]:
    return list(dict.fromkeys(table.values()))


# Names that mean something else there: what to write instead, by the value that was given.
REFUSED: dict[str, Callable[[Any], str]] = {
    "train_batch_size": lambda value: (
        f"it counts for each device there; training.batch_size counts for all together: on one device, {value}"
    ),
    "optimizer_type": _optimizer,
    "lr_scheduler": _schedule,
    "save_every_n_epochs": lambda value: "checkpoints are made by steps: training.checkpoint_every",
    "sample_every_n_epochs": lambda value: "previews are made by steps: preview.every",
    "caption_extension": lambda value: "captions are read from .txt and .caption, whichever is there: leave it out",
    "network_module": lambda value: "the type of adapter is adapter.kind: lora, dora, tucker, loha, lokr, oft or oftv2",
    "network_args": lambda value: "write what they say as settings: adapter.kind, adapter.targets, adapter.dropout",
    "random_crop": lambda value: (
        "it only moves what a bucket cuts there: write data.random_crop = 0.1, the share of a side that may be cut off"
    ),
    "color_aug": lambda value: "write data.color_jitter = 0.1, by how much brightness, contrast and saturation change",
    "secondary_separator": lambda value: "tags are what stands between commas here: write the captions so",
    "masked_loss": lambda value: (
        "masks come from NAME-masklabel.png or the alpha channel here: write data.masks = true"
    ),
    "v_parameterization": lambda value: "it belongs to the base: base = NAME?prediction_type=v_prediction",
    "zero_terminal_snr": lambda value: "it belongs to the base: base = NAME?zero_terminal_snr=true",
    "rescale_betas_zero_snr": lambda value: "it belongs to the base: base = NAME?zero_terminal_snr=true",
    "vae": lambda value: f"it belongs to the base: base = NAME?vae={value}",
    "t5xxl_max_token_length": lambda value: f"it belongs to the base: base = NAME?max_sequence_length={value}",
    "max_sequence_length": lambda value: f"it belongs to the base: base = NAME?max_sequence_length={value}",
    "timestep_sampling": lambda value: (
        "write training.timesteps = uniform or logit-normal (sigmoid there), with training.shift (shift there) or "
        "training.shift_by_resolution (flux_shift there)"
    ),
    "weighting_scheme": lambda value: (
        "it chooses timesteps or weights there: write training.timesteps = logit-normal, mode or cosmap"
    ),
    "loss_type": lambda value: (
        f"write training.loss = {value}" if value in ("l2", "huber") else "training.loss is l2 or huber here"
    ),
}


_SETTING = re.compile(r"\b(?:data|adapter|training|preview|validation|slider)\.[a-z_]+")


@cache
def names_elsewhere() -> dict[str, list[str]]:
    """What other programs call each setting, by its key here: names that are accepted, and those that are refused."""
    found: dict[str, list[str]] = {}
    for name, alias in ALIASES.items():
        found.setdefault(alias.key, []).append(name)
    for name, reason in REFUSED.items():
        for key in dict.fromkeys(_SETTING.findall(reason(""))):
            found.setdefault(key, []).append(name)
    return found


def resolve(values: Mapping[str, Any], known: set[str], report: Report | None = None) -> dict[str, Any]:
    """Dotted settings with the names of other programs replaced; what is given later wins.

    known   the settings' own names; any other is looked up by its last part, behind the section that it belongs to
            here, behind a section of another program's or none
    report  gets a line for each name that was replaced

    Raises ConfigError for a name that means something else here.
    """
    out: dict[str, Any] = {}
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        ours = section in {one.partition(".")[0] for one in known}
        misplaced = ours and leaf in ALIASES and not ALIASES[leaf].key.startswith(f"{section}.")
        if name in known or misplaced or leaf not in ALIASES | REFUSED:
            key, here = name, value
        elif leaf in REFUSED:
            raise ConfigError(f"{name}: {REFUSED[leaf](value)}.")
        else:
            alias = ALIASES[leaf]
            try:
                key, here = alias.key, value if value in (None, "") else alias.convert(value)
            except ConfigError as error:
                raise ConfigError(f"{name}: {error}") from error
            if report:
                report(f"{name} is {key} = {here if not isinstance(here, bool) else str(here).lower()} here.")
        out.pop(key, None)
        out[key] = here
    return out
