"""Which base, and which of its files' settings are overridden. No torch here.

A choice is written in one line, so that a run, a recipe and an image carry it whole wherever they carry a base's name:

    starter
    /models/old-anime.safetensors?prediction_type=v_prediction&resolution=768
    stabilityai/stable-diffusion-xl-base-1.0@462165984030d82259a11f4367a4eed129e94a7b?vae=/models/vae.safetensors

% and & within a value are written %25 and %26, as in a web address.
"""

from pathlib import Path
from typing import Literal
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.errors import BaseModelError
from studio.hub import is_hub_id
from studio.schema import explain
from studio.workspace import expanded

FamilyName = Literal[
    "sd1", "sd2", "sd2-base", "sdxl", "sd3", "sd3.5-medium", "sd3.5-large", "flux-dev", "flux-schnell", "z-image"
]


class BaseChoice(BaseModel):
    """A base by name, and its overrides. `str(choice)` and `BaseChoice.of` are each other's inverse."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, description="starter, a folder, a .safetensors file, or owner/name on the hub.")
    revision: str = Field(
        "", max_length=200, pattern=r"^[^\s\x00-\x1f]*$", description="A hub model's branch, tag or commit."
    )
    variant: Literal["", "fp16", "bf16"] = Field("", description="Which copy of the weights, where there are several.")
    family: FamilyName | None = Field(None, description="What the model is, when it is not recognised.")
    prediction_type: Literal["epsilon", "v_prediction"] | None = Field(
        None, description="The noise or v; Stable Diffusion 1, 2 and XL only."
    )
    zero_terminal_snr: bool = Field(
        False,
        description="The last timestep is noise alone, with trailing timesteps (arXiv:2305.08891); v-prediction only.",
    )
    resolution: int | None = Field(None, ge=64, le=4096, multiple_of=8, description="Side in pixels it was trained at.")
    max_sequence_length: int | None = Field(
        None,
        ge=16,
        le=1024,
        description="Tokens of a text that T5 or Qwen is given, in training and generation; SD 3, FLUX.1 and Z-Image.",
    )
    vae: str = Field("", description="Another VAE: a folder, or a .safetensors file.")
    quantise: Literal["", "8bit", "4bit"] = Field(
        "", description="Less memory, slower steps. Needs torchao, or bitsandbytes on a GPU."
    )
    offload: bool = Field(False, description="Keep the denoiser in main memory and fetch it block by block.")

    @classmethod
    def of(cls, text: str) -> "BaseChoice":
        """The choice that a line names. Raises BaseModelError."""
        name, options = text, ""
        if not _exists(text):
            name, _, options = text.partition("?")
        given: dict[str, str] = {}
        for part in filter(None, options.split("&")):
            key, _, value = part.partition("=")
            given[key] = unquote(value)
        if "@" in name and is_hub_id(name.partition("@")[0]) and not _exists(name):
            name, _, given["revision"] = name.partition("@")
        try:
            return cls(**{**given, "name": name})  # type: ignore[arg-type]
        except ValidationError as error:
            raise BaseModelError(f"In the base {text[:120]!r}, {explain(error)}") from error

    @property
    def short(self) -> str:
        """Its name without the folders that it lies in."""
        if self.name == "starter" or is_hub_id(self.name) and not _exists(self.name):
            return self.name
        path = Path(self.name)
        return (path.stem if path.suffix == ".safetensors" else path.name) or self.name

    @property
    def title(self) -> str:
        """`short`, and what is taken otherwise: for people, and for images that travel. No path is in it."""
        given = self.model_dump(exclude_defaults=True, exclude={"name", "revision"})
        words = [self.revision] if self.revision else []
        for key, value in given.items():
            plain = {
                "resolution": f"{value} pixels",
                "max_sequence_length": f"{value} tokens",
                "offload": "offload",
                "zero_terminal_snr": "zero terminal SNR",
                "vae": Path(str(value)).stem,
            }
            words.append(plain.get(key, str(value)))
        return self.short + (f" ({', '.join(words)})" if words else "")

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        changed = self.model_dump(exclude_defaults=True, exclude={"name", "revision"})
        options = "&".join(
            f"{key}={_quoted(str(value).lower() if value is True else str(value))}" for key, value in changed.items()
        )
        return f"{self.name}{at}{'?' if options else ''}{options}"


def _quoted(text: str) -> str:
    return text.replace("%", "%25").replace("&", "%26")


def _exists(name: str) -> bool:
    try:
        return expanded(name).exists()
    except (OSError, ValueError):  # too long, a NUL
        return False
