"""Which setting acts where: what a run would ignore is said before it, what it can't do is refused before it.

A test compares this table with training itself, setting by setting.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Size

from studio.adapters.layers import can_train, is_whole_lokr, shape_of
from studio.basemodels import Family
from studio.basemodels.defaults import variant_of
from studio.errors import ConfigError
from studio.training.augmenting import augments
from studio.training.caption_variants import draws
from studio.training.config import RunConfig, config_from, dotted
from studio.training.config_sections import FIND_THEIR_RATE
from studio.training.folders import names_trigger, parsed
from studio.training.parameter_count import specs_of

ALPHA, OFTS = "adapter.alpha", ("oft", "oftv2")
Acts = Callable[[RunConfig, Family], bool]


@dataclass(frozen=True)
class Rule:
    """setting acts only where `acts` says so; needs: what it needs, in words."""

    setting: str
    needs: str
    acts: Acts


def _trains_text(config: RunConfig, base: Family) -> bool:
    return config.adapter.text_encoder and bool(base.trained_encoders)


def _previews(config: RunConfig, base: Family) -> bool:
    return config.preview.every > 0 and any(line.strip() for line in config.preview.prompts)


def _is_logit(config: RunConfig, base: Family) -> bool:
    wanted = config.training.timesteps
    return (base.usual_timesteps if wanted == "auto" else wanted) == "logit-normal"


RULES = (
    Rule(
        "training.warmup",
        "a schedule other than one-cycle, which warms up over 30 % of the steps by itself",
        lambda config, base: config.training.schedule != "one-cycle",
    ),
    Rule(
        "training.restarts",
        "training.schedule = cosine-restarts",
        lambda config, base: config.training.schedule == "cosine-restarts",
    ),
    Rule("training.huber_c", "training.loss = huber", lambda config, base: config.training.loss == "huber"),
    Rule("training.huber_schedule", "training.loss = huber", lambda config, base: config.training.loss == "huber"),
    Rule(
        "training.pyramid_discount",
        "training.pyramid_noise of 2 or more",
        lambda config, base: config.training.pyramid_noise > 1,
    ),
    *(
        Rule(f"training.logit_{key}", "training.timesteps = logit-normal", lambda config, base: _is_logit(config, base))
        for key in ("mean", "std")
    ),
    Rule("training.mode_scale", "training.timesteps = mode", lambda config, base: config.training.timesteps == "mode"),
    Rule(
        "training.shift_by_resolution",
        "a base that follows a flow, such as SD 3 or FLUX",
        lambda config, base: base.prediction_type == "flow",
    ),
    Rule(
        "training.text_encoder_stop",
        "adapter.text_encoder = true, and more steps than it",
        lambda config, base: _trains_text(config, base) and config.training.text_encoder_stop < config.training.steps,
    ),
    Rule(
        "training.shift",
        "a base that follows a flow, such as SD 3 or FLUX",
        lambda config, base: base.prediction_type == "flow",
    ),
    Rule(
        "training.lora_plus",
        "adapter.kind = lora, dora or tucker",
        lambda config, base: config.adapter.kind in ("lora", "dora", "tucker"),
    ),
    Rule(
        "training.text_encoder_rate",
        "adapter.text_encoder = true, and another optimizer than prodigy",
        lambda config, base: _trains_text(config, base) and config.training.optimizer not in FIND_THEIR_RATE,
    ),
    Rule(
        "adapter.text_encoder",
        "a base whose text encoder adapters are made for",
        lambda config, base: bool(base.trained_encoders),
    ),
    Rule(
        "adapter.rank_stabilized",
        "another adapter.kind than oft and oftv2, which have no scale",
        lambda config, base: config.adapter.kind not in OFTS,
    ),
    Rule("adapter.init_resize", "adapter.init_from", lambda config, base: bool(config.adapter.init_from)),
    Rule(
        "data.max_token_length",
        "a base that reads captions in chunks (Stable Diffusion 1, 2 and XL)",
        lambda config, base: base.reads_on,
    ),
    Rule(
        "data.clip_skip",
        "a base that takes its words from CLIP's layers (Stable Diffusion 1, 2 and XL)",
        lambda config, base: base.reads_on,
    ),
    Rule(
        "data.keep_tags",
        "data.shuffle_tags = true, or data.tag_dropout above 0",
        lambda config, base: config.data.shuffle_tags or config.data.tag_dropout > 0,
    ),
    Rule("data.protected_tags", "data.tag_dropout above 0", lambda config, base: config.data.tag_dropout > 0),
    Rule(
        "data.caption_draws",
        "data.shuffle_tags, data.wildcards or data.tag_dropout",
        lambda config, base: config.data.shuffle_tags or draws(config.data),
    ),
    Rule(
        "data.augmentations",
        "data.random_crop, data.color_jitter or data.rotation",
        lambda config, base: augments(config.data),
    ),
    Rule("data.outside", "data.masks = true", lambda config, base: config.data.masks),
    Rule(
        "data.regularisation_weight",
        "data.regularisation, or data.class_images above 0",
        lambda config, base: bool(config.data.regularisation or config.data.class_images),
    ),
    Rule("data.class_prompt", "data.class_images above 0", lambda config, base: config.data.class_images > 0),
    Rule("data.prior_prediction", "data.trigger", lambda config, base: names_trigger(config.data)),
    Rule(
        "data.class_word",
        "data.prior_prediction above 0, and data.trigger",
        lambda config, base: config.data.prior_prediction > 0 and names_trigger(config.data),
    ),
    Rule("data.held_out", "validation.every above 0", lambda config, base: config.validation.every > 0),
    Rule(
        "validation.fraction",
        "validation.every above 0 and no data.held_out",
        lambda config, base: config.validation.every > 0 and not config.data.held_out,
    ),
    *(
        Rule(f"preview.{key}", "preview.every above 0 and a prompt", _previews)
        for key in ("seed", "steps", "guidance", "guidance_rescale", "prompts")
    ),
)


def without_effect(config: RunConfig, base: Family) -> list[str]:
    """A line for each setting that is not at its default and that this run ignores."""
    given, usual = dotted(config), _defaults()
    lines = [
        f"{rule.setting} has no effect here: it needs {rule.needs}."
        for rule in RULES
        if given[rule.setting] != usual[rule.setting] and not rule.acts(config, base)
    ]
    training = config.training
    if training.warmup >= training.steps and training.schedule != "one-cycle":
        lines.append(
            f"The full learning rate is never reached: training.warmup is {training.warmup}, of {training.steps} steps."
        )
    lines += _about_lokr(config, base) + _about_slider(config)
    if config.adapter.kind in OFTS and config.adapter.alpha not in (None, variant_of(config.base).settings.get(ALPHA)):
        lines.append("adapter.alpha has no effect here: OFT turns weights and has no scale.")
    if config.data.repeats > 1 and not any(line.repeats for line in parsed(config.data.folders)):
        lines.append(
            "data.repeats has no effect: it repeats all images alike, and training.steps says how long the run is. "
            "Folders called 10_name repeat some of them."
        )
    return lines


# What a slider does not use: its goal is the base's own prediction, for three prompts of its own.
NOT_OF_A_SLIDER = (
    *(f"training.{key}" for key in ("loss", "min_snr_gamma", "debiased_estimation", "input_perturbation")),
    *(f"data.{key}" for key in ("trigger", "shuffle_tags", "masks", "regularisation")),
    "validation.stop",
    "validation.until_verdict",
)


def _about_slider(config: RunConfig) -> list[str]:
    """A line on settings of a slider that neither the schema nor its base brings along, and that it does not use."""
    if not config.slider.positive:
        return []
    given, usual = dotted(config), {**_defaults(), **variant_of(config.base).settings}
    unused = [key for key in NOT_OF_A_SLIDER if given[key] != usual[key]]
    return [f"A slider does not use {', '.join(unused)}."] if unused else []


def _about_lokr(config: RunConfig, base: Family) -> list[str]:
    """A line where LoKr's factors are whole: rank and alpha, which people choose, say nothing there."""
    if config.adapter.kind != "lokr":
        return []
    modules, shapes = base.modules(), list[Size]()
    for part, spec in specs_of(config.adapter, base).items():
        layers = modules[part].named_modules()
        shapes += [shape_of(layer) for path, layer in layers if path and can_train(layer) and spec.wants(path)]
    whole = sum(is_whole_lokr(shape, config.adapter.rank) for shape in shapes)
    if not whole:
        return []
    rank = f"adapter.rank {config.adapter.rank}"
    if whole == len(shapes):
        return [f"adapter.alpha has no effect here, nor has a higher rank: LoKr's factors are whole at {rank}."]
    return [
        f"adapter.alpha has no effect on {whole} of {len(shapes)} layers, nor has a higher rank: LoKr's factors are "
        f"whole there at {rank}."
    ]


def refuse(config: RunConfig, base: Family) -> None:
    """Raises ConfigError for what this base can't be trained with, before anything is encoded."""
    if config.training.min_snr_gamma and base.prediction_type == "flow":
        raise ConfigError(f"Min-SNR weighting has no meaning for {base.title}: set training.min_snr_gamma to 0.")
    if config.training.debiased_estimation and base.prediction_type == "flow":
        raise ConfigError(f"Debiased estimation has no meaning for {base.title}: set it to false.")
    if config.adapter.targets.startswith("sdxl-") and base.pipeline_class != "StableDiffusionXLPipeline":
        raise ConfigError(f"adapter.targets = {config.adapter.targets} names blocks of SDXL: choose others here.")
    step = base.multiple
    for key, side in (
        ("data.resolution", config.data.resolution or base.resolution),
        *(("data.more_resolutions", side) for side in config.data.more_resolutions),
    ):
        if not config.data.buckets and side % step:
            near = max(step, round(side / step) * step)
            raise ConfigError(f"{key} must be a multiple of {step} for {base.title}: take {near}, not {side}.")


def foreign_defaults(config: RunConfig, base: Family) -> list[str]:
    """A line where a run has the schema's defaults, which were made for a small base, and its base has others."""
    keys = ("training.learning_rate", "training.steps", "adapter.targets")
    given, usual, own = dotted(config), _defaults(), variant_of(config.base).settings
    if not own or any(given[key] != usual[key] for key in keys):
        return []
    listed = ", ".join(f"{key} {given[key]}" for key in keys)
    return [f"These are the starter's settings ({listed}), and {base.title} is another model: choose a preset for it."]


def about_distilled(config: RunConfig) -> list[str]:
    """A line where a distilled base is trained without a training adapter, or another base with one."""
    variant, given = variant_of(config.base), bool(config.training.training_adapter)
    if variant.distilled and not given:
        return [
            f"{variant.title} is distilled, and training undoes that: the longer, the more blurred are its few steps. "
            "Set training.training_adapter to a training adapter for it, or keep the run short."
        ]
    if given and not variant.distilled:
        return [f"training.training_adapter is for distilled bases, and {variant.title} is none: leave it out."]
    return []


def _defaults() -> dict[str, Any]:
    return dotted(config_from({"data.folder": "x"}))
