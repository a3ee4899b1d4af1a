"""What decides a picture's pixels, checked when it is made."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import GenerationError
from studio.generation.schedulers import NAMES, OWN
from studio.generation.uses import Uses
from studio.schema import explain

SIDES = (64, 2048)  # pixels


class Recipe(BaseModel):
    """Everything that decides a picture's pixels. Raises GenerationError when a value can't be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(max_length=4000, description="what the picture shows")
    negative_prompt: str = Field("", max_length=4000, description="what it should not show")
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed and recipe give the same pixels")
    steps: int = Field(20, ge=1, le=200, description="denoising steps")
    guidance: float = Field(4.0, ge=0, le=30, allow_inf_nan=False, description="how closely it follows the prompt")
    width: int = Field(128, ge=SIDES[0], le=SIDES[1], multiple_of=8, description="pixels")
    height: int = Field(128, ge=SIDES[0], le=SIDES[1], multiple_of=8, description="pixels")
    scheduler: str = Field(OWN, description="how the noise is taken away")
    clip_skip: int = Field(1, ge=1, le=12, description="1 takes the text encoder's last layer, 2 the one before")
    count: int = Field(1, ge=1, le=16, description="pictures, each with the seed above the last")
    source: Path | None = Field(None, description="a picture to begin from")
    denoising: float = Field(0.6, ge=0, le=1, allow_inf_nan=False, description="how much of it is drawn anew")
    mask: Path | None = Field(None, description="where to draw: white on black, of the same shape")
    base: str = Field("starter", description="the base model")
    adapters: Uses = Field((), max_length=20, description="adapters, each a use or (file, strength)")

    @field_validator("scheduler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"must be one of {', '.join(NAMES)}")
        return name

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise GenerationError(explain(error)) from error
