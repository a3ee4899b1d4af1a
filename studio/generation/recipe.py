"""A picture's recipe: checked when made, kept inside the picture, read back from it."""

import io
import json
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from studio.errors import GenerationError
from studio.schema import explain
from studio.workspace import free_path, write_whole

KEY = "lora-studio"  # the PNG text chunk that holds ours; "parameters" is the one that other programs read


class Recipe(BaseModel):
    """Everything that decides a picture's pixels. Raises GenerationError when a value can't be used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(max_length=4000, description="what the picture shows")
    negative_prompt: str = Field("", max_length=4000, description="what it should not show")
    seed: int = Field(0, ge=0, lt=2**63, description="the same seed and recipe give the same pixels")
    steps: int = Field(20, ge=1, le=200, description="denoising steps")
    guidance: float = Field(4.0, ge=0, le=30, allow_inf_nan=False, description="how closely it follows the prompt")
    width: int = Field(128, ge=64, le=1024, multiple_of=8, description="pixels")
    height: int = Field(128, ge=64, le=1024, multiple_of=8, description="pixels")
    base: str = Field("starter", description="the base model")
    adapters: tuple[tuple[Path, float], ...] = Field((), max_length=20, description="adapter files and strengths")

    def __init__(self, **values):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise GenerationError(explain(error)) from error

    @field_validator("adapters")
    @classmethod
    def _strengths(cls, adapters):
        for _, strength in adapters:
            if not -10 <= strength <= 10:  # NaN fails too
                raise ValueError("a strength must lie between -10 and 10")
        return adapters


def parameters_text(recipe: Recipe) -> str:
    """The text that A1111, Forge and ComfyUI's readers show."""
    tags = "".join(f" <lora:{_title(path)}:{strength:g}>" for path, strength in recipe.adapters)
    negative = f"\nNegative prompt: {recipe.negative_prompt}" if recipe.negative_prompt else ""
    return (
        f"{recipe.prompt}{tags}{negative}\nSteps: {recipe.steps}, CFG scale: {recipe.guidance:g}, Seed: {recipe.seed}, "
        f"Size: {recipe.width}x{recipe.height}, Model: {recipe.base}"
    )


def save_picture(image: Image.Image, recipe: Recipe, folder: Path, name: str | None = None) -> Path:
    """Write a PNG with the recipe inside, under a free name made from seed and prompt (or exactly `name`)."""
    info = PngInfo()
    info.add_itxt("parameters", parameters_text(recipe))
    info.add_itxt(KEY, _json(recipe))
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=info)
    words = "".join(c if c.isalnum() else "-" for c in recipe.prompt[:40]).strip("-") or "picture"
    path = folder / name if name else free_path(folder, f"{words}-{recipe.seed}.png")
    write_whole(path, stream.getvalue())
    return path


def read_recipe(path: Path) -> Recipe:
    """The recipe inside a picture made here. Raises GenerationError when there is none."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            text = image.info.get(KEY)
        if not text:
            raise GenerationError(f"{Path(path).name} has no recipe inside: it was not made here.")
        return Recipe(**json.loads(text))
    except (OSError, UnidentifiedImageError, ValueError, TypeError, RecursionError) as error:
        raise GenerationError(f"{Path(path).name} can't be read as a picture with a recipe.") from error


def _json(recipe: Recipe) -> str:
    """Adapters by the name of their file or run: no path of this machine travels in a picture."""
    values = recipe.model_dump(mode="json")
    values["adapters"] = [[_title(path), strength] for path, strength in recipe.adapters]
    return json.dumps(values)


def _title(path: Path) -> str:
    return path.parent.name if path.stem == "adapter" else path.stem
