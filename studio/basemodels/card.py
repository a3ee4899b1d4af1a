"""What a base is, told before its weights are read."""

import json
from dataclasses import dataclass
from pathlib import Path

from studio import devices
from studio.basemodels import BaseChoice, base_folder, family_class
from studio.basemodels.memory import Estimate, estimate, placement
from studio.basemodels.single_file import config_folder, kind_of_file, shapes_of
from studio.errors import BaseModelError

SAYS = {"epsilon": "says the noise", "v_prediction": "says v", "flow": "follows a flow"}


@dataclass(frozen=True)
class Card:
    """family: its name here; title: the version, where a file tells it. prediction_type: "epsilon", "v_prediction" or
    "flow". resolution: side in pixels. multiple, step: what sides divide by in training, and at the least in drawing.
    chosen: which of these the person said otherwise than the files do.
    """

    family: str
    title: str
    prediction_type: str
    resolution: int
    multiple: int
    step: int
    chosen: tuple[str, ...]
    size: Estimate
    placement: str

    @property
    def about(self) -> str:
        """What it is, in one line."""
        said = f" ({', '.join(self.chosen)}: as you chose)" if self.chosen else ""
        return f"{self.title}, {SAYS[self.prediction_type]}, {self.resolution} pixels{said}."

    def __str__(self) -> str:
        return f"{self.about}\n{self.size}\n{self.placement}"


def describe_base(name: str, precision: str | None = None) -> Card:
    """The card of the base that a line names. precision: as it would be trained here if not given.

    Raises BaseModelError.
    """
    choice, place = BaseChoice.of(name), base_folder(name)
    family = family_class(place, choice.family)
    device = devices.best_device()
    precision = precision or devices.default_precision()
    title, configs, marks = family.title, place, dict[str, tuple[int, ...]]()
    if place.is_file():
        kind = kind_of_file(place, choice.family)
        title, configs, marks = kind.title, config_folder(place, kind), shapes_of(place)
    said = getattr(family, "prediction_type", None)
    said = said or read_config(configs / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    said = choice.prediction_type or ("v_prediction" if "v_pred" in marks else said)
    codec = read_config(configs / "vae" / "config.json")
    denoiser = read_config(configs / family.denoiser / "config.json")
    levels = codec.get("block_out_channels") or codec.get("decoder_block_out_channels") or [0]
    try:
        scale = 2 ** (min(len(levels), 16) - 1)
        latents = denoiser.get("sample_size")
        side = choice.resolution or (latents * scale if latents else codec.get("sample_size", 0))
        multiple, step = family.grain(denoiser, scale)
        if said not in SAYS or type(side) is not int or not 0 <= side < 2**16 or multiple >= 2**16:
            raise ValueError
    except (TypeError, ValueError, KeyError) as error:
        raise BaseModelError(f"The settings of {place.name} can't be read: download the model again.") from error
    chosen = tuple(key for key in ("family", "prediction_type", "resolution", "vae") if getattr(choice, key))
    return Card(
        family.title, title, said, side, multiple, step, chosen,
        estimate(place, precision, choice.quantise), placement(device, precision, choice),
    )  # fmt: skip


def read_config(file: Path) -> dict:
    """A component's settings. Raises BaseModelError."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BaseModelError(f"{file.parent.name}/{file.name} can't be read: download the model again.") from error
    return found if isinstance(found, dict) else {}
