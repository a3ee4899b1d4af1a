"""What to tell a person about a file, and about how it fitted."""

from collections import Counter
from dataclasses import dataclass, field

from studio.adapters.files import AdapterFile

_BASE_HINTS = ("studio.base", "ss_base_model_version", "ss_sd_model_name", "modelspec.architecture")
_TRIGGER_HINTS = ("studio.trigger", "modelspec.trigger_phrase")


@dataclass(frozen=True)
class MatchReport:
    """How a file's layers fitted the loaded base: matched of total, and (key, why) of everything that was not used."""

    matched: int
    total: int
    unused: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        line = f"{self.matched} of {self.total} layers applied"
        if self.unused:
            reasons = Counter(why for _, why in self.unused).most_common(3)
            line += f", {len(self.unused)} keys unused: " + "; ".join(f"{why} ({count})" for why, count in reasons)
        return line


def describe(file: AdapterFile) -> dict:
    """Everything worth knowing about a file before a model is loaded, as plain JSON data."""
    return {
        "name": file.name,
        "kind": ", ".join(file.kinds),
        "layout": file.layout,
        "layers": len(file.layers),
        "components": dict(Counter(component for component, _ in file.layers)),
        "ranks": {str(rank): count for rank, count in sorted(file.ranks.items())},
        "alphas": {f"{alpha:g}": count for alpha, count in sorted(file.alphas.items())},
        "base": {key: file.metadata[key] for key in _BASE_HINTS if file.metadata.get(key)},
        "trigger_words": list(dict.fromkeys(file.metadata[k] for k in _TRIGGER_HINTS if file.metadata.get(k))),
        "size": file.size,
        "sha256": file.hash,
        "unknown": dict(file.unknown),
    }


def describe_text(description: dict) -> str:
    """`describe`'s answer as lines for a terminal."""
    components = ", ".join(f"{name or 'unnamed'} {count}" for name, count in description["components"].items())
    rows = {
        "name": description["name"],
        "kind": f"{description['kind']}, {description['layout']} layout",
        "layers": f"{description['layers']} ({components})",
        "rank": _counts(description["ranks"]),
        "alpha": _counts(description["alphas"]),
        "base": ", ".join(f"{value} ({key})" for key, value in description["base"].items()) or "not said",
        "trigger": ", ".join(description["trigger_words"]) or "not said",
        "size": f"{description['size']:,} bytes",
        "sha256": description["sha256"],
    }
    unknown = description["unknown"]
    if unknown:
        some = ", ".join(f"{key} ({why})" for key, why in list(unknown.items())[:3])
        rows["unused"] = f"{len(unknown)} keys: {some}{', …' if len(unknown) > 3 else ''}"
    return "\n".join(f"{label:<8} {_printable(value)}" for label, value in rows.items())


def _counts(numbers: dict[str, int]) -> str:
    if len(numbers) == 1:
        return next(iter(numbers))
    return ", ".join(f"{number} ({count} layers)" for number, count in numbers.items())


def _printable(text: str, limit: int = 400) -> str:
    """A stranger's text without the control characters that could drive a terminal."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
