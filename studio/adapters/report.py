"""What to tell a person about a file."""

from collections import Counter

from studio.adapters.family import family_of
from studio.adapters.files import AdapterFile
from studio.adapters.formulas import glora_is_old
from studio.adapters.insight import effective_rank

_BASE_HINTS = ("studio.base", "ss_base_model_version", "ss_sd_model_name", "modelspec.architecture")
_TRIGGER_HINTS = ("studio.trigger", "modelspec.trigger_phrase")


def describe(file: AdapterFile, spectrum: bool = True) -> dict:
    """Everything worth knowing about a file before a model is loaded, as plain JSON data.

    spectrum: False leaves out the effective rank, which takes a decomposition of every layer.
    """
    family = family_of(file.layers, file.metadata)
    return {
        "name": file.name,
        "kind": ", ".join(file.kinds),
        "layout": file.layout,
        "layers": len(file.layers),
        "components": dict(Counter(component for component, _ in file.layers)),
        "ranks": {str(rank): count for rank, count in sorted(file.ranks.items())},
        "alphas": {f"{alpha:g}": count for alpha, count in sorted(file.alphas.items())},
        "base": {key: file.metadata[key] for key in _BASE_HINTS if file.metadata.get(key)},
        "family": family.name,
        "family_because": family.why,
        "effective_rank": effective_rank(file) if spectrum else None,
        "not_finite": list(file.not_finite),
        "embeddings": {token: sorted(parts) for token, parts in file.embeddings.items()},
        "rules": _rules(file),
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
        "fits": f"{description['family'] or 'not known'}: {description['family_because']}",
        "base": ", ".join(f"{value} ({key})" for key, value in description["base"].items()) or "not said",
        "trigger": ", ".join(description["trigger_words"]) or "not said",
        "size": f"{description['size']:,} bytes",
        "sha256": description["sha256"],
    }
    used = description["effective_rank"]
    if used:
        rows["used"] = f"{used['median']} directions hold 95 % of the median layer, {used['largest']} of the largest"
        if used["zero"]:
            rows["used"] += f"; {used['zero']} layers do nothing"
    if description["not_finite"]:
        rows["damaged"] = f"numbers that are not finite in {', '.join(description['not_finite'][:3])}"
    if description["embeddings"]:
        rows["words"] = ", ".join(description["embeddings"])
    if description["rules"]:
        rows["rules"] = "; ".join(description["rules"])
    unknown = description["unknown"]
    if unknown:
        some = ", ".join(f"{key} ({why})" for key, why in list(unknown.items())[:3])
        rows["unused"] = f"{len(unknown)} keys: {some}{', …' if len(unknown) > 3 else ''}"
    return "\n".join(f"{label:<8} {_printable(value)}" for label, value in rows.items())


def _rules(file: AdapterFile) -> list[str]:
    """The rule followed where programs read such a file differently."""
    rules = []
    updates = list(file.layers.values())
    axes = {update.axis or "the one that fits, else the output" for update in updates if "magnitude" in update.parts}
    if axes:
        rules.append(f"DoRA's magnitude runs along {' and '.join(sorted(axes))}; strength 0 is the base")
    if any(update.kind == "lokr" and not update.rank for update in updates):
        rules.append("LoKr with two whole factors has the scale 1, whatever its alpha")
    if any(update.kind == "glora" for update in updates):
        old = any(update.kind == "glora" and glora_is_old(dict(update.parts)) for update in updates)
        rules.append(f"GLoRA in the {'old' if old else 'new'} order, by shape")
    if any(update.kind == "boft" for update in updates):
        rules.append("BOFT's strength scales its whole difference, not each of its turns")
    return rules


def _counts(numbers: dict[str, int]) -> str:
    if len(numbers) == 1:
        return next(iter(numbers))
    return ", ".join(f"{number} ({count} layers)" for number, count in numbers.items())


def _printable(text: str, limit: int = 400) -> str:
    """A stranger's text without the control characters that could drive a terminal."""
    clean = "".join(c if c.isprintable() else "�" for c in text)
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
