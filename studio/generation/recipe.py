"""What decides an image's pixels, checked when it is made."""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import GenerationError
from studio.generation.applied_adapter import AppliedAdapters
from studio.generation.schedulers import NAMES, OWN
from studio.schema import Integer, Number, explain

SIDES = (64, 2048)  # pixels


class Recipe(BaseModel):
    """Everything that decides an image's pixels. Raises GenerationError when a value can't be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(max_length=4000, description="What the image shows.")
    negative_prompt: str = Field("", max_length=4000, description="What to avoid.")
    seed: Integer = Field(0, ge=0, lt=2**63, description="The same seed and recipe give the same pixels.")
    steps: Integer = Field(20, ge=1, le=200, description="Denoising steps.")
    guidance: Number = Field(4.0, ge=0, le=30, description="How closely it follows the prompt (CFG scale).")
    guidance_rescale: Number = Field(
        0.0, ge=0, le=1, description="CFG rescale: 0.7 is usual for bases of zero terminal SNR, 0 is none."
    )
    width: Integer = Field(128, ge=SIDES[0], le=SIDES[1], multiple_of=8, description="Pixels.")
    height: Integer = Field(128, ge=SIDES[0], le=SIDES[1], multiple_of=8, description="Pixels.")
    scheduler: str = Field(
        OWN, max_length=100, json_schema_extra={"enum": list(NAMES)}, description="How the noise is removed."
    )
    clip_skip: Integer = Field(1, ge=1, le=12, description="1 takes the text encoder's last layer, 2 the one before.")
    count: Integer = Field(1, ge=1, le=16, description="Images, each with the seed above the last.")
    source: Path | None = Field(None, description="Image to image: the image to start from.")
    denoising: Number = Field(
        0.6, ge=0, le=1, description="Denoising strength of image to image: 0 keeps the image, 1 ignores it."
    )
    mask: Path | None = Field(None, description="Inpainting: white is generated anew, black stays.")
    base: str = Field("starter", max_length=4000, description="The base model.")
    adapters: AppliedAdapters = Field((), max_length=20, description="Adapters, each with its strength.")

    @field_validator("scheduler")
    @classmethod
    def _known(cls, name: str) -> str:
        if name not in NAMES:
            raise ValueError(f"must be one of {', '.join(NAMES)}")
        return name

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise GenerationError(explain(error)) from error
