"""From a place on the disk and a choice to a pipeline of diffusers, with the network never asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import variant_in
from studio.basemodels.single_file import config_folder, kind_of_file, open_file
from studio.basemodels.vae import other_vae
from studio.libraries.diffusers import diffusers

if TYPE_CHECKING:
    from studio.basemodels.family import Family


def open_pipeline(
    family: "type[Family]", place: Path, choice: BaseChoice, dtypes: dict[str, torch.dtype], packing: Any
) -> Any:
    """The pipeline of a diffusers folder, or of one checkpoint file with its configs from elsewhere.

    dtypes: {component or "default": torch's}. packing: how the denoiser is quantised, None for not. Raises
    BaseModelError, and what diffusers raises of a damaged folder.
    """
    if not place.is_dir():
        configs = config_folder(place, kind_of_file(place, choice.family))
        more = family.pipeline_kwargs | other_vae(choice.vae, configs, family.title)
        return open_file(place, family.pipeline_class, family.denoiser, dtypes, more, choice.family, packing)
    absent = {name: None for name in family.optional if not (place / name).is_dir()}
    more = family.pipeline_kwargs | absent | other_vae(choice.vae, place, family.title) | {"use_safetensors": True}
    if packing:
        more["quantization_config"] = diffusers.PipelineQuantizationConfig(quant_mapping={family.denoiser: packing})
    variant = variant_in(place / family.denoiser, choice.variant)
    maker = getattr(diffusers, family.pipeline_class)
    return maker.from_pretrained(place, local_files_only=True, dtype=dtypes, variant=variant, **more)
