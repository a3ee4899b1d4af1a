"""Optimizers from their packages, and how their rate goes over the steps.

The rate is a pure function of the step, so that a resumed or extended run needs no scheduler's state.
"""

import math
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from studio import devices
from studio.adapters import Adapter
from studio.errors import ConfigError
from studio.training.config_sections import FIND_THEIR_RATE, SCHEDULE_FREE, TrainingConfig
from studio.training.patterns import LayerPattern, rates

NEEDS = {  # packages, of which one is enough
    "adamw-8bit": ("bitsandbytes", "torchao"),
    "lion-8bit": ("bitsandbytes",),
    **dict.fromkeys(("lion", "prodigy", *SCHEDULE_FREE, "came"), ("pytorch_optimizer",)),
}


def missing_for(settings: TrainingConfig) -> str | None:
    """What is missing for the run's optimizer, in one sentence; None when nothing is."""
    name, packages = settings.optimizer, NEEDS.get(settings.optimizer, ())
    if packages and not any(map(find_spec, packages)):
        install = packages[0].replace("_", "-")
        known = " or ".join(packages)
        return f"The optimizer {name} needs the package {known}: pip install {install}, or use adamw."
    if name.endswith("-8bit") and not devices.supports_bitsandbytes(devices.best_device()):
        return f"The optimizer {name} needs a GPU (CUDA, ROCm or XPU): use {name.removesuffix('-8bit')}."
    return None


def make_optimizer(
    adapters: dict[str, Adapter], settings: TrainingConfig, patterns: Sequence[LayerPattern] = ()
) -> torch.optim.Optimizer:
    """The run's optimizer over its adapters' parameters; each group's full rate is kept as `group["peak"]`.

    adapters: {"unet" or "transformer": adapter, perhaps "text_encoder": adapter, …}.
    Raises ConfigError when a package is missing.
    """
    complaint = missing_for(settings)
    if complaint:
        raise ConfigError(complaint)
    groups = []
    for component, adapter in adapters.items():
        text = component.startswith("text_encoder")
        rate = text_encoder_lr(settings) if text else settings.learning_rate
        for group in adapter.groups(rate, settings.lora_plus, rates(patterns, rate)):
            groups.append({**group, "peak": group["lr"], "component": component})
    return _MAKERS[settings.optimizer](groups, settings.weight_decay)


Groups = list[dict[str, Any]]


def _adafactor(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from studio.libraries import transformers

    # A rate of its own would be scaled by the size of B, which begins at nothing.
    made: torch.optim.Optimizer = transformers.Adafactor(
        groups, weight_decay=decay, scale_parameter=False, relative_step=False, warmup_init=False
    )
    return made


def _adamw_8bit(groups: Groups, decay: float) -> torch.optim.Optimizer:
    made: torch.optim.Optimizer
    if find_spec("bitsandbytes"):
        from bitsandbytes.optim import AdamW8bit

        made = AdamW8bit(groups, weight_decay=decay)
    else:
        from torchao.optim import AdamW8bit as AdamW8bitOfTorchao

        made = AdamW8bitOfTorchao(groups, weight_decay=decay)
    return made


def _lion_8bit(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from bitsandbytes.optim import Lion8bit

    made: torch.optim.Optimizer = Lion8bit(groups, weight_decay=decay)
    return made


def _lion(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import Lion

    return Lion(groups, weight_decay=decay)


def _came(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import CAME

    return CAME(groups, weight_decay=decay)


def _prodigy(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import Prodigy

    # As its authors advise for diffusion models (arXiv:2306.06101, README): bias correction, guarded warm-up.
    return Prodigy(groups, weight_decay=decay, bias_correction=True, safeguard_warmup=True)


def _schedule_free_adamw(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import ScheduleFreeAdamW

    return ScheduleFreeAdamW(groups, weight_decay=decay)


def _prodigy_schedule_free(groups: Groups, decay: float) -> torch.optim.Optimizer:
    from pytorch_optimizer import Prodigy, ScheduleFreeWrapper

    # The averaging takes the place of Prodigy's own momentum (arXiv:2405.15682).
    inner = Prodigy(groups, betas=(0.0, 0.99), bias_correction=True, safeguard_warmup=True)
    made = ScheduleFreeWrapper(inner, weight_decay=decay)
    made.train()  # type: ignore[no-untyped-call]
    return made


_MAKERS: dict[str, Callable[[Groups, float], torch.optim.Optimizer]] = {
    "adamw": lambda groups, decay: torch.optim.AdamW(groups, weight_decay=decay, fused=True),
    "adamw-8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "lion": _lion,
    "lion-8bit": _lion_8bit,
    "came": _came,
    "muon": lambda groups, decay: MuonForMatrices(groups, decay),
    "prodigy": _prodigy,
    "schedule-free-adamw": _schedule_free_adamw,
    "prodigy-schedule-free": _prodigy_schedule_free,
}


class MuonForMatrices(torch.optim.Optimizer):
    """Muon on matrices, AdamW on all else: windows of convolutions, lengths of DoRA.

    Muon's steps are scaled to the size of AdamW's (arXiv:2502.16982), so that one learning rate serves both.
    """

    def __init__(self, groups: Groups, weight_decay: float):
        matrices: Groups = []
        others: Groups = []
        for group in groups:
            for kept, is_matrix in ((matrices, True), (others, False)):
                if params := [p for p in group["params"] if (p.ndim == 2) is is_matrix]:
                    kept.append({**group, "params": params})
        self.parts: list[torch.optim.Optimizer] = []
        if matrices:
            self.parts.append(torch.optim.Muon(matrices, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if others:
            self.parts.append(torch.optim.AdamW(others, weight_decay=weight_decay))

    @property
    def param_groups(self) -> Groups:  # type: ignore[override]
        return [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for part, kept in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(kept)


def text_encoder_lr(settings: TrainingConfig) -> float:
    """The text encoder's full learning rate: a tenth of the UNet's where none is set; Prodigy's is one for all."""
    tenth = settings.learning_rate * (1 if settings.optimizer in FIND_THEIR_RATE else 0.1)
    return settings.text_encoder_rate or tenth


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * factor


def current_lr(optimizer: torch.optim.Optimizer, component: str) -> float:
    """The component's learning rate at this step, with the size that Prodigy has found."""
    group = next((g for g in optimizer.param_groups if g["component"] == component), None)
    return float(group["lr"] * group.get("d", 1.0)) if group else 0.0


def lr_factor(step: int, settings: TrainingConfig) -> float:
    """The share of the full rate at step 1..steps: a linear warm-up, then the schedule.

    cosine, linear and polynomial go down to a tenth, so that the last steps still teach; cosine-restarts does so in
    `restarts` waves, each from the full rate; one-cycle (arXiv:1708.07120) is a warm-up over 30 % and then a cosine to
    nearly nothing.
    """
    if settings.schedule == "one-cycle":
        up = 0.3 * settings.steps
        if step <= up:
            return _between(1 / 25, 1.0, (1 - math.cos(math.pi * step / up)) / 2)
        return _between(1.0, 1e-4, (1 - math.cos(math.pi * (step - up) / (settings.steps - up))) / 2)
    if step <= settings.warmup:
        return step / settings.warmup
    through = (step - settings.warmup) / max(1, settings.steps - settings.warmup)  # 0..1
    match settings.schedule:
        case "cosine":
            return _between(0.1, 1.0, (1 + math.cos(math.pi * through)) / 2)
        case "cosine-restarts":
            wave = through * settings.restarts % 1.0 if through < 1 else 1.0
            return _between(0.1, 1.0, (1 + math.cos(math.pi * wave)) / 2)
        case "linear":
            return _between(1.0, 0.1, through)
        case "polynomial":
            return _between(0.1, 1.0, (1 - through) ** 2)
        case _:
            return 1.0


def _between(start: float, end: float, share: float) -> float:
    return start + (end - start) * share


class Average:
    """An exponential average of parameters (EMA), which smooths the last steps' jumps.

    At step n its decay is min(decay, n / (n + 9)), TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """

    def __init__(self, parameters: Sequence[Tensor], decay: float):
        self.parameters, self.decay = list(parameters), decay
        self.values = [p.detach().float().clone() for p in self.parameters]
        self.steps = 0

    @torch.no_grad()
    def take(self) -> None:
        """One step. The first ones count more, so that the start is soon forgotten."""
        self.steps += 1
        decay = min(self.decay, self.steps / (self.steps + 9))
        torch._foreach_lerp_(self.values, [p.float() for p in self.parameters], 1 - decay)

    def state(self) -> dict[str, Any]:
        return {"values": self.values, "steps": self.steps}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for mine, kept in zip(self.values, state["values"]):
            mine.copy_(kept)
