"""One `.safetensors` file in the first authors' layout, as people have their bases on disk.

The family is recognised by the names and shapes in the header, whatever the file is called. Its configs and CLIP's
tokenizer, which such a file lacks, come with this package (`configs/`). What else is missing, like the text encoders of
FLUX and SD 3.5 and T5's tokenizer, comes from a folder of the same name beside it (`model.safetensors`, `model/`: a
diffusers folder, without the weights that the file has), or from what has been downloaded of the family's home before.
Nothing is fetched.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open

from studio.basemodels.clip_vocabulary import END, clip_tokenizer
from studio.errors import BaseModelError

Shapes = dict[str, tuple[int, ...]]
_INPUT = "model.diffusion_model.input_blocks.0.0.weight"
_WORDS = ("attn2.to_k.weight",)  # what reads the text states: its width shows the version


class Kind(NamedTuple):
    """title: as people say it. pipeline: diffusers' class. home: where what is missing comes from. configs: the folder
    here. pads: what fills up the words of each CLIP tokenizer.
    """

    title: str
    pipeline: str
    home: str
    configs: str
    pads: dict[str, str]


CONFIGS = Path(__file__).parent / "configs"
_ONE, _TWO, _OPEN = {"tokenizer": END}, {"tokenizer": END, "tokenizer_2": "!"}, {"tokenizer": "!"}
_SD, _SD3, _FLUX = "StableDiffusionPipeline", "StableDiffusion3Pipeline", "FluxPipeline"
_AI, _FOREST = "stabilityai/stable-diffusion", "black-forest-labs/FLUX.1"
SD1 = Kind("Stable Diffusion 1", _SD, "stable-diffusion-v1-5/stable-diffusion-v1-5", "sd1", _ONE)
SD2 = Kind("Stable Diffusion 2", _SD, f"{_AI}-2-1", "sd2", _OPEN)
SD2_BASE = Kind("Stable Diffusion 2 base", _SD, f"{_AI}-2-1-base", "sd2-base", _OPEN)
SDXL = Kind("SDXL", "StableDiffusionXLPipeline", f"{_AI}-xl-base-1.0", "sdxl", _TWO)
SD3 = Kind("Stable Diffusion 3", _SD3, f"{_AI}-3-medium-diffusers", "sd3", _TWO)
SD35_MEDIUM = Kind("Stable Diffusion 3.5 medium", _SD3, f"{_AI}-3.5-medium", "sd3.5-medium", _TWO)
SD35_LARGE = Kind("Stable Diffusion 3.5 large", _SD3, f"{_AI}-3.5-large", "sd3.5-large", _TWO)
FLUX_DEV = Kind("FLUX.1 dev", _FLUX, f"{_FOREST}-dev", "flux-dev", _ONE)
FLUX_SCHNELL = Kind("FLUX.1 schnell", _FLUX, f"{_FOREST}-schnell", "flux-schnell", _ONE)
Z_IMAGE = Kind("Z-Image", "ZImagePipeline", "Tongyi-MAI/Z-Image", "z-image", {})
KINDS = {
    kind.configs: kind
    for kind in (SD1, SD2, SD2_BASE, SDXL, SD3, SD35_MEDIUM, SD35_LARGE, FLUX_DEV, FLUX_SCHNELL, Z_IMAGE)
}
_BY_WIDTH = {768: SD1, 1024: SD2, 2048: SDXL}


def shapes_of(file: Path) -> Shapes:
    """{name: shape} from the header alone. Raises BaseModelError."""
    try:
        with safe_open(file, "pt") as found:
            return {key: tuple(found.get_slice(key).get_shape()) for key in found.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BaseModelError(f"{file.name} can't be read ({error}): download it again.".splitlines()[0]) from error


def kind_of(shapes: Shapes, name: str) -> Kind:
    """The family of a checkpoint by its tensors. Raises BaseModelError with the reason when it is no base model.

    name: of the file, for the message.
    """
    joint = {key.split("joint_blocks.")[1].split(".")[0] for key in shapes if "joint_blocks." in key}
    if joint:
        if any(".x_block.attn2." in key for key in shapes):
            return SD35_MEDIUM
        return SD35_LARGE if len(joint) > 24 else SD3
    if any("double_blocks.0.img_attn.qkv." in key for key in shapes):
        return FLUX_DEV if any("guidance_in." in key for key in shapes) else FLUX_SCHNELL
    if _INPUT not in shapes:
        lora = any(".lora_" in key or ".hada_" in key or ".lokr_" in key for key in shapes)
        what = "it is an adapter: load it in the adapters' list" if lora else "none of its layers has a known name"
        raise BaseModelError(f"{name} can't be used as a base model: {what}.")
    channels = sum(shapes[_INPUT][1:2])
    if channels != 4:
        what = {9: "it only fills holes in images", 8: "it edits images"}.get(channels, f"it reads {channels} channels")
        raise BaseModelError(f"{name} can't be used as a base model: {what}. Use the ordinary base.")
    width = next((shape[1] for key, shape in shapes.items() if key.endswith(_WORDS) and len(shape) > 1), 0)
    if width == 1280:
        raise BaseModelError(
            f"{name} is SDXL's refiner, which only refines the base's images: use stable-diffusion-xl-base-1.0."
        )
    if width not in _BY_WIDTH:  # a small or unusual model: recognised by its text encoders' names
        if any(key.startswith("conditioner.embedders.1.") for key in shapes):
            return SDXL
        return SD2 if any(key.startswith("cond_stage_model.model.") for key in shapes) else SD1
    return _BY_WIDTH[width]


def kind_of_file(file: Path, family: str | None = None) -> Kind:
    """The family that was given, else the one that the file's tensors show. Raises BaseModelError."""
    return KINDS[family] if family else kind_of(shapes_of(file), file.name)


def config_folder(file: Path, kind: Kind) -> Path:
    """Where the configs for `file` are: beside it, in the cache, or here. Raises BaseModelError."""
    beside = file.with_suffix("")
    if (beside / "model_index.json").is_file():
        return beside
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(kind.home, "model_index.json")
    if isinstance(found, str) and (Path(found).parent / "vae" / "config.json").is_file():
        return Path(found).parent
    here = CONFIGS / kind.configs
    if here.is_dir():
        return here
    raise BaseModelError(f"{file.name} is {kind.title}, which is read as a folder: fetch {kind.home} instead.")


def open_file(
    file: Path,
    pipeline: str,
    denoiser: str,
    dtypes: dict[str, Any],
    more: dict[str, Any],
    family: str | None = None,
    packing: Any = None,
) -> Any:
    """The diffusers pipeline of a checkpoint: what is not in the file comes from the folder of its configs.

    dtypes: {component or "default": torch's}. more: components and settings that are given to the pipeline as they are.
    family: of `KINDS`, when it is not to be told by the tensors. packing: see `quantising`. Raises BaseModelError.
    """
    from studio.libraries.diffusers import diffusers

    shapes = shapes_of(file)
    kind = KINDS[family] if family else kind_of(shapes, file.name)
    configs, maker = config_folder(file, kind), getattr(diffusers, pipeline)
    more = _tokenizers(kind, configs) | _left_out(kind, configs) | more
    try:
        model = json.loads((configs / denoiser / "config.json").read_text("utf-8"))["_class_name"]
        more[denoiser] = getattr(diffusers, model).from_single_file(
            str(file),
            config=str(configs),
            subfolder=denoiser,
            local_files_only=True,
            dtype=dtypes[denoiser],
            **({"quantization_config": packing} if packing else {}),
        )
        if not any(key.startswith(("first_stage_model.", "vae.")) for key in shapes):  # the denoiser alone
            return maker.from_pretrained(configs, local_files_only=True, dtype=dtypes, use_safetensors=True, **more)
        found = maker.from_single_file(
            str(file), config=str(configs), local_files_only=True, dtype=dtypes["default"], **more
        )
    except (diffusers.loaders.single_file_utils.SingleFileComponentError, OSError, KeyError) as error:
        beside = file.with_suffix("")
        raise BaseModelError(
            f"{file.name} is {kind.title} without all of its parts: put the text encoders, tokenizers and the VAE of "
            f"{kind.home}, with their weights and its model_index.json, into a folder {beside.name} beside it."
        ) from error
    for name, part in found.components.items():
        if name in dtypes and name != denoiser:
            part.to(dtypes[name])
    settings = _settings_by_markers(shapes)
    if settings:
        found.scheduler = type(found.scheduler).from_config(found.scheduler.config, **settings)
    return found


def _tokenizers(kind: Kind, configs: Path) -> dict[str, Any]:
    """CLIP's, from this package, where the folder of the configs has none."""
    missing = {name: pad for name, pad in kind.pads.items() if not (configs / name).is_dir()}
    return {name: clip_tokenizer(pad) for name, pad in missing.items()}


def _left_out(kind: Kind, configs: Path) -> dict[str, Any]:
    """SD 3 draws without T5, and its tokenizer is not here: left out where the folder of the configs lacks it."""
    if kind.pipeline != _SD3 or (configs / "tokenizer_3").is_dir():
        return {}
    return {"text_encoder_3": None, "tokenizer_3": None}


def _settings_by_markers(shapes: Shapes) -> dict[str, Any]:
    """Settings by the marker tensors of SDXL checkpoints (`v_pred`, `ztsnr`), as ComfyUI reads them."""
    settings: dict[str, Any] = {}
    if "v_pred" in shapes:
        settings["prediction_type"] = "v_prediction"
        if "ztsnr" in shapes:
            settings |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    return settings
