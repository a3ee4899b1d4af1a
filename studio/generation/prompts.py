"""Prompts as people write them for A1111 and Forge.

    (word)  (word:1.3)  [word]    1.1 times, 1.3 times, and 1/1.1 times the attention; they nest and multiply
    \\( \\) \\[ \\]                 the brackets themselves
    BREAK                         begins a new chunk of tokens
    <lora:name:0.8>               an adapter by the name of its file or run; <lora:name:0.8:0.5> its text encoder apart

The rules are those of A1111's `prompt_parser.parse_prompt_attention`: a bracket that is never closed counts to the end.
"""

import math
import re
from typing import NamedTuple

ROUND, SQUARE = 1.1, 1 / 1.1
LEAST, MOST = -10.0, 10.0  # of a weight; beyond them is noise
_HUGE = 1e30  # beyond it a product can't be undone
BREAK = -1.0  # the weight of a part that only says that a new chunk begins, as in A1111

_LORA = re.compile(r"<lora:([^:<>]{1,200})((?::[^:<>]{0,40}){0,4})>", re.IGNORECASE)
_PART = re.compile(r"\\[()\[\]\\]|[(\[]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[)\]]|[^\\()\[\]:]+|[\\:]", re.DOTALL)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


class Part(NamedTuple):
    """A piece of a prompt and its weight; ("BREAK", -1) between two chunks."""

    text: str
    weight: float


class Named(NamedTuple):
    """An adapter that a prompt names. text_strength: None where it is not said apart."""

    name: str
    strength: float
    text_strength: float | None


def take_adapters(prompt: str) -> tuple[str, list[Named]]:
    """(the prompt without them, the adapters that it names). A strength that is no number counts as 1."""
    named = []

    def note(found: re.Match[str]) -> str:
        numbers = [_number(word.partition("=")[2] or word) for word in found[2].split(":")[1:]]
        strength = numbers[0] if numbers and numbers[0] is not None else 1.0
        named.append(Named(found[1].strip(), strength, numbers[1] if len(numbers) > 1 else None))
        return ""

    return _LORA.sub(note, prompt).rstrip(" ,") if "<" in prompt else prompt, named


def parse(prompt: str) -> list[Part]:
    """The prompt in parts of one weight each; never empty."""
    parts: list[list] = []
    opened: list[tuple[str, int]] = []  # (bracket, the first part inside it)
    factors: list[tuple[int, int, float]] = []  # (first part, part behind the last, factor)
    for found in _PART.finditer(prompt):
        text = found[0]
        if text in "([":
            opened.append((text, len(parts)))
        elif found[1] is not None and opened and opened[-1][0] == "(":
            factors.append((opened.pop()[1], len(parts), min(_HUGE, max(-_HUGE, float(found[1])))))
        elif text in ")]" and opened and opened[-1][0] == "(["[text == "]"]:
            bracket, first = opened.pop()
            factors.append((first, len(parts), ROUND if bracket == "(" else SQUARE))
        elif text.startswith("\\") and len(text) == 2:
            parts.append([text[1], 1.0])
        else:
            for number, piece in enumerate(_BREAK.split(text)):
                if number:
                    parts.append(["BREAK", BREAK])
                parts.append([piece, 1.0])
    factors += [(first, len(parts), ROUND if bracket == "(" else SQUARE) for bracket, first in opened]
    return _joined(parts, _products(factors, len(parts)))


def _products(factors: list[tuple[int, int, float]], count: int) -> list[float]:
    """The product of all factors over each part, by differences of logarithms: 10,000 brackets take no time."""
    sums, signs, zeros = [0.0] * (count + 1), [0] * (count + 1), [0] * (count + 1)
    for first, end, factor in factors:
        for place, way in ((first, 1), (end, -1)):
            sums[place] += way * math.log(abs(factor)) if factor else 0.0
            signs[place] += way * (factor < 0)
            zeros[place] += way * (factor == 0)
    products, log, sign, zero = [], 0.0, 0, 0
    for place in range(count):
        log, sign, zero = log + sums[place], sign + signs[place], zero + zeros[place]
        size = 0.0 if zero else math.exp(min(50.0, log))
        products.append(min(MOST, max(LEAST, round(-size if sign % 2 else size, 6))))
    return products


def _joined(parts: list[list], weights: list[float]) -> list[Part]:
    found: list[Part] = []
    for (text, own), weight in zip(parts, weights):
        if own == BREAK:
            found.append(Part(text, BREAK))
        elif not text:
            continue
        elif found and found[-1].weight == weight and found[-1].text != "BREAK":
            found[-1] = Part(found[-1].text + text, weight)
        else:
            found.append(Part(text, weight))
    return found or [Part("", 1.0)]


def _number(word: str) -> float | None:
    try:
        value = float(word)
    except ValueError:
        return None
    return min(MOST, max(LEAST, value)) if math.isfinite(value) else None
