"""Which family of base models an adapter is for, by the names and sizes of its layers.

A file's layers are looked up in every model of `architectures`, by diffusers' names and by the original ones. Metadata
only decides between models that all have these layers: people rename and merge files, shapes can't be wrong.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from studio.adapters import architectures as models
from studio.adapters.original_names import original_names
from studio.adapters.update import Update

MOST = 0.9  # share of a file's layers that a model must have: files hold a few layers of other things
_HINTS = ("modelspec.architecture", "ss_base_model_version", "studio.base")


@dataclass(frozen=True)
class Family:
    """The answer of `family_of`.

    name          as people call it; two names with "or" where both have all layers; "" when it is not known
    architecture  ModelSpec's word for it; "" when there is none or the family is not certain
    why           a short reason, also when nothing is known
    candidates    the names of all families that have the layers
    """

    name: str
    architecture: str
    why: str
    candidates: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Model:
    """One model that adapters are made for.

    hints  words of metadata that mean it
    """

    family: str
    architecture: str
    denoiser: Callable[[], models.Shapes]
    encoders: tuple[tuple[str, Callable[[], models.Shapes]], ...] = ()
    hints: tuple[str, ...] = ()


def _clip_l() -> models.Shapes:
    return models.clip_text(768, 12)


def _clip_g() -> models.Shapes:
    return models.clip_text(1280, 32)


def _starter(latents: int = 4) -> models.Shapes:
    return models.unet(192, (64, 128, 256), (0, 1, 1), layers=1, latents=latents)


def _sdxl() -> models.Shapes:
    return models.unet(2048, (320, 640, 1280), (0, 2, 10), pooled=2816)


_SD3_TEXT = (("text_encoder", _clip_l), ("text_encoder_2", _clip_g), ("text_encoder_3", models.t5_text))
_FLUX_TEXT = (("text_encoder", _clip_l), ("text_encoder_2", models.t5_text), ("text_encoder_3", models.t5_text))
_SD3_HINTS = ("stable-diffusion-3", "sd3")
MODELS = {
    "Starter 1": _Model("LoRA Studio starter", "lora-studio-starter", _starter,
                        (("text_encoder", lambda: models.clip_text(192, 4)),), ("starter",)),
    "Starter 2": _Model("LoRA Studio starter", "lora-studio-starter", lambda: _starter(latents=16),
                        (("text_encoder", lambda: models.clip_text(192, 4)),), ("starter",)),
    "Stable Diffusion 1": _Model("Stable Diffusion 1", "stable-diffusion-v1", lambda: models.unet(768),
                                 (("text_encoder", _clip_l),), ("stable-diffusion-v1", "sd_v1")),
    "Stable Diffusion 2": _Model("Stable Diffusion 2", "stable-diffusion-v2", lambda: models.unet(1024),
                                 (("text_encoder", lambda: models.clip_text(1024, 23)),),
                                 ("stable-diffusion-v2", "sd_v2")),
    "SDXL": _Model("SDXL", "stable-diffusion-xl-v1-base", _sdxl,
                   (("text_encoder", _clip_l), ("text_encoder_2", _clip_g)), ("stable-diffusion-xl", "sdxl")),
    "SD 3 Medium": _Model("Stable Diffusion 3", "stable-diffusion-3", lambda: models.sd3(1536, 24),
                          _SD3_TEXT, _SD3_HINTS),
    "SD 3.5 Medium": _Model("Stable Diffusion 3", "stable-diffusion-3", lambda: models.sd3(1536, 24, 13),
                            _SD3_TEXT, _SD3_HINTS),
    "SD 3.5 Large": _Model("Stable Diffusion 3", "stable-diffusion-3", lambda: models.sd3(2432, 38),
                           _SD3_TEXT, _SD3_HINTS),
    "FLUX.1": _Model("FLUX.1", "flux-1", models.flux1, _FLUX_TEXT, ("flux-1", "flux1", "flux.1")),
    "Chroma": _Model("Chroma", "chroma", models.chroma, (("text_encoder", models.t5_text),), ("chroma",)),
    "FLUX.2 dev": _Model("FLUX.2 dev", "", lambda: models.flux2(6144, 8, 48, 15360, True)),
    "FLUX.2 klein 4B": _Model("FLUX.2 klein 4B", "", lambda: models.flux2(3072, 5, 20, 7680, False)),
    "FLUX.2 klein 9B": _Model("FLUX.2 klein 9B", "", lambda: models.flux2(4096, 8, 24, 12288, False)),
    "Qwen-Image": _Model("Qwen-Image", "qwen-image", models.qwen_image, hints=("qwen",)),
    "Z-Image": _Model("Z-Image", "", models.z_image, hints=("z-image", "zimage")),
    "Lumina 2": _Model("Lumina 2", "lumina-2", models.lumina2, hints=("lumina",)),
    "Anima": _Model("Anima", "", models.anima, hints=("anima",)),
    "Krea 2": _Model("Krea 2", "", models.krea2, hints=("krea",)),
    "HunyuanVideo": _Model("HunyuanVideo", "hunyuan-video", models.hunyuan_video, hints=("hunyuan",)),
    "LTX 2B": _Model("LTX-Video", "", models.ltx, hints=("ltx",)),
    "LTX 13B": _Model("LTX-Video", "", lambda: models.ltx(4096, 48), hints=("ltx",)),
    "Wan 1.3B": _Model("Wan", "", lambda: models.wan(1536, 30, 8960), hints=("wan",)),
    "Wan 14B": _Model("Wan", "", lambda: models.wan(5120, 40, 13824), hints=("wan",)),
    "Wan 14B of images": _Model("Wan", "", lambda: models.wan(5120, 40, 13824, 36, True), hints=("wan",)),
    "Wan 5B": _Model("Wan", "", lambda: models.wan(3072, 30, 14336, 48), hints=("wan",)),
}  # fmt: skip

_BLOCK = re.compile(r"\D*?\d+\.")
_DENOISERS = ("unet", "transformer", "")


Names = dict[str, dict[tuple[str, tuple[int, ...]], set[str]]]


@cache
def _names() -> tuple[Names, dict[str, dict[str, str]]]:
    """{flattened name: {(component, shape): models}}, and {model: {flattened name: its block}}.

    The denoiser's component is "".
    """
    out: Names = {}
    blocks: dict[str, dict[str, str]] = {}
    for key, model in MODELS.items():
        for component, make in (("", model.denoiser), *model.encoders):
            shapes = make()
            spelled = original_names({path: shape[0] for path, shape in shapes.items()})
            for name, (path, found) in models.all_names(shapes, spelled).items():
                for shape in found:
                    out.setdefault(name, {}).setdefault((component, shape), set()).add(key)
                if not component and (block := _BLOCK.match(path)):
                    blocks.setdefault(key, {})[name] = block[0]
    return out, blocks


def _untouched(model: str, layers: Iterable[tuple[str, str]]) -> int:
    """How many blocks the file leaves out of those lists of the model's blocks that it touches."""
    blocks = _names()[1].get(model, {})
    touched = {blocks[name] for _, key in layers if (name := key.replace(".", "_")) in blocks}
    lists = {block.rstrip("0123456789.") for block in touched}
    return sum(block.rstrip("0123456789.") in lists for block in set(blocks.values()) - touched)


def family_of(layers: Mapping[tuple[str, str], Update], metadata: Mapping[str, str] | None = None) -> Family:
    """layers: {(component, path or flattened name): update}; metadata: of the file, asked where several models fit."""
    counts: dict[str, int] = {}
    total = 0
    for (component, key), update in layers.items():
        if len(update.shape) < 2:  # a norm's scale tells nothing; a turn or a rescaling has no shape
            continue
        total += 1
        for model in _with_layer(component, key, tuple(update.shape)):
            counts[model] = counts.get(model, 0) + 1
    if not total:
        return Family("", "", "it has no layer whose size is known")
    most = max(counts.values(), default=0)
    if most < MOST * total:
        return Family("", "", "its layers are those of no model that is known here")
    found = [model for model, count in counts.items() if count == most]
    complete = [model for model in found if not _untouched(model, layers)]  # so many blocks, and no more
    fitting = [MODELS[model] for model in MODELS if model in (complete or found)]
    names = tuple(dict.fromkeys(model.family for model in fitting))
    share = "all" if most == total else f"{most} of {total}"
    if len(names) > 1 and (named := _by_metadata(fitting, metadata or {})):
        fitting = [model for model in fitting if model.family == named]
        return Family(named, fitting[0].architecture, f"{share} of its layers fit, and its metadata says so", names)
    if len(names) == 1:
        return Family(names[0], fitting[0].architecture, f"{share} of its layers have the names and sizes of it", names)
    reason = f"{share} of its layers are the same in {', '.join(names[:-1])} and {names[-1]}"
    return Family(" or ".join(names) if len(names) == 2 else "", "", reason, names)


def _with_layer(component: str, key: str, shape: tuple[int, ...]) -> set[str]:
    """The models that have such a layer."""
    name = key.replace(".", "_").removeprefix("text_model_")
    found = _names()[0].get(name, {})
    window = shape[:2] if all(size == 1 for size in shape[2:]) else shape
    out: set[str] = set()
    for (part, size), models_with in found.items():
        if component not in ("", part) and not (part == "" and component in _DENOISERS):
            continue
        flat = len(window) == 2 and window == (size[0], _product(size[1:]))  # programs also write windows flat
        if window == size or flat:
            out |= models_with
    return out


def _product(sizes: tuple[int, ...]) -> int:
    out = 1
    for size in sizes:
        out *= size
    return out


def _by_metadata(fitting: list[_Model], metadata: Mapping[str, str]) -> str:
    """The one family that the metadata names; "" where it names none or several."""
    text = " ".join(metadata.get(key, "") for key in _HINTS).lower()
    named = {model.family for model in fitting if any(hint in text for hint in model.hints)}
    return named.pop() if len(named) == 1 else ""
