"""What to adapt, and how strongly: the settings of a new adapter."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from studio.errors import AdapterError

MAX_RANK = 1024
KINDS = ("lora", "dora", "tucker", "loha", "lokr", "oft", "oftv2")
INITS = ("standard", "pissa")

_ATTENTION = (
    r"\b(attn\d*|attention)\.to_(q|k|v|out\.0)$",
    r"\battn\d*\.(add_(q|k|v)_proj|to_add_out)$",  # the words' side of FLUX and SD 3
    r"\bself_attn\.(q|k|v|o|out)_proj$",
)
_FEED_FORWARD = (
    r"\bff(_context)?\.net\.(0\.proj|2)$",
    r"\bsingle_transformer_blocks\.\d+\.proj_(mlp|out)$",  # FLUX; proj_out is the attention's way out too
    r"\bfeed_forward\.w[123]$",
    r"\bmlp\.(fc1|fc2|gate_proj|up_proj|down_proj)$",
)
# Layers that read the prompt and nothing else: cross-attention of a U-Net, the words' side of a transformer.
_TEXT = (
    r"attentions\.\d+\.transformer_blocks\.\d+\.attn2\.|\badd_(q|k|v)_proj$|\bto_add_out$|\bff_context\.|"
    r"\bnorm1_context\.|\bcontext_embedder$|\btext_embedder\.|\badd_embedding\.|\bcontext_refiner\.|\bcap_embedder\."
)
PRESETS = {
    "attention": _ATTENTION,
    "attention+feed-forward": _ATTENTION + _FEED_FORWARD,
    "all": ("",),
    "no-text": (f"^(?!.*({_TEXT}))",),
    # The blocks of SDXL that B-LoRA found to hold style and content (arXiv:2403.14572, sec. 4).
    "sdxl-style": (r"^up_blocks\.0\.attentions\.1\.",),
    "sdxl-content": (r"^up_blocks\.0\.attentions\.0\.",),
}


@dataclass(frozen=True)
class AdapterSpec:
    """Settings of a new adapter, checked when made.

    rank        how many directions each layer may move in, 1..1024
    alpha       the update is scaled by alpha / rank; None means rank, a scale of 1
    kind        "lora", "dora" (LoRA with the length of each output trained apart), "tucker" (LoRA in three parts on
                convolutions), "loha" (a product of two LoRAs), "lokr" (a Kronecker product), "oft"
                (turns of the outputs in blocks no larger than the rank; alpha has no say), "oftv2" (PEFT's: turns of
                the inputs)
    targets     a preset's name, or regular expressions searched in each layer's path (a preset's name works there too)
    dropout     share of the inputs hidden from the adapter while it trains, 0..1
    stabilised  scale by alpha / sqrt(rank) instead (arXiv:2312.03732), so that a high rank learns as fast as a low one
    init        "standard" (A random, B zero), or "pissa": from the strongest directions of the weight itself
    ranks       {regular expression: rank} for layers that shall differ; the first that fits counts, 0 leaves them out
    alphas      the same for alpha

    Raises AdapterError.
    """

    rank: int = 8
    alpha: float | None = None
    kind: str = "lora"
    targets: tuple[str, ...] | str = "all"
    dropout: float = 0.0
    stabilised: bool = False
    init: str = "standard"
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise AdapterError(f"The adapter kind {self.kind!r} is unknown: use {', '.join(KINDS)}.")
        for rank, least in ((self.rank, 1), *((rank, 0) for rank in self.ranks.values())):
            if type(rank) is not int or not least <= rank <= MAX_RANK:
                raise AdapterError(f"The rank must be a whole number from 1 to {MAX_RANK} (you gave {rank!r}).")
        for alpha in (self.alpha, *self.alphas.values()):
            if alpha is not None and not (_is_number(alpha) and alpha > 0):
                raise AdapterError(f"Alpha must be a number above 0 (you gave {alpha!r}).")
        if self.init not in INITS or (self.init == "pissa" and self.kind not in ("lora", "dora")):
            raise AdapterError(f"The init {self.init!r} does not go with {self.kind}: use standard.")
        if not (_is_number(self.dropout) and 0 <= self.dropout < 1):
            raise AdapterError(f"The dropout must be at least 0 and below 1 (you gave {self.dropout!r}).")
        if isinstance(self.targets, str) and self.targets not in PRESETS:
            known = ", ".join(PRESETS)
            raise AdapterError(f"The targets {self.targets!r} are unknown: use {known}, or a list of patterns.")
        if not isinstance(self.targets, str):
            object.__setattr__(self, "targets", tuple(self.targets))
        if not self.patterns:
            raise AdapterError("The adapter has no targets: name at least one.")
        for pattern in (*self.patterns, *self.ranks, *self.alphas):
            try:
                re.compile(pattern).search("")
            except (re.error, TypeError, OverflowError, RecursionError) as error:
                reason = f"{str(pattern)[:60]!r} is not a regular expression: {error}"
                raise AdapterError(f"The target {reason}.") from error

    def rank_of(self, path: str) -> int:
        """The rank of the layer at `path`."""
        return next((rank for pattern, rank in self.ranks.items() if re.search(pattern, path)), self.rank)

    def alpha_of(self, path: str) -> float:
        """The alpha of the layer at `path`: its rank where none is set."""
        alpha = next((alpha for pattern, alpha in self.alphas.items() if re.search(pattern, path)), self.alpha)
        return float(self.rank_of(path) if alpha is None else alpha)

    @property
    def patterns(self) -> tuple[str, ...]:
        """The regular expressions that `targets` stands for."""
        names = (self.targets,) if isinstance(self.targets, str) else self.targets
        return tuple(pattern for name in names for pattern in PRESETS.get(name, (name,)))

    def wants(self, path: str) -> bool:
        """Whether the layer at `path` is a target."""
        return any(re.search(pattern, path) for pattern in self.patterns) and self.rank_of(path) > 0


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
