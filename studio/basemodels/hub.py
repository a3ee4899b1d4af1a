"""Base models from huggingface.co, in the diffusers layout: only the pipeline's own parts come, one copy of each.

folder = fetch_base("stabilityai/stable-diffusion-xl-base-1.0", progress=print)
"""

import json
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from studio.basemodels.choice import BaseChoice
from studio.errors import BaseModelError
from studio.hub import PICKLES, SAFETENSORS, TEXTS, Progress, any_fits, download, in_cache

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker",)  # nothing here asks it
_VARIANT = re.compile(r"\.(fp16|bf16|ema|non_ema)(-\d+-of-\d+)?\.safetensors$")
_VARIANT_OF_INDEX = re.compile(r"\.safetensors\.index\.(fp16|bf16|ema|non_ema)\.json$")


def cached_base(choice: BaseChoice) -> Path | None:
    """The folder of a hub model in the cache when all of its parts are there; the network is not touched."""
    folder = in_cache(choice.name, ("*/*.safetensors", *TEXTS), choice.revision or None)
    return folder if folder and not lacking(folder) else None


def fetch_base(
    name: str,
    token: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Fetch `owner/name[@revision][?variant=fp16]` into the Hugging Face cache; returns its folder.

    What came before is not fetched again. token: instead of HF_TOKEN. progress: told (bytes done, bytes in all). stop:
    ends it with DownloadStopped. Raises BaseModelError with one sentence.
    """
    choice = BaseChoice.of(name)
    revision = choice.revision or None

    def index_alone(names: Sequence[str]) -> list[str]:
        if INDEX not in names:
            single = next((name for name in names if "/" not in name and name.endswith(".safetensors")), None)
            way = f"download its {single} and give that file" if single else "choose one in the diffusers layout"
            raise BaseModelError(f"{choice.name} is no pipeline of diffusers (it has no {INDEX}): {way}.")
        return [INDEX]

    folder = download(choice.name, index_alone, revision, token, stop=stop)
    from studio.basemodels import family_class

    family_class(folder)  # what is no base is refused before gigabytes come
    parts = _parts(folder)
    return download(
        choice.name, lambda names: wanted_files(choice.name, names, parts, choice.variant), revision, token, progress,
        stop,
    )  # fmt: skip


def wanted_files(model: str, names: Sequence[str], parts: Sequence[str], variant: str = "") -> list[str]:
    """Of a model's files, the settings of these parts and one copy of their weights. Raises BaseModelError.

    variant: the copy that is preferred; the other where a part has no such one.
    """
    wanted = [INDEX]
    for part in parts:
        inside = [name for name in names if name.startswith(f"{part}/") and name.count("/") == 1]
        wanted += [name for name in inside if any_fits(name, TEXTS) and ".index." not in name]
        weights = [name for name in inside if any_fits(name, SAFETENSORS[:1]) or ".safetensors.index." in name]
        plain = [name for name in weights if not variant_of(name)]
        chosen = [name for name in weights if variant and variant_of(name) == variant] or plain
        chosen = chosen or [name for name in weights if variant_of(name) in ("fp16", "bf16")]
        if not chosen and any(any_fits(name, PICKLES) for name in inside):
            raise BaseModelError(
                f"{model} has its {part} only as a pickle, which can run code when opened: take one that has "
                "safetensors."
            )
        wanted += chosen
    return wanted


def variant_of(name: str) -> str:
    """The variant that a weight file's name says, "" for the plain one: model.fp16.safetensors is fp16."""
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


def lacking(folder: Path) -> list[str]:
    """The parts of a diffusers folder that have neither weights nor settings in it."""
    out = []
    for part in _parts(folder):
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


def _parts(folder: Path) -> list[str]:
    """The components that model_index.json names."""
    try:
        index = json.loads((folder / INDEX).read_bytes())
    except (OSError, ValueError, RecursionError):
        return [INDEX]
    if not isinstance(index, dict):
        return [INDEX]
    return [
        name for name, said in index.items()
        if not name.startswith("_") and name not in LEFT_OUT and isinstance(said, list) and said and said[0]
    ]  # fmt: skip
