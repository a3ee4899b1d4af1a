"""What a base is, told before its weights are read."""

import json
from dataclasses import dataclass
from pathlib import Path

from studio.basemodels import BaseChoice, base_folder, family_class
from studio.basemodels.memory import Estimate, best_device, estimate, placement, usual_precision
from studio.basemodels.single_file import config_folder, kind_of_file, shapes_of


@dataclass(frozen=True)
class Card:
    """prediction_type: "epsilon", "v_prediction" or "flow". resolution: side in pixels. chosen: which of these the
    person said otherwise than the files do.
    """

    title: str
    prediction_type: str
    resolution: int
    chosen: tuple[str, ...]
    size: Estimate
    placement: str

    def __str__(self) -> str:
        said = f" ({', '.join(self.chosen)}: as you chose)" if self.chosen else ""
        says = {"epsilon": "says the noise", "v_prediction": "says v", "flow": "follows a flow"}[self.prediction_type]
        return f"{self.title}, {says}, {self.resolution} pixels{said}.\n{self.size}\n{self.placement}"


def describe_base(name: str, precision: str | None = None) -> Card:
    """The card of the base that a line names. precision: as it would be trained here if not given.

    Raises BaseModelError.
    """
    choice, place = BaseChoice.of(name), base_folder(name)
    family = family_class(place, choice.family)
    device = best_device()
    precision = precision or usual_precision()
    title, configs, marks = family.title, place, dict[str, tuple[int, ...]]()
    if place.is_file():
        kind = kind_of_file(place, choice.family)
        title, configs, marks = kind.title, config_folder(place, kind), shapes_of(place)
    said = getattr(family, "prediction_type", None)
    said = said or _read(configs / "scheduler" / "scheduler_config.json").get("prediction_type", "epsilon")
    said = choice.prediction_type or ("v_prediction" if "v_pred" in marks else said)
    codec = _read(configs / "vae" / "config.json")
    latents = _read(configs / family.denoiser / "config.json").get("sample_size")
    levels = codec.get("block_out_channels") or codec["decoder_block_out_channels"]
    side = latents * 2 ** (len(levels) - 1) if latents else codec.get("sample_size", 0)
    chosen = tuple(key for key in ("family", "prediction_type", "resolution", "vae") if getattr(choice, key))
    size = estimate(place, precision, choice.quantise)
    return Card(title, said, choice.resolution or side, chosen, size, placement(device, precision, choice))


def _read(file: Path) -> dict:
    return json.loads(file.read_text("utf-8"))
