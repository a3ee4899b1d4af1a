"""Base models from huggingface.co, in the diffusers layout: only the pipeline's own parts come, one copy of each.

folder = fetch_base("stabilityai/stable-diffusion-xl-base-1.0", progress=print)
"""

import threading
from collections.abc import Sequence
from pathlib import Path

from studio.basemodels.choice import BaseChoice
from studio.basemodels.hub_cache import INDEX, parts_of, variant_of
from studio.basemodels.registry import family_class
from studio.errors import BaseModelError
from studio.hub import PICKLES, SAFETENSORS, TEXTS, Progress, any_fits, download


def fetch_base(
    name: str,
    token: str | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Path:
    """Fetch `owner/name[@revision][?variant=fp16]` into the Hugging Face cache; returns its folder.

    What came before is not fetched again. token: instead of HF_TOKEN. progress: called with (bytes done, bytes in all).
    stop: ends it with DownloadStopped. Raises BaseModelError with one sentence.
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
    family_class(folder)  # what is no base is refused before gigabytes come
    parts = parts_of(folder)
    return download(
        choice.name,
        lambda names: wanted_files(choice.name, names, parts, choice.variant),
        revision,
        token,
        progress,
        stop,
    )


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
