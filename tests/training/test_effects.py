"""The table of which setting acts where, against training itself: what it calls ignored changes no bit, what it doesn't
changes the adapter.
"""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from studio.basemodels import load_base
from studio.errors import ConfigError
from studio.training import config_from, train
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.config_sections import AdapterConfig, TrainingConfig
from studio.training.distributed import Distributed
from studio.training.effects import RULES, refuse, without_effect
from studio.training.events import Finished, Started, Warned
from studio.training.examples import BatchLoader, encode_missing, list_examples
from studio.training.preflight import preflight
from studio.training.selection import split
from studio.training.train_step import TrainStep
from studio.workspace import Workspace
from tests import tiers
from tests.basemodels import tiny

STEPS = 4


@pytest.fixture(scope="module")
def bases(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("bases"), {}

    def base(name):
        if name not in made:
            made[name] = load_base(str(tiny.save(name, root)), shared=False)
        return made[name]

    return base


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("zsk, red, green, blue, white, black")
        if number < 2:
            Image.linear_gradient("L").resize((64, 64)).save(folder / f"{number}-masklabel.png")
    other = folder.parent / "kind"
    other.mkdir(exist_ok=True)
    Image.fromarray(draw.integers(0, 255, (64, 64, 3), np.uint8)).save(other / "other.png")
    return folder


@pytest.fixture(scope="module")
def trained(bases, images, tmp_path_factory):
    """trained(base, settings): the adapter's numbers after STEPS steps, and what the table calls ignored."""
    cache, known = Cache(tmp_path_factory.mktemp("cache")), {}

    def train_a_little(name, settings):
        key = (name, repr(sorted(settings.items())))
        if key in known:
            return known[key]
        base = bases(name)
        usual = {
            "data.folder": str(images),
            "training.steps": STEPS,
            "training.batch_size": 2,
            "training.warmup": 0,
            "adapter.rank": 2,
            "adapter.targets": "attention",
            "training.learning_rate": 1e-2,
            "preview.every": 0,
            "data.caption_dropout": 0,
            "validation.every": 0,
        }
        config = config_from(usual | settings)
        chosen, stop = split(config), threading.Event()
        own, _ = list_examples(chosen.items, base, cache, config.data, 0)
        other, _ = list_examples(chosen.regularization, base, cache, config.data, 0, True)
        list(encode_missing(own + other, base, cache, Distributed(), stop, config.data))
        train_step = TrainStep(config, base, Distributed())
        try:
            reader = BatchLoader(base, cache, config.data, texts=not train_step.trains_text)
            plan = BatchSampler(own + other, config.training.batch_size, config.training.seed, config.data)
            for step in range(1, STEPS + 1):
                train_step.step(step, plan, reader, 1.0)
            with train_step.evaluation_weights():
                values = train_step.values()
        finally:
            for adapter in train_step.adapters.values():
                adapter.detach()
        ignored = {line.split(" ")[0] for line in without_effect(config, base) if "no effect" in line}
        known[key] = values, ignored
        return known[key]

    return train_a_little


def same(one, other) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


KIND = {"data.regularisation": "kind"}
TEXT = {"adapter.text_encoder": True}
MASKS = {"data.masks": True}
# setting, another value, base, where it is ignored, where it acts (None: nowhere, or everywhere)
CASES = [
    ("training.warmup", 3, "sd1", {"training.schedule": "one-cycle"}, {}),
    ("training.restarts", 2, "sd1", {}, {"training.schedule": "cosine-restarts"}),
    ("training.huber_c", 0.5, "sd1", {}, {"training.loss": "huber"}),
    ("training.huber_schedule", "snr", "sd1", {}, {"training.loss": "huber"}),
    ("training.pyramid_discount", 0.8, "sd1", {"training.pyramid_noise": 1}, {"training.pyramid_noise": 4}),
    ("training.logit_mean", 1.0, "sd1", {}, {"training.timesteps": "logit-normal"}),
    ("training.logit_std", 2.0, "sd1", {"training.timesteps": "mode"}, {"training.timesteps": "logit-normal"}),
    ("training.mode_scale", 0.5, "sd1", {"training.timesteps": "cosmap"}, {"training.timesteps": "mode"}),
    ("training.shift_by_resolution", True, "sd1", {}, None),
    ("training.shift_by_resolution", True, "flux-dev", None, {}),
    ("training.text_encoder_stop", 2, "sd1", {}, TEXT),
    ("training.shift", 3.0, "sd1", {}, None),
    ("training.shift", 2.0, "z-image", None, {}),
    ("training.lora_plus", 16, "sd1", {"adapter.kind": "loha"}, {}),
    ("training.lora_plus", 16, "sd1", {"adapter.kind": "lokr"}, {"adapter.kind": "dora"}),
    ("training.lora_plus", 16, "sd1", None, {"adapter.kind": "tucker"}),
    ("training.text_encoder_rate", 0.5, "sd1", {}, TEXT),
    ("training.text_encoder_rate", 0.5, "sd1", TEXT | {"training.optimizer": "prodigy"}, None),
    ("training.text_encoder_rate", 0.5, "z-image", TEXT, None),
    ("adapter.text_encoder", True, "z-image", {}, None),
    ("adapter.text_encoder", True, "sd1", None, {}),
    ("adapter.rank_stabilized", True, "sd1", {"adapter.kind": "oft"}, {"adapter.rank": 4}),
    ("adapter.rank_stabilized", True, "sd1", None, {"adapter.kind": "lokr"}),
    ("data.keep_tags", 3, "sd1", {}, {"data.shuffle_tags": True}),
    ("data.keep_tags", 3, "sd1", None, {"data.tag_dropout": 0.7}),
    ("data.protected_tags", "green, blue", "sd1", {}, {"data.tag_dropout": 0.7}),
    ("data.caption_draws", 3, "sd1", {}, {"data.shuffle_tags": True}),
    ("data.augmentations", 2, "sd1", {}, {"data.rotation": 20}),
    ("data.max_token_length", 4, "sd1", None, {}),
    ("data.max_token_length", 4, "z-image", {}, None),
    ("data.clip_skip", 2, "sd1", None, {}),
    ("data.clip_skip", 2, "z-image", {}, None),
    ("data.outside", 0.7, "sd1", {}, MASKS),
    ("data.regularisation_weight", 3.0, "sd1", {}, KIND),
    ("data.prior_prediction", 2.0, "sd1", {}, {"data.trigger": "zsk"}),
    (
        "data.class_word",
        "toy",
        "sd1",
        {"data.prior_prediction": 1},
        {"data.trigger": "zsk", "data.prior_prediction": 1},
    ),
    ("adapter.alpha", 1.0, "sd1", {"adapter.kind": "lokr", "adapter.rank": 64}, {"adapter.kind": "lokr"}),
]


@pytest.mark.parametrize(
    ("setting", "value", "base", "off", "on"),
    [case if number % 12 == 0 else tiers.in_full(*case) for number, case in enumerate(CASES)],
)
def test_a_setting_acts_where_the_table_says_and_nowhere_else(trained, images, setting, value, base, off, on):
    kind = {"data.regularisation": str(images.parent / "kind")}
    for where, acts in ((off, False), (on, True)):
        if where is None:
            continue
        where = kind if where is KIND else where
        without, _ = trained(base, where)
        with_it, ignored = trained(base, where | {setting: value})
        assert same(without, with_it) is not acts, f"{setting} with {where}"
        assert (setting in ignored) is not acts


def test_every_rule_of_training_is_tried():
    tried = {case[0] for case in CASES}
    others = {rule.setting for rule in RULES if rule.setting.split(".")[0] in ("preview", "validation")}
    elsewhere = {"data.held_out", "adapter.init_resize", "data.class_prompt"}  # in test_init_from, test_class_images
    assert {rule.setting for rule in RULES} | {"adapter.alpha"} == tried | others | elsewhere


# What acts always, with a value that shows it; the others are about time, memory and files.
ALWAYS = {
    "batch_size": 3,
    "accumulation": 2,
    "learning_rate": 5e-3,
    "optimizer": "lion",
    "weight_decay": 0.9,
    "schedule": "linear",
    "clip": 1e-3,
    "seed": 1,
    "loss": "huber",
    "min_snr_gamma": 1.0,
    "debiased_estimation": True,
    "pyramid_noise": 4,
    "noise_offset": 0.5,
    "input_perturbation": 0.5,
    "timesteps": "logit-normal",
    "least_noise": 0.3,
    "most_noise": 0.5,
    "ema": 0.5,
    "weights": "bf16",
    "rank": 3,
    "alpha": 1.0,
    "kind": "dora",
    "init": "pissa",
    "targets": "all",
    "dropout": 0.5,
}
NOT_OF_THE_RESULT = {
    "init_from",
    "init_resize",
    "training_adapter",  # see test_training_adapter
    "patterns",
    "epochs",
    "steps",
    "precision",
    "gradient_checkpointing",
    "compile",
    "checkpoint_every",
    "keep_checkpoints",
    "tensorboard",
}


@pytest.mark.full
@pytest.mark.parametrize("key", ALWAYS)
def test_what_no_rule_names_acts(trained, key):
    section = "training" if key in TrainingConfig.model_fields else "adapter"
    assert not same(trained("sd1", {})[0], trained("sd1", {f"{section}.{key}": ALWAYS[key]})[0])


def test_every_setting_of_training_and_adapter_is_tried():
    settings = set(TrainingConfig.model_fields) | set(AdapterConfig.model_fields)
    assert settings == set(ALWAYS) | NOT_OF_THE_RESULT | {case[0].split(".")[1] for case in CASES} & settings


OF_SNR = ("min_snr_gamma", "debiased_estimation")  # which flows have no use for
# Where a setting of ALWAYS might stop to act: on another base, with another optimizer or schedule, one after another.
ELSEWHERE = [
    *(({"base": base}, key) for base in ("z-image", "sd2-v", "sdxl") for key in ALWAYS if key not in OF_SNR),
    *(({"base": "sdxl"}, key) for key in OF_SNR),
    ({"base": "sd2-v"}, "min_snr_gamma"),
    *(
        ({"training.optimizer": optimizer}, key)
        for optimizer in ("adafactor", "lion", "prodigy", "schedule-free-adamw")
        for key in ("learning_rate", "weight_decay", "clip", "ema", "accumulation", "lora_plus", "warmup", "schedule")
    ),
    *(
        ({"training.schedule": schedule}, key)
        for schedule in ("constant", "cosine", "cosine-restarts", "linear", "polynomial", "one-cycle")
        for key in ("learning_rate", "warmup", "restarts", "ema")
    ),
]


def name_of(value):
    return "-".join(map(str, value.values())) if isinstance(value, dict) else value


@pytest.mark.full
@pytest.mark.parametrize(("where", "key"), ELSEWHERE, ids=name_of)
def test_a_setting_acts_elsewhere_or_the_run_says_that_it_does_not(trained, where, key):
    where = dict(where)
    base = where.pop("base", "sd1")
    if where.get("training.optimizer") == "schedule-free-adamw":
        where["training.schedule"] = "constant"
    if where.get("training.optimizer") == "prodigy":
        where["training.learning_rate"] = 1.0  # as it needs it: with less, its decay is below what float32 resolves
    section = "training" if key in TrainingConfig.model_fields else "adapter"
    others = {"warmup": 3, "restarts": 2, "lora_plus": 16, "schedule": "linear"}
    others |= {"timesteps": "uniform"} if base == "z-image" else {}  # logit-normal is what auto means there
    given = where | {f"{section}.{key}": (ALWAYS | others)[key]}
    try:
        with_it, ignored = trained(base, given)
    except ConfigError:
        return  # refused, in a sentence
    without, _ = trained(base, where)
    assert same(without, with_it) is (f"{section}.{key}" in ignored)


@pytest.mark.full
@pytest.mark.parametrize("kind", ["loha", "lokr", "tucker", "dora"])
@pytest.mark.parametrize("key", ["alpha", "dropout"])
def test_alpha_and_dropout_act_on_every_kind(trained, kind, key):
    where = {"adapter.kind": kind}
    assert not same(trained("sd1", where)[0], trained("sd1", where | {f"adapter.{key}": ALWAYS[key]})[0])


@pytest.mark.parametrize(
    ("name", "settings", "part"),
    [
        ("z-image", {"training.min_snr_gamma": 5}, "no meaning for Z-Image"),
        tiers.in_full("sd1", {"data.buckets": False, "data.resolution": 100}, "must be a multiple of 16"),
    ],
)
def test_what_a_base_cannot_do_is_refused_before_anything_is_encoded(bases, images, tmp_path, name, settings, part):
    base = bases(name)
    config = config_from({"data.folder": str(images), "base": str(base.folder), "name": "x", **settings})
    with pytest.raises(ConfigError, match=part):
        refuse(config, base)
    workspace = Workspace.open(tmp_path)
    assert any(part in finding.message for finding in preflight(config, workspace).findings if finding.level == "stop")
    with pytest.raises(ConfigError, match=part):
        list(train(config, workspace))


def test_a_run_says_what_it_leaves_out_cuts_ignores_and_reads_as_words(bases, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for name, size in (("good", (64, 64)), ("long", (4000, 40)), ("thin", (200, 1)), ("dot", (1, 1))):
        Image.new("RGB", size, "red").save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text("zsk, girl ||| blue sky, {red|crimson}")
    (folder / "good.txt").write_text("one\ntwo\nthree\n" + "far too long " * 80)
    Image.new("RGB", (64, 64)).save(folder / "video.tga")
    (folder / "notes.md").write_text("x")
    config = config_from(
        {
            "name": "x",
            "data.folder": str(folder),
            "base": str(bases("sd1").folder),
            "training.steps": 2,
            "training.warmup": 4,
            "training.shift": 3.0,
            "preview.every": 0,
            "validation.every": 0,
            "preview.prompts": ["red apple --n blurry --w 256 --h 64 --ss euler_a --fs 3"],
            "adapter.rank": 2,
            "adapter.targets": "attention",
            "data.keep_tags": 4,
            "training.batch_size": 1,
            "data.max_token_length": 100,
        }
    )
    workspace = Workspace.open(tmp_path / "workspace")
    events = list(train(config, workspace))
    assert isinstance(events[-1], Finished)
    started = next(event for event in events if isinstance(event, Started))
    assert "4 images, 1 file left out, 1 file of another kind (notes.md)" in started.setup
    said = "\n".join(event.message for event in events if isinstance(event, Warned))
    parts = [
        "video.tga: .tga files are not read",
        "dot.png has 1 × 1 pixels",
        "thin.png has 200 × 1 pixels",
        "long.png the most: 97% of it is lost",
        "|||, the separator behind",
        "{a|b}, a choice of words",
        "1 caption file of several lines, good.png",
        "1 caption longer than data.max_token_length, 100 tokens",
        "flags that have no effect here (--ss, --fs)",
        "training.shift has no effect here",
        "data.keep_tags has no effect here",
        "full learning rate is never reached",
    ]
    assert not [part for part in parts if part not in said], said
    found = "\n".join(finding.message for finding in preflight(config, workspace).findings)
    assert not [part for part in parts if part not in found], found
    assert "4 images, 1" in found and "2 images, each seen 1.0 times" in found


@pytest.mark.full
def test_masks_and_validation_that_nothing_is_there_for_are_said(bases, images, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(3):
        Image.new("RGB", (64, 64), (80 * number, 0, 0)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("zsk")
    config = config_from(
        {
            "data.folder": str(folder),
            "base": str(bases("sd1").folder),
            "training.steps": 1,
            "training.warmup": 0,
            "preview.every": 0,
            "validation.stop": True,
            "data.masks": True,
            "adapter.rank": 2,
            "adapter.targets": "attention",
        }
    )

    def said(number):
        workspace = Workspace.open(tmp_path / f"workspace{number}")
        run = [event.message for event in train(config, workspace) if isinstance(event, Warned)]
        found = [finding.message for finding in preflight(config, workspace).findings]
        assert [line for line in found if line.startswith(("data.masks", "No mask"))] == [
            line for line in run if line.startswith(("data.masks", "No mask"))
        ]
        return run

    assert "data.masks has no effect: no image has an alpha channel or a -masklabel.png beside it." in said(1)
    assert "validation.stop has no effect: it needs images held out." in said(2)
    Image.new("L", (64, 64)).save(folder / "1-masklabel.png")
    Image.new("RGBA", (64, 64)).save(folder / "0.png")
    assert "No mask, so all of it counts: 1 image, 2.png among them." in said(3)


def test_the_starters_settings_on_another_base_are_said(bases, images, tmp_path):
    from studio.training.effects import foreign_defaults

    base = bases("sd1")
    config = config_from({"data.folder": str(images), "base": str(base.folder)})
    assert "choose a preset" in foreign_defaults(config, base)[0]
    assert not foreign_defaults(config_from({"data.folder": str(images), "training.learning_rate": 1e-4}), base)
