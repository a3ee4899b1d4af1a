"""A base's layers on the meta device: what fits it and how many parameters would train, before it is loaded."""

from collections.abc import Collection
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from studio.adapters import AdapterSpec
from studio.adapters.layers import can_train, init_layer, shape_of
from studio.basemodels.choice import BaseChoice
from studio.basemodels.configs import read_config
from studio.basemodels.hub_cache import INDEX
from studio.basemodels.registry import base_folder, family_class
from studio.basemodels.single_file import config_folder, kind_of_file
from studio.building import building
from studio.errors import BaseModelError


def skeleton(name: str) -> dict[str, nn.Module]:
    """{component: module on torch's meta device} of what adapters can be attached to; the denoiser first.

    name: a line as for `load_base`. Takes no memory to speak of. Raises BaseModelError.
    """
    choice, place = BaseChoice.of(name), base_folder(name)
    family = family_class(place, choice.family)
    configs = config_folder(place, kind_of_file(place, choice.family)) if place.is_file() else place
    parts = (family.denoiser, *family.text_encoders)
    stamps = tuple(_stamp(configs / part / "config.json") for part in parts)
    with building:
        return _built(configs, parts, family.optional, stamps)


@lru_cache(4)
def _built(
    configs: Path, parts: tuple[str, ...], optional: tuple[str, ...], stamps: tuple[int, ...]
) -> dict[str, nn.Module]:
    """stamps: when the settings were written, so that a changed folder is read again."""
    index = read_config(configs / INDEX)
    return {
        part: _module(configs / part, index.get(part))
        for part, stamp in zip(parts, stamps)
        if stamp or part not in optional
    }


def _module(folder: Path, entry: Any) -> nn.Module:
    """entry: library and class, as the index names them."""
    from studio.libraries import transformers
    from studio.libraries.diffusers import diffusers

    config = read_config(folder / "config.json")
    try:
        library, name = map(str, entry)
        maker = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
        with torch.device("meta"):
            if issubclass(maker, diffusers.ModelMixin):
                return maker.from_config(config)
            if issubclass(maker, transformers.PreTrainedModel):
                return maker(maker.config_class.from_dict(config))
    except Exception as error:  # what a wrong setting makes of a constructor is nearly anything
        raise BaseModelError(f"The settings in {folder.name} can't be read: download the model again.") from error
    raise BaseModelError(f"{folder.name} is no model that is known here: download the model again.")


def count_trainable(module: nn.Module, spec: AdapterSpec, paths: Collection[str] | None = None) -> tuple[int, int]:
    """(layers, trainable parameters) of a fresh adapter by `spec` on a module of `skeleton`. Draws no random number.

    paths: the layers, instead of those that `spec` wants.
    """
    layers = {
        path: layer
        for path, layer in module.named_modules()
        if path and can_train(layer) and (spec.wants(path) if paths is None else path in paths)
    }
    count, plain = 0, replace(spec, init="standard")  # other ones read the weights, and are as large
    if spec.kind == "dora":  # a LoRA, and the length of each output
        plain = replace(plain, kind="lora")
        count = sum(shape_of(layer)[0] for layer in layers.values())
    with building, torch.device("meta"):
        for path, layer in layers.items():
            count += sum(p.numel() for p in init_layer(layer, path, plain).parameters())
    return len(layers), count


def _stamp(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except OSError:
        return 0
