"""What PEFT's configuration says of a file: alpha, and settings that change what its numbers mean.

diffusers (0.35 and later) writes it into the file's metadata, PEFT as `adapter_config.json` beside the file.
"""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from studio.adapters.header import parse_json

METADATA_KEY = "lora_adapter_metadata"
NEIGHBOUR = "adapter_config.json"
LARGEST = 2**20  # bytes of a configuration that is read
DEFAULT_ALPHA = 8  # PEFT's LoraConfig.lora_alpha where a configuration leaves it out
SECONDS = 2.0  # for all patterns of a file together: they are regular expressions from strangers
_MOST_TERMS = 64  # of a series
_LONGEST = 300  # characters of a pattern

# Initializations that change the base's own weight, so that the file's update is relative to another base.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_UNSUPPORTED = {
    "alora_invocation_tokens": "it should act only after certain tokens",
    "layer_replication": "it was made for a model whose layers were repeated",
    "use_qalora": "its inputs are grouped (QA-LoRA)",
    "use_bdlora": "its factors are block-diagonal (BD-LoRA)",
}


class _Patterns:
    """PEFT's {pattern: value}: the first that matches `(.*\\.)?(pattern)$` counts, in the order of the file.

    Most patterns are the end of a path, found in a dict; the others are matched under a limit of time.
    """

    def __init__(self, values: Mapping[str, Any]):
        self.values = list(values.values())
        self._plain: dict[str, int] = {}
        self._others: list[tuple[int, Any]] = []
        for order, pattern in enumerate(values):
            if pattern.removeprefix("^").replace(".", "").replace("_", "").isalnum():
                self._plain.setdefault(pattern, order)
            else:
                self._others.append((order, self._compiled(pattern)))

    @staticmethod
    def _compiled(pattern: str) -> Any:
        import regex  # here, since most files have no such pattern; `re` has no limit of time

        if len(pattern) > _LONGEST:
            raise ValueError(f"one of its patterns is longer than {_LONGEST} characters")
        try:
            return regex.compile(rf"(.*\.)?({pattern})$")
        except (regex.error, RecursionError, OverflowError, MemoryError) as error:
            raise ValueError("one of its patterns is not a regular expression") from error

    def find(self, path: str, deadline: float) -> Any:
        """The value for a layer; None where no pattern matches. Raises ValueError after the deadline (seconds)."""
        steps = path.split(".")
        endings = [".".join(steps[i:]) for i in range(len(steps))]
        orders = [self._plain[ending] for ending in endings if ending in self._plain]
        orders += [self._plain[f"^{path}"]] if f"^{path}" in self._plain else []
        first = min(orders, default=len(self.values))
        for order, compiled in self._others:
            if order > first:
                break
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError
                if compiled.match(path, timeout=left):
                    first = order
                    break
            except TimeoutError:
                raise ValueError("its patterns take too long to match") from None
        return self.values[first] if first < len(self.values) else None


@dataclass(frozen=True)
class PeftConfig:
    """values: the configuration, {} where there is none. source: where it stands, "" where there is none."""

    values: Mapping[str, Any]
    source: str = ""

    @classmethod
    def of(cls, metadata: Mapping[str, str], path: Path) -> "PeftConfig":
        """That of the file at `path` with this metadata.

        Raises ValueError where it can't be read: guessing an alpha would silently change the result.
        """
        if METADATA_KEY in metadata:
            return cls(parse_json(metadata[METADATA_KEY]), "its metadata")
        neighbour = path.with_name(NEIGHBOUR)
        try:
            if neighbour.is_file() and neighbour.stat().st_size < LARGEST:
                return cls(parse_json(neighbour.read_bytes()), NEIGHBOUR)
        except (OSError, ValueError):
            if path.name == "adapter_model.safetensors":
                raise ValueError(f"{NEIGHBOUR} beside it can't be read") from None
        return cls({})

    def is_for(self, path: Path, ranks: Mapping[tuple[str, str], int]) -> bool:
        """Whether a configuration beside the file can be the file's own: the ranks of its LoRAs are those it says."""
        if self.source != NEIGHBOUR or path.name == "adapter_model.safetensors":
            return True
        return all(self.rank(component, layer, rank) == rank for (component, layer), rank in ranks.items())

    def rank(self, component: str, layer: str, otherwise: int) -> Any:
        """The configured rank of a layer; `otherwise` where there is none."""
        found = self._pattern(component, layer, "rank_pattern")
        value = self._value(component, "r") if found is None else found
        return otherwise if value is None else value

    def alpha(self, component: str, layer: str, rank: int) -> float | None:
        """The layer's alpha, such that alpha / rank is PEFT's scaling; None where it is not configured.

        Raises ValueError where it is not a number.
        """
        alpha = self._pattern(component, layer, "alpha_pattern")
        if alpha is None:
            values = [self._value(component, key) for key in ("lora_alpha", "alpha")]
            alpha = next((value for value in values if value is not None), None)
        if alpha is None:
            if self._value(component, "r") is None:
                return None
            alpha = DEFAULT_ALPHA
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not abs(alpha) < 1e9:
            raise ValueError("its alpha is not a number")
        return float(alpha * math.sqrt(rank) if self._value(component, "use_rslora") is True else alpha)

    def neumann_terms(self, component: str) -> int | None:
        """Terms of the series that OFT's turns are made by, 0 for exact ones; None where it is not configured.

        Raises ValueError where it is not a number.
        """
        if self._value(component, "use_cayley_neumann") is False:
            return 0
        terms = self._value(component, "num_cayley_neumann_terms")
        if terms is None:
            return None
        if type(terms) is not int or not 1 <= terms <= _MOST_TERMS:
            raise ValueError("its num_cayley_neumann_terms is not a small number")
        return terms

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """Settings that change what the numbers mean, and that are not followed here."""
        out = []
        for key, value in self.values.items():
            name = key.rpartition(".")[2]
            if name == "init_lora_weights" and str(value).lower().startswith(_CHANGED_BASE):
                out.append(f"made with {str(value)[:20]}, so for a base whose weights that had changed: expect less")
            elif name in _UNSUPPORTED and value:
                out.append(f"{_UNSUPPORTED[name]}, which is not followed here")
        return tuple(dict.fromkeys(out))

    def _value(self, component: str, key: str) -> Any:
        return self.values.get(f"{component}.{key}", self.values.get(key))

    def _pattern(self, component: str, layer: str, key: str) -> Any:
        patterns = self._patterns(component, key)
        return None if patterns is None else patterns.find(layer, self._deadline)

    @cached_property
    def _deadline(self) -> float:
        return time.monotonic() + SECONDS

    def _patterns(self, component: str, key: str) -> _Patterns | None:
        known = self.__dict__.setdefault("_known", {})
        if (component, key) not in known:
            values = self._value(component, key) or {}
            if not isinstance(values, dict):
                raise ValueError(f"its {key} is not a table")
            known[component, key] = _Patterns(values) if values else None
        found: _Patterns | None = known[component, key]
        return found
