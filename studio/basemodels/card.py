"""What a base is, read from its settings and headers before its weights are loaded."""

from dataclasses import dataclass

from studio import devices
from studio.basemodels.choice import BaseChoice
from studio.basemodels.configs import read_config
from studio.basemodels.registry import base_folder, family_class
from studio.basemodels.single_file import config_folder, kind_of_file, shapes_of
from studio.basemodels.vram import Estimate, estimate, placement
from studio.errors import BaseModelError

PREDICTS = {"epsilon": "predicts the noise", "v_prediction": "predicts v", "flow": "flow matching"}


@dataclass(frozen=True)
class Card:
    """family: its name here; title: the version, where the file shows it. prediction_type: "epsilon", "v_prediction" or
    "flow". resolution: side in pixels. multiple, step: what sides divide by in training, and at the least in drawing.
    chosen: which of these the person set differently from the files. weighted_prompts: whether attention weights, BREAK
    and clip skip have an effect. guidance_embedded: whether it takes guidance as an input and no negative prompt.
    zero_terminal_snr: whether its last timestep is noise alone.
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
    weighted_prompts: bool = True
    guidance_embedded: bool = False
    zero_terminal_snr: bool = False

    @property
    def about(self) -> str:
        """What it is, in one line."""
        chosen = f" ({', '.join(self.chosen)}: as you chose)" if self.chosen else ""
        snr = " with zero terminal SNR" if self.zero_terminal_snr else ""
        return f"{self.title}, {PREDICTS[self.prediction_type]}{snr}, {self.resolution} pixels{chosen}."

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
    prediction = getattr(family, "prediction_type", None)
    flow = prediction == "flow"
    scheduler = {} if flow else read_config(configs / "scheduler" / "scheduler_config.json")
    prediction = prediction or scheduler.get("prediction_type", "epsilon")
    prediction = choice.prediction_type or ("v_prediction" if "v_pred" in marks else prediction)
    marked = {"v_pred", "ztsnr"} <= marks.keys() or scheduler.get("rescale_betas_zero_snr") is True
    zero_snr = not flow and (choice.zero_terminal_snr or marked)
    vae = read_config(configs / "vae" / "config.json")
    denoiser = read_config(configs / family.denoiser / "config.json")
    levels = vae.get("block_out_channels") or vae.get("decoder_block_out_channels") or [0]
    try:
        scale = 2 ** (min(len(levels), 16) - 1)
        latents = denoiser.get("sample_size")
        side = choice.resolution or (latents * scale if latents else vae.get("sample_size", 0))
        multiple, step = family.size_multiple(denoiser, scale)
        if prediction not in PREDICTS or type(side) is not int or not 0 <= side < 2**16 or multiple >= 2**16:
            raise ValueError
    except (TypeError, ValueError, KeyError) as error:
        raise BaseModelError(f"The settings of {place.name} can't be read: download the model again.") from error
    chosen = tuple(
        key for key in ("family", "prediction_type", "zero_terminal_snr", "resolution", "vae") if getattr(choice, key)
    )
    return Card(
        family.title,
        title,
        prediction,
        side,
        multiple,
        step,
        chosen,
        estimate(place, precision, choice.quantise),
        placement(device, precision, choice),
        family.reads_on,
        family.embeds_guidance(denoiser),
        zero_snr,
    )
