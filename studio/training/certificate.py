"""The export certificate: is the saved file what was trained? It is loaded into a clean pipeline and compared."""

from pathlib import Path

import numpy as np
from PIL import Image

from studio.adapters import attach_file, read_adapter
from studio.basemodels import Family, load_base
from studio.building import building
from studio.generation import Recipe, draw
from studio.training.config import RunConfig
from studio.training.events import Certified
from studio.training.learner import Learner
from studio.training.previews import prompt_and_strength, side_of

STEPS = 8
ALIKE = 2.0  # steps of 1/255, mean over the pixels: rounding in half precision stays below it


def trial(config: RunConfig, base: Family) -> Recipe:
    """The picture that both sides draw."""
    prompts = [line for line in config.preview.prompts if line.strip()] or ["a picture"]
    prompt, _ = prompt_and_strength(prompts[0])
    side, seed = side_of(base), config.preview.seed
    return Recipe(prompt=prompt, seed=seed, steps=STEPS, guidance=config.preview.guidance, width=side, height=side)


def certify(step: int, config: RunConfig, learner: Learner, precision: str, file: Path) -> Certified:
    """Compare the live adapters with `file` in a pipeline from the disk. The learner's base waits beside the device."""
    base = learner.base
    recipe = trial(config, base)
    live = draw(base, recipe)
    base.offload()
    with building:
        clean = load_base(config.base, shared=False, precision=precision)
        adapter = attach_file(read_adapter(file), clean.modules())
    loaded = draw(clean, recipe)
    away, unused = _apart(live, loaded), len(adapter.report.unused) if adapter.report else 0
    if away <= ALIKE and not unused:
        message = f"{file.name} read back draws what was trained (difference {away:.2f} of 255, no key unused)."
    else:
        message = (
            f"{file.name} read back draws something else than what was trained: difference {away:.1f} of 255, "
            f"{unused} keys unused. Please report this; the checkpoints hold the trained weights."
        )
    return Certified(step, round(away, 4), unused, message)


def _apart(one: Image.Image, other: Image.Image) -> float:
    """Mean difference of two pictures, in steps of 1/255."""
    return float(np.abs(np.asarray(one, np.float32) - np.asarray(other, np.float32)).mean())
