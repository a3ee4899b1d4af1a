"""What a run uses of its machine: precision, memory, time."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from studio import devices
from studio.training.config_sections import TrainingConfig

WINDOW = 50  # steps over which speed is measured


def precision_of(settings: TrainingConfig) -> str:
    """The run's precision; "auto" is the machine's usual one."""
    return devices.default_precision() if settings.precision == "auto" else settings.precision


def memory_used(device: torch.device) -> float:
    """GB that the run holds: on the accelerator at the most so far, or of the whole process on a CPU now."""
    peak = devices.peak_memory(device)
    return (psutil.Process().memory_info().rss if peak is None else peak) / 1e9


class Clock:
    """Time that the run itself takes: what its reader does between two events is not counted."""

    def __init__(self) -> None:
        self._outside, self._ticks = 0.0, deque[float](maxlen=WINDOW + 1)
        self._begun = time.monotonic()

    def start(self) -> None:
        self._ticks.append(self._now())

    def tick(self) -> None:
        """A step is done."""
        self._ticks.append(self._now())

    @property
    def seconds(self) -> float:
        """A step takes, over the last WINDOW ones, with validations and previews between them."""
        return max(1e-6, (self._ticks[-1] - self._ticks[0]) / max(1, len(self._ticks) - 1))

    @property
    def total(self) -> float:
        """Seconds since it was made."""
        return self._now() - self._begun

    @contextmanager
    def away(self) -> Iterator[None]:
        left = time.monotonic()
        try:
            yield
        finally:
            self._outside += time.monotonic() - left

    def _now(self) -> float:
        return time.monotonic() - self._outside


class PeakMemory:
    """`with PeakMemory(device) as peak: …`, then peak.gigabytes: the most that was held meanwhile.

    On a CPU it is the whole process's, read from Linux's VmHWM; elsewhere what it holds at the end.
    """

    def __init__(self, device: torch.device):
        self.device, self.gigabytes = device, 0.0

    def __enter__(self) -> "PeakMemory":
        devices.reset_peak_memory(self.device)
        with suppress(OSError):  # 5 sets the high-water mark back (man 5 proc)
            Path("/proc/self/clear_refs").write_text("5")
        return self

    def __exit__(self, *_: object) -> None:
        peak = devices.peak_memory(self.device)
        if peak is not None:
            self.gigabytes = peak / 1e9
            return
        self.gigabytes = psutil.Process().memory_info().rss / 1e9
        with suppress(OSError, StopIteration, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            self.gigabytes = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024 / 1e9
