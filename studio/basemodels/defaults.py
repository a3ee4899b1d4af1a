"""What each base is trained and drawn with where nothing else is said. No torch here.

A variant is a base as people know it: a family, or children of one that want other settings, distilled ones among them.
It is recognised by the settings of its files and by the marks in them; children of SDXL, which look like it, by the
name of the file or folder. Settings are dotted, as those of a run; what is missing is as the schema of a run has it,
which is made for the starter.

The figures are those that the trainers' own presets agree on (kohya's scripts, OneTrainer, ai-toolkit, SimpleTuner)
and, for drawing, those of the models' cards; the starter's were measured (`python -m tests.benchmarks.style_lesson`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.basemodels.choice import BaseChoice
from studio.basemodels.configs import read_config
from studio.basemodels.registry import base_folder, pipeline_of
from studio.basemodels.single_file import config_folder, kind_of_file, shapes_of
from studio.errors import BaseModelError

Settings = Mapping[str, Any]

# What is to be learned changes these alone.
PURPOSES: dict[str, Settings] = {
    "style": {"data.flip": True},
    "character": {"adapter.rank": 16, "adapter.alpha": 16, "training.steps": 1500},
    "object": {"adapter.rank": 16, "adapter.alpha": 16, "training.steps": 1000},
}


@dataclass(frozen=True)
class Variant:
    """title: begins the names of its presets. older: earlier titles. purposes: what differs from PURPOSES.

    distilled: it draws in few steps, which training undoes unless a training adapter takes that upon itself.
    """

    title: str
    settings: Settings
    purposes: Mapping[str, Settings] = field(default_factory=dict)
    older: tuple[str, ...] = ()
    distilled: bool = False

    def preset(self, purpose: str = "") -> dict[str, Any]:
        """The settings for a purpose; for none the variant's own."""
        return {**self.settings, **({**PURPOSES, **self.purposes}[purpose] if purpose else {})}


_PHOTOS = ["a photo of a cat on a windowsill, morning light", "a portrait of a woman in a garden"]
_SD = {
    "adapter.rank": 32,
    "adapter.alpha": 16,
    "adapter.targets": "attention+feed-forward",
    "training.steps": 2000,
    "training.batch_size": 2,
    "training.learning_rate": 1e-4,
    "training.warmup": 100,
    "training.min_snr_gamma": 5,
    "training.checkpoint_every": 250,
    "preview.every": 250,
    "preview.prompts": _PHOTOS,
    "preview.steps": 25,
    "preview.guidance": 7,
    "validation.every": 250,
}
_LARGE = {"training.batch_size": 1, "training.accumulation": 2, "training.gradient_checkpointing": True}
_XL = _SD | _LARGE
_FLOW = _XL | {"training.min_snr_gamma": 0, "adapter.rank": 16, "preview.steps": 28}
_FEW_STEPS = {"preview.steps": 8, "preview.guidance": 1}


def _tags(quality: str) -> list[str]:
    return [f"{quality}, 1girl, solo, smile, upper body, outdoors", f"{quality}, no humans, cat, sitting, window"]


_TAGGED = _XL | {"data.shuffle_tags": True, "preview.steps": 28, "preview.guidance": 5.5}
_BEST = "masterpiece, best quality"
_FLIPPED_TAGS = {"style": {"data.shuffle_tags": True, "data.flip": True}}
_SHORT = {"training.steps": 150, "data.caption_dropout": 0.0}

STARTER = Variant("starter", {}, {"style": {}, "character": _SHORT, "object": _SHORT})
SD1 = Variant("SD 1.5", _SD, _FLIPPED_TAGS)
SD2 = Variant("SD 2", _SD, _FLIPPED_TAGS)
SDXL = Variant("SDXL", _XL)
# The weight min(snr, gamma) / (snr + 1) of v is nearly nothing where there is no signal, which these are trained for.
SDXL_V = Variant("SDXL v-prediction", _XL | {"training.min_snr_gamma": 0, "preview.guidance": 5, "preview.steps": 28})
ILLUSTRIOUS = Variant("Illustrious", _TAGGED | {"preview.prompts": _tags(_BEST)})
NOOB = Variant("NoobAI", _TAGGED | {"preview.prompts": _tags(f"{_BEST}, newest, absurdres")})
NOOB_V = Variant(
    "NoobAI v-prediction",
    {**NOOB.settings, "training.min_snr_gamma": 0, "preview.guidance": 5, "preview.guidance_rescale": 0.7},
)
PONY = Variant("Pony", _TAGGED | {"preview.prompts": _tags("score_9, score_8_up, score_7_up"), "preview.guidance": 7})
SD1_FEW = Variant("SD 1.5 distilled", _SD | _FEW_STEPS, _FLIPPED_TAGS, distilled=True)
SDXL_FEW = Variant("SDXL distilled", _XL | _FEW_STEPS, distilled=True)
SD3 = Variant("SD 3.5", _FLOW | {"preview.guidance": 4.5})
FLUX_DEV = Variant("FLUX.1 dev", _FLOW | {"preview.guidance": 3.5}, older=("FLUX.1",))
FLUX_SCHNELL = Variant("FLUX.1 schnell", _FLOW | {"preview.steps": 4, "preview.guidance": 1}, distilled=True)
Z_IMAGE = Variant("Z-Image", _FLOW | {"preview.guidance": 4})
Z_IMAGE_TURBO = Variant("Z-Image Turbo", _FLOW | {"preview.steps": 9, "preview.guidance": 1}, distilled=True)
VARIANTS = (
    STARTER,
    SD1,
    SD2,
    SD1_FEW,
    SDXL,
    SDXL_V,
    ILLUSTRIOUS,
    NOOB,
    NOOB_V,
    PONY,
    SDXL_FEW,
    SD3,
    FLUX_DEV,
    FLUX_SCHNELL,
    Z_IMAGE,
    Z_IMAGE_TURBO,
)

_FEW = re.compile(r"(?<![a-z])(turbo|lightning|hyper|lcm|dmd2?|schnell|tcd)(?![a-z])")


def variant_of(line: str) -> Variant:
    """The variant of the base that a line names (see `choice.BaseChoice`), from settings and headers alone.

    Raises BaseModelError.
    """
    choice, place = BaseChoice.of(line), base_folder(line)
    if place == base_folder("starter"):
        return STARTER
    pipeline = pipeline_of(place, choice.family)
    configs = config_folder(place, kind_of_file(place, choice.family)) if place.is_file() else place
    marks = shapes_of(place) if place.is_file() else {}
    scheduler = _settings(configs / "scheduler" / "scheduler_config.json")
    denoiser = _settings(configs / ("unet" if (configs / "unet").is_dir() else "transformer") / "config.json")
    name = choice.short.lower()
    few = bool(_FEW.search(name)) or denoiser.get("time_cond_proj_dim") is not None
    few = few or scheduler.get("_class_name") in ("LCMScheduler", "TCDScheduler")
    if pipeline == "StableDiffusionXLPipeline":
        said = choice.prediction_type or ("v_prediction" if "v_pred" in marks else scheduler.get("prediction_type"))
        return _of_sdxl(name, said == "v_prediction", few)
    if pipeline == "StableDiffusion3Pipeline":
        return SD3
    if pipeline == "FluxPipeline":
        schnell = choice.family == "flux-schnell" or not denoiser.get("guidance_embeds", True)
        return FLUX_SCHNELL if schnell else FLUX_DEV
    if pipeline == "ZImagePipeline":
        return Z_IMAGE_TURBO if few else Z_IMAGE
    if few:
        return SD1_FEW
    return SD2 if denoiser.get("cross_attention_dim") == 1024 else SD1


def _of_sdxl(name: str, v: bool, few: bool) -> Variant:
    if few:
        return SDXL_FEW
    if "pony" in name:
        return PONY
    if "noob" in name:
        return NOOB_V if v else NOOB
    if "illustrious" in name and not v:
        return ILLUSTRIOUS
    return SDXL_V if v else SDXL


def _settings(file: Path) -> dict[str, Any]:
    """Of a component; nothing where its file is gone or damaged, which is said when the base is loaded."""
    try:
        return read_config(file)
    except BaseModelError:
        return {}
