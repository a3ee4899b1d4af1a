"""RunConfig: the one schema of a run. The form, the TOML file, `--set` and the help all come from it. No torch here.

Its sections stand in `config_sections`.
"""

import tomllib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Self

import tomli_w
from pydantic import Field, ValidationError, model_validator

from studio.errors import ConfigError
from studio.schema import explain, settings_of
from studio.training import folders
from studio.training.aliases import Report, resolve
from studio.training.config_sections import (
    FIND_THEIR_RATE,
    SCHEDULE_FREE,
    AdapterConfig,
    DataConfig,
    PreviewConfig,
    Section,
    SliderConfig,
    TrainingConfig,
    ValidationConfig,
)
from studio.training.dataset_config import read_dataset_config
from studio.training.dataset_config import settings_of as settings_of_datasets
from studio.training.patterns import parsed

MOST_DOTS = 1000  # of a line of TOML: a key of 500,000 parts keeps Python's reader busy for half an hour


class RunConfig(Section):
    """A run, whole. `config_from` and `config_from_toml` make one and complain in one line."""

    name: str = Field("", max_length=80, description="The run's name, and its folder's.")
    base: str = Field(
        "starter",
        description="The base model: starter, a folder, a .safetensors file or owner/name on the hub; behind a ? what "
        "is taken otherwise, as in model.safetensors?prediction_type=v_prediction&resolution=768.",
    )
    data: DataConfig
    adapter: AdapterConfig = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    preview: PreviewConfig = PreviewConfig()
    validation: ValidationConfig = ValidationConfig()
    slider: SliderConfig = SliderConfig()

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        """Settings that contradict each other whatever the images and the machine are."""
        training = self.training
        if training.least_noise >= training.most_noise:
            raise ValueError("training.least_noise must be below training.most_noise")
        if training.optimizer in SCHEDULE_FREE and training.schedule != "constant":
            raise ValueError(f"{training.optimizer} needs no schedule: set training.schedule to constant")
        if training.optimizer in SCHEDULE_FREE and training.ema:
            raise ValueError(f"{training.optimizer} averages by itself: set training.ema to 0")
        if self.data.class_images and not self.data.class_prompt.strip():
            raise ValueError("data.class_images needs data.class_prompt: what the base draws")
        if self.data.class_images and self.data.regularisation:
            raise ValueError(
                "data.class_images and data.regularisation are two sources of regularization images: leave one out"
            )
        if training.optimizer in SCHEDULE_FREE and training.weights == "bf16":
            raise ValueError(f"{training.optimizer} averages in the weights themselves: set training.weights to fp32")
        try:
            patterns = parsed(self.adapter.patterns)
        except ValueError as error:
            raise ValueError(f"in adapter.patterns, {error}") from None
        try:
            folders.parsed(self.data.folders)
        except ValueError as error:
            raise ValueError(f"in data.folders, {error}") from None
        if self.adapter.targets == "patterns" and not any(one.rank != 0 for one in patterns):
            raise ValueError("adapter.targets = patterns needs a line in adapter.patterns that trains something")
        if training.debiased_estimation and training.min_snr_gamma:
            raise ValueError("two weightings at once: set training.min_snr_gamma to 0, or debiased_estimation to false")
        if training.shift_by_resolution and training.shift is not None:
            raise ValueError("training.shift_by_resolution finds the shift: leave training.shift empty")
        if self.adapter.init == "pissa" and self.adapter.kind not in ("lora", "dora"):
            raise ValueError(f"adapter.init = pissa does not go with {self.adapter.kind}: set adapter.init to standard")
        if self.adapter.targets == "no-text" and self.adapter.text_encoder:
            raise ValueError("adapter.targets = no-text trains no text encoder: set adapter.text_encoder to false")
        if training.optimizer in FIND_THEIR_RATE and any(one.learning_rate for one in patterns):
            raise ValueError(f"{training.optimizer} finds one rate for all: leave lr= out of adapter.patterns")
        if training.optimizer in FIND_THEIR_RATE and training.lora_plus > 1:
            raise ValueError(f"{training.optimizer} finds one rate for all: set training.lora_plus to 1")
        if training.warmup and training.warmup >= training.steps > 10:
            raise ValueError("training.warmup must be shorter than training.steps")
        if any((self.slider.positive, self.slider.negative, self.slider.target)):
            self._is_slider()
        if self.validation.stop and not self.validation.every:
            raise ValueError("validation.stop needs validations: set validation.every above 0")
        if self.validation.until_verdict and not (self.validation.every and self.validation.scorecard):
            raise ValueError("validation.until_verdict needs validation.every and validation.scorecard above 0")
        return self

    def _is_slider(self) -> None:
        """Raises ValueError for what a slider can't do."""
        slider, training = self.slider, self.training
        if not (slider.positive.strip() and slider.negative.strip() and slider.target.strip()):
            raise ValueError("slider.positive, slider.negative and slider.target go together: set all three")
        if self.adapter.text_encoder:
            raise ValueError("a slider trains no text encoder: set adapter.text_encoder to false")
        if self.data.class_images or self.data.prior_prediction:
            raise ValueError(
                "a slider keeps the rest by slider.preserve: leave data.class_images and data.prior_prediction at 0"
            )
        if not (slider.images or self.data.folder):
            raise ValueError("slider.images = 0 needs images of your own: set data.folder")
        if training.epochs is not None:
            raise ValueError("a slider has no epochs: set training.steps instead of training.epochs")
        if training.compile:
            raise ValueError("a slider can't be compiled: set training.compile to false")


def config_from(values: Mapping[str, Any], report: Report | None = None) -> RunConfig:
    """A RunConfig from dotted settings; texts are read as what the setting needs, and empty ones as the default.

    report: gets a line for each name of another program that was replaced, see `aliases`.

    Raises ConfigError with one line: "adapter.rank: must be at least 1 (you gave 0)."
    """
    try:
        return RunConfig.model_validate(_tree(resolved(values, report)))
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def resolved(values: Mapping[str, Any], report: Report | None = None) -> dict[str, Any]:
    """Dotted settings under their own names, without empty ones; see `config_from`. Raises ConfigError."""
    given = resolve(_with_dataset_config(values, report), _names(), report)
    return {key: value for key, value in given.items() if value is not None and value != ""}


def _with_dataset_config(values: Mapping[str, Any], report: Report | None, alone: bool = False) -> Mapping[str, Any]:
    """The settings with those of a dataset_config behind them, where one is named. Raises ConfigError."""
    named = [key for key in values if key.rpartition(".")[2] == "dataset_config"]
    if not named:
        return values
    if alone:
        raise ConfigError("names a dataset_config on another machine: leave that line out.")
    rest = {key: value for key, value in values.items() if key not in named}
    return read_dataset_config(Path(str(values[named[-1]])).expanduser(), report) | rest


def holds_every_setting(values: Mapping[str, Any]) -> bool:
    """Whether these are all settings of a run, as its run.toml holds them: what is missing there is empty, since TOML
    has no empty value, and no matter for a base's defaults. Older versions had fewer settings: half of them is enough.
    """
    return 2 * len(values) > len(_names())


@cache
def _names() -> set[str]:
    """Every setting by its dotted name."""
    return {name for name, _, _ in settings_of(RunConfig)}


def _tree(values: Mapping[str, Any]) -> dict[str, Any]:
    """{"adapter.rank": 4} as {"adapter": {"rank": 4}}. Raises ConfigError where a setting is taken for a section."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *path, leaf = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{key}: is not a setting.")
        branch[leaf] = value
    if values.get("slider.positive") and isinstance(data := tree.setdefault("data", {}), dict):
        data.setdefault("folder", "")  # the base draws what a slider is trained on
    return tree


def dotted(config: RunConfig) -> dict[str, Any]:
    """The settings as `config_from` takes them: {"adapter.rank": 16, …}."""
    out: dict[str, Any] = {}
    for key, value in config.model_dump().items():
        out |= {f"{key}.{leaf}": inner for leaf, inner in value.items()} if isinstance(value, dict) else {key: value}
    return out


def config_to_toml(config: RunConfig) -> str:
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def config_from_whole(values: Mapping[str, Any]) -> RunConfig:
    """A RunConfig from all its dotted settings, as `dotted` has them: empty ones stay empty. Raises ConfigError."""
    try:
        return RunConfig.model_validate(_tree(resolve(values, _names(), None)))
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def config_from_toml(
    path: str | Path, report: Report | None = None, unsaid: Mapping[str, Any] | None = None, alone: bool = False
) -> RunConfig:
    """Read run.toml, or a file with the names of another program, see `aliases`. Raises ConfigError.

    unsaid: dotted settings that count where the file does not say them. alone: it may name no other file to be read.
    """
    values = {**(unsaid or {}), **values_from_toml(path, report, alone)}
    try:
        return RunConfig.model_validate(_tree(values))
    except (ValidationError, ConfigError) as error:
        reason = explain(error) if isinstance(error, ValidationError) else str(error)
        raise ConfigError(f"{Path(path).name}: {reason}") from error


def values_from_toml(path: str | Path, report: Report | None = None, alone: bool = False) -> dict[str, Any]:
    """The settings that a file says, dotted, under their own names. Raises ConfigError."""
    try:
        text = Path(path).read_text("utf-8")
        if any(line.count(".") > MOST_DOTS for line in text.split("\n")):
            raise ConfigError(f"a line has more than {MOST_DOTS:,} dots.")
        tree = tomllib.loads(text)
        flat: dict[str, Any] = {}
        if "datasets" in tree:  # kohya's dataset_config itself
            return resolve(settings_of_datasets(tree, report), _names(), report)
        for key, value in tree.items():
            inside = value if isinstance(value, dict) else {}
            flat |= {f"{key}.{leaf}": inner for leaf, inner in inside.items()} or {key: value}
        return resolve(_with_dataset_config(flat, report, alone), _names(), report)
    except ConfigError as error:
        raise ConfigError(f"{Path(path).name}: {error}") from error
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError among them
        raise ConfigError(f"{Path(path).name} can't be read as TOML: {error}".splitlines()[0][:300]) from error
