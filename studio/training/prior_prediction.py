"""Prior prediction: the adapter is held to what the base predicts for the caption with the class word.

For an image x_t and the caption c' that has the class word in the place of the trigger,

    loss = training loss + w · mean((f(x_t, t, c') - f_base(x_t, t, c'))²)

with f the adapted model and f_base the same at strength 0, without gradients: ai-toolkit's Differential Output
Preservation (`diff_output_preservation`), and OneTrainer's prior prediction on the training images themselves. So what
is learned hangs on the trigger, and the class stays what it was. The term is a plain mean over all of the image: no
mask, no Huber, no weighting by SNR.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.datasets.captions import has_trigger, trigger_pattern
from studio.training.config_sections import DataConfig

COST = "each step takes about two and a half times as long, for two more predictions of each image and one way back"


def prior_caption(caption: str, trigger: str, word: str) -> str | None:
    """The caption with the class word for the trigger, or without it where there is no word; None where nothing is
    replaced, since then the term would hold back what is learned.
    """
    if not trigger.strip() or not has_trigger(caption, trigger):
        return None
    text = re.sub(trigger_pattern(trigger), lambda _: word.strip(), caption, flags=re.IGNORECASE)
    parts = (" ".join(part.split()) for part in text.split(","))
    made = ", ".join(part for part in parts if part)
    return None if made == ", ".join(" ".join(part.split()) for part in caption.split(",")) else made


def prior_captions(captions: Sequence[str], data: DataConfig, regularization: bool) -> tuple[str | None, ...]:
    """Of each caption. () without prior prediction, and for regularization images: those hold the class themselves."""
    if not data.prior_prediction or regularization:
        return ()
    return tuple(prior_caption(caption, data.trigger, data.class_word) for caption in captions)


def prior_loss(
    base: Family, noisy: Tensor, t: Tensor, conditions: dict[str, Tensor], prediction: Tensor, weight: float
) -> Tensor:
    """(B,) how far the adapted model is from the base's `prediction` (B, C, h, w) of the same noisy latents."""
    error = (base.predict(noisy, t, conditions) - prediction).float().square()
    return weight * error.mean((1, 2, 3))


def spread_over(losses: Tensor, places: Sequence[int], count: int) -> Tensor:
    """(count,) with the losses at their places, and 0 elsewhere."""
    found = torch.zeros(count, dtype=losses.dtype, device=losses.device)
    found[list(places)] = losses
    return found
