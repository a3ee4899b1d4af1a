"""A batch in pieces: less memory for the same step, when the device has too little for the whole.

Only an adapter's dropout, which is drawn as it goes, falls otherwise than in the whole.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from studio import devices
from studio.errors import RunError
from studio.training.config_sections import TrainingConfig
from studio.training.examples import Batch, Row


class DoesNotFit(RunError):
    """One image alone takes more memory than there is."""


@dataclass(frozen=True)
class NoisedBatch:
    """A batch of B images and all that is random in it, on the CPU."""

    rows: list[Row]
    mine: slice  # this process's rows
    shares: Tensor  # (B,) where in the noise schedule, 0..1
    noise: Tensor  # (B, C, h, w)
    fresh: Tensor  # (B, C, h, w) what the VAE's spread is multiplied by
    perturbation: Tensor | None  # (B, C, h, w) noise that only the input gets
    number: int = 0  # of the batch in the run


@dataclass(frozen=True)
class NoisedRows:
    """Some rows of a batch on the device. latents, noise, perturbation: (B, C, h, w); t: (B,) as `Family.times`."""

    batch: Batch
    latents: Tensor
    noise: Tensor
    t: Tensor
    perturbation: Tensor | None


class MicroBatcher:
    """How many images go through the base at once; all of a batch, until memory runs out."""

    def __init__(self) -> None:
        self.size: int | None = None
        self._tried = 0  # images in the largest piece of the last batch

    def of(self, rows: slice) -> Iterator[slice]:
        """The batch's rows, piece by piece."""
        size = min(self.size or rows.stop - rows.start, rows.stop - rows.start)
        self._tried = size
        for start in range(rows.start, rows.stop, size):
            yield slice(start, min(start + size, rows.stop))

    def smaller(self, settings: TrainingConfig, device: torch.device) -> str:
        """Halve the pieces, and say so. Raises DoesNotFit with advice when they are of one image."""
        devices.empty_cache()
        if self._tried <= 1:
            raise DoesNotFit(f"Memory ran out with a single image: {_advice(settings)}.")
        self.size = (self._tried + 1) // 2
        return (
            f"Memory ran out with {self._tried} images at once: from here on {self.size} at a time, and as many a "
            "step as before. The result is the same; each step takes a little longer."
        )


def _advice(settings: TrainingConfig) -> str:
    """What can still be done, the cheapest first."""
    ways = []
    if not settings.gradient_checkpointing:
        ways.append("set training.gradient_checkpointing to true")
    if settings.precision == "fp32":
        ways.append("set training.precision to bf16")
    ways += ["lower data.resolution or adapter.rank", "write ?quantise=8bit or ?offload=true behind the base's name"]
    return ", or ".join(ways)
