"""The export check: is the saved file what was trained? It is loaded into a clean pipeline and compared."""

import logging
from pathlib import Path

import numpy as np
from PIL import Image

from studio.adapters import attach_file, read_adapter
from studio.basemodels import Family, load_base
from studio.building import building
from studio.errors import user_message
from studio.generation import Recipe, draw
from studio.training.config import RunConfig
from studio.training.events import ExportChecked, Warned
from studio.training.preview_prompts import prompt_and_strength
from studio.training.previews import side_of
from studio.training.train_step import TrainStep

log = logging.getLogger(__name__)
STEPS = 8
ALIKE = 2.0  # steps of 1/255, mean over the pixels: rounding in half precision stays below it


def trial(config: RunConfig, base: Family) -> Recipe:
    """The image that both sides draw."""
    prompts = [line for line in config.preview.prompts if line.strip()] or ["an image"]
    prompt, _ = prompt_and_strength(prompts[0])
    side, wanted = side_of(base), config.preview
    return Recipe(
        prompt=prompt,
        seed=wanted.seed,
        steps=STEPS,
        guidance=wanted.guidance,
        width=side,
        height=side,
        guidance_rescale=wanted.guidance_rescale,
        clip_skip=config.data.clip_skip,
    )


def check_export(step: int, config: RunConfig, train_step: TrainStep, precision: str, file: Path) -> ExportChecked:
    """Compare the live adapters with `file` in a pipeline from the disk. The run's own base leaves the device."""
    base = train_step.base
    recipe = trial(config, base)
    with train_step.drawing():
        live = draw(base, recipe)
    base.offload()
    with building:
        clean = load_base(config.base, shared=False, precision=precision)
        adapter = attach_file(read_adapter(file), clean.modules())
    loaded = draw(clean, recipe)
    away, unused = _apart(live, loaded), len(adapter.report.unused) if adapter.report else 0
    if away <= ALIKE and not unused:
        message = f"{file.name} reproduces the trained model (difference {away:.2f} of 255, no key unused)."
    else:
        message = (
            f"{file.name} does not reproduce the trained model: difference {away:.1f} of 255, "
            f"{unused} keys unused. Please report this; the checkpoints hold the trained weights."
        )
    return ExportChecked(step, round(away, 4), unused, message)


def try_export_check(
    step: int, config: RunConfig, train_step: TrainStep, precision: str, folder: Path
) -> ExportChecked | Warned:
    """The proof of the run's file; without one the run has ended well all the same."""
    file = folder / "adapter.safetensors"
    try:
        return check_export(step, config, train_step, precision, file)
    except Exception as error:  # the base is gone from the disk, or there is no memory for a second one
        reason = user_message(error)
        if reason is None:
            raise
        log.warning("the export check: %s", reason)
        return Warned(step, f"{file.name} is written, but was not tried in a fresh copy of the base: {reason}")


def _apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two images, in steps of 1/255."""
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())
