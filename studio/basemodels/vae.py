"""Another VAE (VAE) than the base's own: people swap it for truer colours, or for one that bears fp16."""

from pathlib import Path
from typing import Any

from studio.errors import BaseModelError
from studio.workspace import expanded


def other_vae(chosen: str, configs: Path, title: str) -> dict[str, Any]:
    """{"vae": the VAE at `chosen`, in fp32}, or nothing where none is chosen.

    chosen: a diffusers folder of the VAE or of a whole pipeline, or a .safetensors file in either layout, read with
    the settings of the base's own. configs: the base's folder of settings. Raises BaseModelError.
    """
    if not chosen:
        return {}
    from studio.basemodels.configs import read_config
    from studio.basemodels.single_file import shapes_of
    from studio.libraries.diffusers import diffusers

    place, own = expanded(chosen), read_config(configs / "vae" / "config.json")
    kind: Any = getattr(diffusers, str(own.get("_class_name")), None)
    wanted = own.get("latent_channels")
    if not hasattr(kind, "from_pretrained") or type(wanted) is not int:
        raise BaseModelError(f"vae/config.json of {configs.name} says no VAE: download the model again.")

    def refuse(channels: int) -> BaseModelError:
        return BaseModelError(
            f"{place.name} is a VAE of {channels} channels, {title} needs one of {wanted}: choose its own family's."
        )

    if place.is_file() and place.suffix == ".safetensors":
        shapes = shapes_of(place)
        channels = next((sum(shape[1:2]) for key, shape in shapes.items() if key.endswith("decoder.conv_in.weight")), 0)
        if channels != wanted:
            raise refuse(channels)
        vae = kind.from_single_file(str(place), config=str(configs), subfolder="vae", local_files_only=True)
    elif place.is_dir():
        inner = place / "vae" if (place / "vae" / "config.json").is_file() else place
        vae = kind.from_pretrained(inner, local_files_only=True)
        if vae.config.latent_channels != wanted:
            raise refuse(vae.config.latent_channels)
    else:
        raise BaseModelError(f"There is no VAE {chosen!r}: give a folder, or a .safetensors file.")
    return {"vae": vae}


def vae_files(chosen: str) -> list[Path]:
    """The files of a chosen VAE, none where none is chosen."""
    place = expanded(chosen)
    if not chosen or place.is_file():
        return [place] if chosen else []
    return [file for file in sorted(place.rglob("*")) if file.is_file()]
