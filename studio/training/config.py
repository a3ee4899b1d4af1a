"""RunConfig: the one schema of a run. The form, the TOML file, `--set` and the help all come from it. No torch here."""

import tomllib
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from studio.errors import ConfigError
from studio.schema import explain

Optimizer = Literal["adamw", "adamw-8bit", "adafactor", "lion", "prodigy", "schedule-free-adamw"]
Schedule = Literal["constant", "cosine", "cosine-restarts", "linear", "polynomial", "one-cycle"]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    folder: str = Field(description="The folder of pictures and captions.")
    trigger: str = Field("", max_length=80, description="A word put before every caption that lacks it.")
    held_out: str = Field("", description="A folder of pictures never trained on, to measure on. Empty: a share is.")
    resolution: int = Field(0, ge=0, le=4096, description="Side in pixels to train at. 0: the base model's own.")
    buckets: bool = Field(True, description="Keep each picture's shape, near to it. Off: cut all to squares.")
    upscale: bool = Field(False, description="Enlarge pictures that are smaller than the resolution.")
    repeats: int = Field(1, ge=1, le=1000, description="Times each picture is shown a round; 10_name folders say 10.")
    flip: bool = Field(False, description="Also train on mirrored pictures. Not for text or one-sided things.")
    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of pictures shown without their caption.")
    shuffle_tags: bool = Field(False, description="Show the tags between commas in another order each time.")
    keep_tags: int = Field(1, ge=0, le=100, description="Tags in front that stay there when the others are shuffled.")
    regularisation: str = Field("", description="A folder of ordinary pictures of the kind, so that it stays known.")
    regularisation_weight: float = Field(1.0, ge=0, le=100, description="How much those count in the loss.")
    masks: bool = Field(False, description="Learn where NAME-masklabel.png, or the picture's alpha, is bright.")
    outside: float = Field(0.1, ge=0, le=1, description="How much the loss counts outside a mask.")


class AdapterConfig(_Section):
    kind: Literal["lora", "dora", "tucker", "loha", "lokr"] = Field(
        "lora", description="LoRA; DoRA (length learned apart from direction); Tucker, LoHa, LoKr (other products)."
    )
    rank: int = Field(16, ge=1, le=256, description="Size of the adapter: more learns more detail, and more by heart.")
    alpha: float | None = Field(None, gt=0, description="The update is scaled by alpha / rank. Empty: as the rank.")
    targets: Literal["attention", "attention+feed-forward", "all"] = Field(
        "all", description="Which layers learn. All: convolutions too, which small bases need for style."
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="Share of inputs hidden from the adapter while it trains.")
    text_encoder: bool = Field(False, description="Train the text encoder's attention and feed-forward layers too.")


class TrainingConfig(_Section):
    steps: int = Field(200, ge=1, le=1_000_000, description="How many times the adapter is adjusted.")
    batch_size: int = Field(4, ge=1, le=1024, description="Pictures a step, on all devices together.")
    accumulation: int = Field(1, ge=1, le=1024, description="Batches a step: as a larger batch, in less memory.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="How far each step goes. Too high: noise.")
    text_encoder_rate: float | None = Field(None, gt=0, le=10, description="The text encoder's rate. Empty: a tenth.")
    lora_plus: float = Field(1.0, ge=1, le=64, description="LoRA+: B learns this many times faster; 16 is usual.")
    optimizer: Optimizer = Field("adamw", description="AdamW is safe; Prodigy finds its own rate (give it 1).")
    weight_decay: float = Field(0.01, ge=0, le=1, description="How strongly unused weights shrink.")
    schedule: Schedule = Field("cosine", description="How the rate goes after the warm-up.")
    warmup: int = Field(10, ge=0, le=100_000, description="Steps until the full learning rate.")
    restarts: int = Field(3, ge=1, le=100, description="Waves of cosine-restarts.")
    clip: float = Field(1.0, ge=0, le=1000, description="Longest gradient; longer ones are shortened. 0: off.")
    seed: int = Field(0, ge=0, lt=2**31, description="The same seed gives the same run.")
    loss: Literal["l2", "huber"] = Field("l2", description="Huber minds outliers less.")
    huber_c: float = Field(0.1, gt=0, le=10, description="The error from which Huber grows slower.")
    min_snr_gamma: float = Field(0.0, ge=0, le=100, description="Min-SNR weighting; 5 is usual, 0 is off.")
    noise_offset: float = Field(0.0, ge=0, le=1, description="For very dark or bright pictures; 0.05 is usual.")
    input_perturbation: float = Field(0.0, ge=0, le=1, description="Extra noise on the input only; 0.1 is usual.")
    timesteps: Literal["auto", "uniform", "logit-normal"] = Field(
        "auto", description="Which noise is trained at. Auto: as the base was; logit-normal: mostly mid noise."
    )
    shift: float | None = Field(
        None, ge=0.1, le=20, description="Flow models: above 1, more of the training at much noise. Empty: the base's."
    )
    least_noise: float = Field(0.0, ge=0, lt=1, description="Share of the noise schedule where training begins.")
    most_noise: float = Field(1.0, gt=0, le=1, description="Share of the noise schedule where training ends.")
    ema: float = Field(0.0, ge=0, lt=1, description="Average the adapter over steps; 0.99 is usual, 0 is off.")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field("auto", description="Auto: what the device does well.")
    gradient_checkpointing: bool = Field(False, description="Less memory, about a third slower.")
    compile: bool = Field(False, description="Compile the model's blocks: a slow start, then faster steps. For GPUs.")
    checkpoint_every: int = Field(100, ge=1, le=1_000_000, description="Steps between checkpoints.")
    keep_checkpoints: int = Field(20, ge=1, le=10_000, description="How many checkpoints stay; the best is kept apart.")
    tensorboard: bool = Field(False, description="Also write what TensorBoard reads.")


class PreviewConfig(_Section):
    every: int = Field(50, ge=0, le=1_000_000, description="Steps between previews. 0: none.")
    prompts: list[str] = Field(
        ["red apple, on a yellow background", "fish, on a pink background"],
        max_length=12,
        description="What the previews show; one picture each. Ending in @0.5: at that strength.",
    )
    seed: int = Field(0, ge=0, lt=2**63, description="The previews' seed: always the same, to compare.")
    steps: int = Field(15, ge=1, le=200, description="Denoising steps of a preview.")
    guidance: float = Field(4.0, ge=0, le=30, description="How closely a preview follows its prompt.")

    @field_validator("prompts")
    @classmethod
    def _not_too_long(cls, prompts: list[str]) -> list[str]:
        if any(len(prompt) > 4000 for prompt in prompts):
            raise ValueError("a preview prompt must have at most 4000 characters")
        return prompts


class ValidationConfig(_Section):
    every: int = Field(50, ge=0, le=1_000_000, description="Steps between looks at the held-out pictures. 0: none.")
    fraction: float = Field(0.1, ge=0, le=0.5, description="Share held out when no folder is; at most 64 pictures.")
    stop: bool = Field(False, description="Stop when the held-out loss rises for good; the best is kept anyway.")


class RunConfig(_Section):
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

    @model_validator(mode="after")
    def _goes_together(self):
        """Settings that contradict each other whatever the pictures and the machine are."""
        training = self.training
        if training.least_noise >= training.most_noise:
            raise ValueError("training.least_noise must be below training.most_noise")
        if training.optimizer == "schedule-free-adamw" and training.schedule != "constant":
            raise ValueError("schedule-free-adamw needs no schedule: set training.schedule to constant")
        if training.optimizer == "schedule-free-adamw" and training.ema:
            raise ValueError("schedule-free-adamw averages by itself: set training.ema to 0")
        if training.optimizer == "prodigy" and training.lora_plus > 1:
            raise ValueError("prodigy finds one rate for all: set training.lora_plus to 1")
        if training.warmup and training.warmup >= training.steps > 10:
            raise ValueError("training.warmup must be shorter than training.steps")
        if self.validation.stop and not self.validation.every:
            raise ValueError("validation.stop needs looks at held-out pictures: set validation.every above 0")
        return self


def config_from(values: dict[str, Any]) -> RunConfig:
    """A RunConfig from dotted settings; texts are read as what the setting needs, and empty ones as the default.

    Raises ConfigError with one line: "adapter.rank: must be at least 1 (you gave 0)."
    """
    tree: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == "":
            continue
        *path, leaf = key.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
            if not isinstance(branch, dict):
                raise ConfigError(f"{key}: is not a setting.")
        branch[leaf] = value
    try:
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error


def dotted(config: RunConfig) -> dict[str, Any]:
    """The settings as `config_from` takes them: {"adapter.rank": 16, …}."""
    out: dict[str, Any] = {}
    for key, value in config.model_dump().items():
        out |= {f"{key}.{leaf}": inner for leaf, inner in value.items()} if isinstance(value, dict) else {key: value}
    return out


def config_to_toml(config: RunConfig) -> str:
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def config_from_toml(path: str | Path) -> RunConfig:
    """Read run.toml. Raises ConfigError."""
    try:
        tree = tomllib.loads(Path(path).read_text("utf-8"))
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{Path(path).name}: {explain(error)}") from error
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError among them
        raise ConfigError(f"{Path(path).name} can't be read as TOML: {error}".splitlines()[0][:300]) from error
