"""What a diffusers folder holds: its parts, which copies of the weights, and what is missing. No network, no torch."""

import json
import re
from pathlib import Path

from studio.basemodels.choice import BaseChoice
from studio.hub import TEXTS, in_cache

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker",)  # nothing here asks it
_VARIANT = re.compile(r"\.(fp16|bf16|ema|non_ema)(-\d+-of-\d+)?\.safetensors$")
_VARIANT_OF_INDEX = re.compile(r"\.safetensors\.index\.(fp16|bf16|ema|non_ema)\.json$")


def cached_base(choice: BaseChoice) -> Path | None:
    """The folder of a hub model in the cache when all of its parts are there; the network is not touched."""
    folder = in_cache(choice.name, ("*/*.safetensors", *TEXTS), choice.revision or None)
    return folder if folder and not missing_parts(folder) else None


def variant_of(name: str) -> str:
    """The variant in a weight file's name, "" for the plain one: model.fp16.safetensors is fp16."""
    found = _VARIANT.search(name) or _VARIANT_OF_INDEX.search(name)
    return found[1] if found else ""


def variant_in(folder: Path, wanted: str = "") -> str | None:
    """Which copy of the weights to load, as diffusers names it: the wanted one, else the plain one, else what is there.

    folder: of one component.
    """
    there = {variant_of(file.name) for file in folder.glob("*.safetensors")}
    if wanted in there:
        return wanted or None
    return None if "" in there else next(iter(sorted(there)), None)


def missing_parts(folder: Path) -> list[str]:
    """The parts of a diffusers folder that have neither weights nor settings in it."""
    out = []
    for part in parts_of(folder):
        files = [file.name for file in (folder / part).glob("*")] if (folder / part).is_dir() else []
        holds = any(name.endswith(".safetensors") for name in files)
        model = "config.json" in files  # schedulers, tokenizers and processors call theirs otherwise
        shards = {name for file in (folder / part).glob("*.index*.json") for name in _shards(file)}
        if not files or model and not holds or shards - set(files):
            out.append(part)
    return out


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return set()


def parts_of(folder: Path) -> list[str]:
    """The components that model_index.json names."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError):
        return [INDEX]
    if not isinstance(index, dict):
        return [INDEX]
    return [
        name
        for name, entry in index.items()
        if not name.startswith("_") and name not in LEFT_OUT and isinstance(entry, list) and entry and entry[0]
    ]
