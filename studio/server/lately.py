"""How much each name has had lately: half of it is forgotten every so many seconds."""

import time
from collections.abc import Callable

MOST = 2000  # names; more of them, and those that have nothing left to speak of go


class Lately:
    def __init__(self, half: float, clock: Callable[[], float] = time.monotonic):
        """half: seconds until half is forgotten."""
        self.half, self._clock = half, clock
        self._of: dict[str, tuple[float, float]] = {}  # how much, and when that was

    def of(self, name: str) -> float:
        had, when = self._of.get(name, (0.0, 0.0))
        return had * 0.5 ** ((self._clock() - when) / self.half)

    def add(self, name: str, amount: float) -> None:
        self._of[name] = self.of(name) + amount, self._clock()
        if len(self._of) > MOST:
            self._of = {one: held for one, held in self._of.items() if self._clock() - held[1] < 10 * self.half}
