"""A training loop with a budget of time that a killed process loses at most five minutes of."""

import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

SAVE_EVERY = 300  # seconds


def precision(device: str) -> AbstractContextManager:
    """bf16 autocast where the hardware multiplies bf16: without, a CPU is 4 to 60 times slower with it."""
    slow = device == "cpu" and not torch.cpu._is_avx512_bf16_supported()
    return nullcontext() if slow else torch.autocast(device, dtype=torch.bfloat16)


def warm(model: torch.nn.Module, other: Mapping[str, torch.Tensor]) -> int:
    """Begin from the tensors of another model that have the same name and shape; returns how many."""
    own = model.state_dict()
    same = {name: value for name, value in other.items() if name in own and own[name].shape == value.shape}
    model.load_state_dict(own | same)
    return len(same)


class Loop:
    """Counts steps, saves and restores everything that the steps change, and says how far the run is.

    file: the checkpoint. parts: name to whatever has `state_dict` and `load_state_dict`. The run ends after `minutes`
    of training or `steps`, whichever comes first; both count what earlier processes did. Each step has its own
    `torch.Generator`, seeded by the step, so a run goes on with the draws that it would have had.
    """

    def __init__(self, name: str, file: Path, minutes: float, steps: int = 10**9, **parts: Any):
        self.name, self.file, self.minutes, self.steps, self.parts = name, file, minutes, steps, parts
        self.step, self.seconds, self.figures = 0, 0.0, {}
        if file.exists():
            state = torch.load(file, weights_only=True, map_location="cpu")
            for key, part in parts.items():
                part.load_state_dict(state[key])
            self.step, self.seconds = state["step"], state["seconds"]

    @property
    def progress(self) -> float:
        """0 at the start, 1 at the end."""
        return min(1.0, max(self.seconds / (60 * self.minutes), self.step / self.steps))

    def rate(self, peak: float, warm_up: int = 100, hold: float = 0.5) -> float:
        """Learning rate: a linear warm-up, a plateau, and a linear fall to a fiftieth from `hold` of the run on."""
        return peak * min(1.0, (self.step + 1) / warm_up, max(0.02, (1 - self.progress) / (1 - hold)))

    def __iter__(self) -> Iterator[torch.Generator]:
        saved = said = last = time.monotonic()
        while self.progress < 1:
            yield torch.Generator().manual_seed(self.step)
            self.step += 1
            now = time.monotonic()
            self.seconds, last = self.seconds + now - last, now
            if now - said > 20:
                said = now
                self._say()
            if now - saved > SAVE_EVERY:
                saved = now
                self.save()
        self._say()
        self.save()

    def learn(
        self, loss: torch.Tensor, optimizer: torch.optim.Optimizer, rate: float, parameters: list[torch.nn.Parameter]
    ) -> None:  # fmt: skip
        """One step down the gradient, which is clipped to length 1."""
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def note(self, **figures: float) -> None:
        """Running means of the figures, over about a hundred steps."""
        for key, value in figures.items():
            self.figures[key] = 0.99 * self.figures.get(key, value) + 0.01 * value

    def _say(self) -> None:
        figures = " ".join(f"{key} {value:.5f}" for key, value in self.figures.items())
        print(f"{self.name} step {self.step} {self.seconds / 60:.1f} min {figures}", flush=True)

    def save(self) -> None:
        """Whole or not at all."""
        state = {key: part.state_dict() for key, part in self.parts.items()}
        half = self.file.with_suffix(".half")
        half.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state | {"step": self.step, "seconds": self.seconds}, half)
        half.rename(self.file)
