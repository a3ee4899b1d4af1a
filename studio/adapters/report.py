"""What to tell a person about a file."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from studio.adapters.family import family_of
from studio.adapters.files import AdapterFile
from studio.adapters.formulas import glora_is_old
from studio.adapters.insight import effective_rank
from studio.text import pluralize

_BASE_HINTS = ("studio.base", "ss_base_model_version", "ss_sd_model_name", "modelspec.architecture")
_TRIGGER_HINTS = ("studio.trigger", "modelspec.trigger_phrase")


def describe(file: AdapterFile, spectrum: bool = False) -> dict[str, Any]:
    """Everything worth knowing about a file before a model is loaded, as plain JSON data.

    spectrum: also the effective rank, which takes a decomposition of every layer: seconds for large files.
    """
    family = family_of(file.layers, file.metadata)
    return {
        "name": file.name,
        "kind": ", ".join(file.kinds),
        "layout": file.layout,
        "tensors": file.tensors,
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
        "notes": list(file.notes),
        "trigger_words": list(dict.fromkeys(file.metadata[k] for k in _TRIGGER_HINTS if file.metadata.get(k))),
        "size": file.size,
        "sha256": file.hash,
        "unknown": dict(file.unknown),
    }


def describe_text(description: dict[str, Any]) -> str:
    """`describe`'s answer as lines for a terminal."""
    components = ", ".join(f"{name or 'unnamed'} {count}" for name, count in description["components"].items())
    rows = {
        "name": description["name"],
        "kind": f"{description['kind']}, {description['layout']} layout",
        "layers": f"{description['layers']} ({components})",
        "rank": _counts(description["ranks"]),
        "alpha": _counts(description["alphas"]),
        "fits": f"{description['family'] or 'not known'}: {description['family_because']}",
        "base": ", ".join(f"{value} ({key})" for key, value in description["base"].items()) or "not given",
        "trigger": ", ".join(description["trigger_words"]) or "not given",
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
        rows["words"] = f"{', '.join(description['embeddings'])} (bundled embeddings, not used here)"
    if description["rules"]:
        rows["rules"] = "; ".join(description["rules"])
    if description["notes"]:
        rows["notes"] = "; ".join(description["notes"])
    unknown = description["unknown"]
    if unknown:
        some = ", ".join(f"{key} ({why})" for key, why in list(unknown.items())[:3])
        rows["unused"] = f"{pluralize(len(unknown), 'tensor')}: {some}{', …' if len(unknown) > 3 else ''}"
    return "\n".join(f"{label:<8} {_printable(value)}" for label, value in rows.items())


def short_notes(file: AdapterFile) -> tuple[str, ...]:
    """A few words for each thing in the file that is not used or was assumed: for one line beside the adapter."""
    out = []
    if file.unknown:
        out.append(f"{pluralize(len(file.unknown), 'tensor')} not used")
    if file.embeddings:
        out.append(f"{pluralize(len(file.embeddings), 'bundled embedding')} not used")
    return (*out, *file.notes)


def left_out(file: AdapterFile, unused: Sequence[tuple[str, str]] = ()) -> list[str]:
    """A sentence for each thing that the file has and that is not written when it is changed.

    unused: (key, why) of layers that have no place in the base, from `place_layers`.
    """
    out = []
    if unused:
        out.append(f"Left out, with no place in the base: {pluralize(len(unused), 'layer')} ({_reasons(unused)}).")
    if file.unknown:
        count = pluralize(len(file.unknown), "tensor")
        out.append(f"Left out, since they are not read here: {count} ({_reasons(list(file.unknown.items()))}).")
    if file.embeddings:
        out.append(f"Left out, since this layout has no place for bundled embeddings: {', '.join(file.embeddings)}.")
    return out


def _reasons(unused: Sequence[tuple[str, str]]) -> str:
    """The commonest reasons, each with its count and the first key."""
    first: dict[str, str] = {}
    for key, why in unused:
        first.setdefault(why, key)
    most = Counter(why for _, why in unused).most_common(3)
    return _printable("; ".join(f"{first[why]}: {why}" + (f" ({count})" if count > 1 else "") for why, count in most))


def _rules(file: AdapterFile) -> list[str]:
    """The rule followed where programs read such a file differently."""
    rules = []
    updates = list(file.layers.values())
    axes = {update.axis or "the one that fits, else the output" for update in updates if "magnitude" in update.parts}
    if axes:
        rules.append(f"DoRA's magnitude runs along {' and '.join(sorted(axes))}; strength 0 is the base")
    if any(update.kind == "lokr" and not update.rank for update in updates):
        rules.append("LoKr with two full factors has the scale 1, whatever its alpha")
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
