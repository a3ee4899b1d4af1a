"""RunConfig: the one schema of a run. The form, the TOML file, `--set` and the help all come from it. No torch here."""

import tomllib
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import ConfigError
from studio.schema import explain


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(_Section):
    folder: str = Field(description="The folder of pictures and captions.")
    trigger: str = Field("", max_length=80, description="A word put before every caption that lacks it.")
    held_out: str = Field("", description="A folder of pictures never trained on, to measure on. Empty: a share is.")
    caption_dropout: float = Field(0.05, ge=0, le=1, description="Share of steps that see no caption.")
    flip: bool = Field(False, description="Also train on mirrored pictures. Not for text or one-sided things.")


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


class TrainingConfig(_Section):
    steps: int = Field(200, ge=1, le=1_000_000, description="How many times the adapter is adjusted.")
    batch_size: int = Field(4, ge=1, le=256, description="Pictures a step.")
    learning_rate: float = Field(1e-3, gt=0, le=10, description="How far each step goes. Too high: noise.")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="How the rate goes after the warm-up.")
    warmup: int = Field(10, ge=0, le=10_000, description="Steps until the full learning rate.")
    seed: int = Field(0, ge=0, lt=2**31, description="The same seed gives the same run.")
    min_snr_gamma: float = Field(0.0, ge=0, le=100, description="Min-SNR weighting; 5 is usual, 0 is off.")
    checkpoint_every: int = Field(100, ge=1, le=1_000_000, description="Steps between checkpoints.")


class PreviewConfig(_Section):
    every: int = Field(50, ge=0, le=1_000_000, description="Steps between previews. 0: none.")
    prompts: list[str] = Field(
        ["red apple, on a yellow background", "fish, on a pink background"],
        max_length=12,
        description="What the previews show; one picture each.",
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
    fraction: float = Field(0.1, ge=0, le=0.5, description="Share of the pictures held out when no folder is.")


class RunConfig(_Section):
    """A run, whole. `config_from` and `config_from_toml` make one and complain in one line."""

    name: str = Field("", max_length=80, description="The run's name, and its folder's.")
    base: str = Field("starter", description="The base model.")
    data: DataConfig
    adapter: AdapterConfig = AdapterConfig()
    training: TrainingConfig = TrainingConfig()
    preview: PreviewConfig = PreviewConfig()
    validation: ValidationConfig = ValidationConfig()


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


def config_to_toml(config: RunConfig) -> str:
    return tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))


def config_from_toml(path: str | Path) -> RunConfig:
    """Read run.toml. Raises ConfigError."""
    try:
        tree = tomllib.loads(Path(path).read_text("utf-8"))
        return RunConfig.model_validate(tree)
    except ValidationError as error:
        raise ConfigError(f"{Path(path).name}: {explain(error)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{Path(path).name} can't be read as TOML: {error}".splitlines()[0]) from error
