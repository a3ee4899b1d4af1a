"""Base models by name: where a base lies, and which family's class it is. Nothing above knows a family by name.

The families bring torch and diffusers, so their files are imported when first asked for; finding a folder does not.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import cached_base
from studio.errors import BaseModelError, lacking
from studio.hub import is_hub_id
from studio.workspace import ASSETS, expanded

if TYPE_CHECKING:
    from studio.basemodels.family import Family

STARTER = ASSETS / "starter"

# What model_index.json calls the pipeline: the file and the class here.
FAMILIES = {
    "StableDiffusionPipeline": ("stable_diffusion", "StableDiffusion"),
    "LatentConsistencyModelPipeline": ("stable_diffusion", "StableDiffusion"),
    "StableDiffusionXLPipeline": ("sdxl", "StableDiffusionXL"),
    "StableDiffusion3Pipeline": ("sd3", "StableDiffusion3"),
    "FluxPipeline": ("flux", "Flux"),
    "ZImagePipeline": ("z_image", "ZImage"),
}
REFUSED = {
    "StableDiffusionXLImg2ImgPipeline": "it is SDXL's refiner, which only refines the base's images: use the "
    "base, stable-diffusion-xl-base-1.0",
    "StableDiffusionInpaintPipeline": "it only fills holes in images: use the ordinary base that it was made from",
    "StableDiffusionXLInpaintPipeline": "it only fills holes in images: use the ordinary base that it was made from",
    "FluxFillPipeline": "it only fills holes in images: use FLUX.1-dev",
    "FluxKontextPipeline": "it edits images: use FLUX.1-dev",
}


def base_folder(name: str) -> Path:
    """Where the base `name` lies: "starter", a diffusers folder, a .safetensors file, or a hub id in the cache.

    Options behind a "?" (see `choice.BaseChoice`) are ignored. Raises BaseModelError.
    """
    choice = BaseChoice.of(name)
    folder = STARTER if choice.name == "starter" else expanded(choice.name)
    try:
        single = folder.is_file() and folder.suffix == ".safetensors"
        if single or (folder / "model_index.json").is_file():
            return folder
    except (OSError, ValueError):  # too long, a NUL
        pass
    if is_hub_id(choice.name) and not folder.exists():
        found = cached_base(choice)
        if found:
            return found
        line = " ".join(name.split())[:200]
        raise BaseModelError(
            f"{choice.name} is not on this machine: fetch it with `python -m studio base {line} --download`, or give a "
            "folder or a .safetensors file."
        )
    raise BaseModelError(
        f"There is no base model {name[:100]!r}: use starter, a folder in the diffusers layout, a .safetensors file, "
        "or owner/name from huggingface.co."
    )


def family_class(folder: Path, family: str | None = None) -> "type[Family]":
    """The class for a base: `family`, or by model_index.json, or by a file's own tensors. Raises BaseModelError."""
    file, name = FAMILIES[pipeline_of(folder, family)]
    return getattr(import_module(f"studio.basemodels.{file}"), name)


def pipeline_of(folder: Path, family: str | None = None) -> str:
    """The name of diffusers' pipeline for a base, one of FAMILIES. Raises BaseModelError."""
    if family:
        from studio.basemodels.single_file import KINDS

        return KINDS[family].pipeline
    if folder.is_file():
        from studio.basemodels.single_file import kind_of, shapes_of

        return kind_of(shapes_of(folder), folder.name).pipeline
    try:
        class_name = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        if lacking(error):
            raise
        raise BaseModelError(f"{folder.name}/model_index.json can't be read: download the model again.") from error
    if not isinstance(class_name, str) or len(class_name) > 100:
        raise BaseModelError(f"{folder.name}/model_index.json names no pipeline: download the model again.")
    if class_name in REFUSED:
        raise BaseModelError(f"{folder.name} can't be used as a base model: {REFUSED[class_name]}.")
    if class_name not in FAMILIES:
        raise BaseModelError(
            f"{folder.name} is a {class_name}, which is no family known here: use Stable Diffusion 1, 2, XL or 3, "
            "FLUX.1 or Z-Image."
        )
    return class_name
