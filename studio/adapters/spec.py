"""What to adapt, and how strongly: the settings of a new adapter."""

import math
import re
from dataclasses import dataclass

from studio.adapters.layers import KINDS
from studio.errors import AdapterError

MAX_RANK = 1024

_ATTENTION = (r"\battn\d*\.to_(q|k|v|out\.0)$", r"\bself_attn\.(q|k|v|o|out)_proj$")
_FEED_FORWARD = (r"\bff\.net\.(0\.proj|2)$", r"\bmlp\.(fc1|fc2|gate_proj|up_proj|down_proj)$")
PRESETS = {
    "attention": _ATTENTION,
    "attention+feed-forward": _ATTENTION + _FEED_FORWARD,
    "all": ("",),
}


@dataclass(frozen=True)
class AdapterSpec:
    """Settings of a new adapter, checked when made.

    rank     how many directions each layer may move in, 1..1024
    alpha    the update is scaled by alpha / rank; None means rank, a scale of 1
    targets  a preset's name, or regular expressions searched in each layer's path (a preset's name works there too)
    dropout  share of the inputs hidden from the adapter while it trains, 0..1

    Raises AdapterError.
    """

    rank: int = 8
    alpha: float | None = None
    kind: str = "lora"
    targets: tuple[str, ...] | str = ("attn",)
    dropout: float = 0.0

    def __post_init__(self):
        if self.kind not in KINDS:
            raise AdapterError(f"The adapter kind {self.kind!r} is unknown: use {' or '.join(KINDS)}.")
        if type(self.rank) is not int or not 1 <= self.rank <= MAX_RANK:
            raise AdapterError(f"The rank must be a whole number from 1 to {MAX_RANK} (you gave {self.rank!r}).")
        if self.alpha is not None and not (_is_number(self.alpha) and self.alpha > 0):
            raise AdapterError(f"Alpha must be a number above 0 (you gave {self.alpha!r}).")
        if not (_is_number(self.dropout) and 0 <= self.dropout < 1):
            raise AdapterError(f"The dropout must be at least 0 and below 1 (you gave {self.dropout!r}).")
        if isinstance(self.targets, str) and self.targets not in PRESETS:
            known = ", ".join(PRESETS)
            raise AdapterError(f"The targets {self.targets!r} are unknown: use {known}, or a list of patterns.")
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))
        if not self.patterns:
            raise AdapterError("The adapter has no targets: name at least one.")
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise AdapterError(f"The target {pattern!r} is not a regular expression: {error}.") from error

    @property
    def scaled_alpha(self) -> float:
        """alpha, with None resolved."""
        return float(self.rank if self.alpha is None else self.alpha)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions that `targets` stands for."""
        names = (self.targets,) if isinstance(self.targets, str) else self.targets
        return tuple(pattern for name in names for pattern in PRESETS.get(name, (name,)))

    def wants(self, path: str) -> bool:
        """Whether the layer at `path` is a target."""
        return any(re.search(pattern, path) for pattern in self.patterns)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
