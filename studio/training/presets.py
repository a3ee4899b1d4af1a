"""Settings that work, by base model and by what is to be learned: where a person begins. Dotted, as for `config_from`.

The figures for Stable Diffusion are those that its trainers' own presets agree on; the starter's were measured here
(`python -m tests.benchmarks.style_lesson`).
"""

from typing import Any

from studio.errors import ConfigError

_STARTER: dict[str, Any] = {}  # RunConfig's own defaults are made for it
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
    "preview.steps": 25,
    "preview.guidance": 7,
    "validation.every": 250,
}
_SDXL = _SD | {"training.batch_size": 1, "training.accumulation": 2, "training.gradient_checkpointing": True}
_FLOW = _SDXL | {"training.min_snr_gamma": 0, "adapter.rank": 16, "preview.steps": 28, "preview.guidance": 3.5}
_CHARACTER = {"adapter.rank": 16, "adapter.alpha": 16, "training.steps": 1500}
_OBJECT = {"adapter.rank": 16, "adapter.alpha": 16, "training.steps": 1000}

PRESETS: dict[str, dict[str, Any]] = {
    "starter, style": _STARTER,
    "starter, character": {"training.steps": 150, "data.caption_dropout": 0.0},
    "starter, object": {"training.steps": 150, "data.caption_dropout": 0.0},
    "SD 1.5, style": _SD | {"data.shuffle_tags": True, "data.flip": True},
    "SD 1.5, character": _SD | _CHARACTER,
    "SD 1.5, object": _SD | _OBJECT,
    "SDXL, style": _SDXL | {"data.flip": True},
    "SDXL, character": _SDXL | _CHARACTER,
    "SDXL, object": _SDXL | _OBJECT,
    "SD 3.5, style": _FLOW | {"data.flip": True, "preview.guidance": 4.5},
    "SD 3.5, character": _FLOW | _CHARACTER | {"preview.guidance": 4.5},
    "FLUX.1, style": _FLOW | {"data.flip": True},
    "FLUX.1, character": _FLOW | _CHARACTER,
    "Z-Image, style": _FLOW | {"data.flip": True},
    "Z-Image, character": _FLOW | _CHARACTER,
}

_BEGINS = {  # a base's family: how the names of its presets begin
    "starter": "starter,",
    "Stable Diffusion": "SD 1.5,",
    "SDXL": "SDXL,",
    "Stable Diffusion 3": "SD 3.5,",
    "FLUX.1": "FLUX.1,",
    "Z-Image": "Z-Image,",
}


def presets_of(family: str) -> dict[str, dict[str, Any]]:
    """{name: settings} of the presets for a family, by its title, or for "starter"."""
    begins = _BEGINS.get(family, family)
    return {name: dict(values) for name, values in PRESETS.items() if name.startswith(begins)}


def preset(name: str) -> dict[str, Any]:
    """The settings of a preset. Raises ConfigError."""
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name[:60]!r}: choose from {'; '.join(PRESETS)}.")
    return dict(PRESETS[name])
