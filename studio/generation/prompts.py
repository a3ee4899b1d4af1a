"""Prompts as people write them for A1111 and Forge, read in one way for page, command line, endpoints and Python.

    (word)  (word:1.3)  [word]    1.1 times, 1.3 times, and 1/1.1 times the attention; they nest and multiply
    \\( \\) \\[ \\]                 the brackets themselves
    BREAK                         begins a new chunk of tokens
    <lora:name:0.8>               an adapter by the name of its file or run; <lyco:…> is the same
    <lora:name:0.5:0.8>           0.5 on the text encoder, 0.8 on the rest; also <lora:name:te=0.5:unet=0.8>

Attention follows A1111's `prompt_parser.parse_prompt_attention`: round and square brackets have a stack each, and one
that is never closed counts to the end. Adapters follow its `extra_networks_lora`: the first number is the text
encoder's, the second the rest's and by default the first; a named number wins over one by position.

`read_prompt` says what of a prompt has no effect here (`problems`) and what can't be drawn as written (`errors`).
"""

import math
import re
from dataclasses import dataclass, replace
from typing import NamedTuple

from studio.basemodels.token_counter import MAX_CHUNKS
from studio.errors import GenerationError
from studio.generation.applied_adapter import MAX_STRENGTH

ROUND, SQUARE = 1.1, 1 / 1.1
LEAST, MOST = -10.0, 10.0  # of a part's weight; beyond them is noise
_HUGE = 1e30  # beyond it a product can't be undone
BREAK = -1.0  # the weight of a part that only says that a new chunk begins, as in A1111

_TAG = re.compile(r"<(\w{1,20}):([^<>]{0,1000})>")
_ADAPTERS = ("lora", "lyco")
_PART = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*([+-]?(?:\d+\.?\d*|\.\d+))\s*\)|[)\]]|[^\\()\[\]:]+|:", re.DOTALL)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


class Part(NamedTuple):
    """A piece of a prompt and its weight; ("BREAK", -1) between two chunks."""

    text: str
    weight: float


class NamedAdapter(NamedTuple):
    """An adapter that a prompt names. text_strength: None where it is that of the rest."""

    name: str
    strength: float
    text_strength: float | None


@dataclass(frozen=True)
class ParsedPrompt:
    """A prompt without its adapter tags, the adapters that they name, and what is wrong with it, a sentence each.

    problems  parts that have no effect, or another one than in the program they come from; the rest can be drawn
    errors    why it can't be drawn as it is written
    """

    text: str
    adapters: tuple[NamedAdapter, ...] = ()
    problems: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    def refuse(self) -> None:
        """Raises GenerationError with the first of the errors."""
        if self.errors:
            raise GenerationError(self.errors[0])


def read_prompt(prompt: str, negative: bool = False) -> ParsedPrompt:
    """The prompt as it will be drawn. negative: it is a negative prompt, in which no adapter can be named."""
    found = take_adapters(prompt, negative)
    breaks = sum(part.weight == BREAK for part in parse(found.text)) if found.text.count("BREAK") >= MAX_CHUNKS else 0
    errors = (too_many_chunks(breaks + 1),) if breaks >= MAX_CHUNKS else ()
    return replace(found, problems=(*found.problems, *unsupported_syntax(found.text)), errors=(*found.errors, *errors))


def take_adapters(prompt: str, negative: bool = False) -> ParsedPrompt:
    """The prompt without its tags; `problems` and `errors` are about these alone."""
    adapters: list[NamedAdapter] = []
    problems: list[str] = []
    errors: list[str] = []

    def take(found: re.Match[str]) -> str:
        kind, tag = found[1].lower(), _short(found[0])
        if kind not in _ADAPTERS:
            problems.append(f"{tag} is not supported and was left out.")
        elif negative:
            problems.append(f"{tag} has no effect in a negative prompt: name adapters in the prompt.")
        else:
            adapter = _adapter(found[2], tag, problems, errors)
            if adapter:
                adapters.append(adapter)
        return ""

    text = _TAG.sub(take, prompt).rstrip(" ,") if "<" in prompt else prompt
    return ParsedPrompt(text, tuple(adapters), tuple(dict.fromkeys(problems)), tuple(dict.fromkeys(errors)))


def refuse_adapter_tags(prompt: str) -> None:
    """Raises GenerationError where a recipe's own prompt still names adapters, which would be drawn as words."""
    named = read_prompt(prompt).adapters
    if named:
        raise GenerationError(
            f"The prompt names the adapter {named[0].name[:60]!r}: give its file in the recipe's adapters, or read the "
            "prompt with studio.services.generation.compose, which finds it by name."
        )


def too_many_chunks(count: int) -> str:
    """The sentence for a prompt that is too long or holds BREAK too often."""
    return f"The prompt makes {count} chunks of tokens, and {MAX_CHUNKS} are the most: shorten it or drop some BREAKs."


# Adapters -----------------------------------------------------------------------------------------------------------


def _adapter(inside: str, tag: str, problems: list[str], errors: list[str]) -> NamedAdapter | None:
    """The adapter of a tag's inside, `name:0.8:unet=1:…`; None where an error was noted."""
    first, *rest = (word.strip() for word in inside.split(":"))
    named = dict(word.split("=", 1) for word in rest if "=" in word)
    placed = [word for word in rest if "=" not in word]
    if not first:
        errors.append(f"{tag} names no adapter: write <lora:name:0.8>.")
        return None
    numbers: list[float | None] = []
    for word in (*placed[:2], *(named[key] for key in ("te", "unet") if key in named)):
        numbers.append(_strength(word, tag, problems, errors))
    if None in numbers:
        return None
    values = [number for number in numbers if number is not None]
    by_name = dict(zip((key for key in ("te", "unet") if key in named), values[len(placed[:2]) :]))
    text = by_name.get("te", values[0] if placed else 1.0)
    strength = by_name.get("unet", values[1] if len(placed) > 1 else text)
    unknown = [f"{key}={value}" for key, value in named.items() if key not in ("te", "unet", "dyn")]
    if "dyn" in named or len(placed) > 2:
        problems.append(f"{tag}: the dynamic rank (dyn) has no effect here; the whole adapter acts.")
    if "lbw" in named:
        problems.append(f"{tag}: block weights (lbw) have no effect in a prompt: set the adapter's blocks instead.")
        unknown = [word for word in unknown if not word.startswith("lbw=")]
    if unknown or len(placed) > 3:
        ignored = ", ".join([*unknown, *placed[3:]])
        problems.append(f"{tag}: {_short(ignored)} has no effect here.")
    return NamedAdapter(first[:200], strength, None if text == strength else text)


def _strength(word: str, tag: str, problems: list[str], errors: list[str]) -> float | None:
    """The number, None where there is none or it is out of range; then an error was noted."""
    plain = word
    if re.fullmatch(r"[+-]?\d*,\d+", word):
        plain = word.replace(",", ".")
        problems.append(f"{tag}: {word} was read as {plain}; numbers have a decimal point.")
    try:
        value = float(plain)
    except ValueError:
        value = math.nan
    if not abs(value) <= MAX_STRENGTH:
        errors.append(
            f"{tag}: {_short(word)!r} is not a strength: write a number from {-MAX_STRENGTH:g} to {MAX_STRENGTH:g}."
        )
        return None
    return value


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:59]}…"


# What other programs know and this one does not ---------------------------------------------------------------------

_NUMBER = r"\s*[+-]?(?:\d+\.?\d*|\.\d+)\s*"
_WORDS = "which is not supported: it is read as plain words."
_SYNTAX: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"[<＜]\s*(?:lora|lyco)\s*[:：][^<>＞]*[＞>]?|(?<!\w)(?:lora|lyco):[^\s<>]{1,200}>", re.IGNORECASE),
        "{0} is no adapter tag as it stands (write <lora:name:0.8>): it is drawn as words.",
    ),
    (re.compile(rf"\[[^\[\]|]*:{_NUMBER}\]"), f"{{0}} is prompt editing, {_WORDS}"),
    (re.compile(r"\[[^\[\]|]*\|[^\[\]]*\]"), f"{{0}} is alternation, {_WORDS}"),
    (re.compile(r"(?<!\w)AND(?!\w)(?=.*\w)"), f"AND combines prompts elsewhere (composable diffusion), {_WORDS}"),
    (re.compile(r"\{[^{}|]*\|[^{}]*\}"), f"{{0}} is a choice of wildcards, {_WORDS}"),
    (re.compile(r"(?<!\w)__[\w/*-]+__(?!\w)"), f"{{0}} is a wildcard, {_WORDS}"),
    (re.compile(r"\{[^{}|]+\}"), "{0} is NovelAI's emphasis, which is not supported: write ({1}:1.05)."),
    (re.compile(r"(?<!\w)embedding:[\w./-]+"), f"{{0}} names an embedding, {_WORDS}"),
    (re.compile(r"\)\.(?:and|blend|swap)\("), f"{{0}} is Compel's syntax, {_WORDS}"),
    (
        re.compile(r"(?:(?<=\w)|(?<=\)))(?:\+{1,5}|-{2,5})(?=[\s,.)]|$)"),
        "{0} behind a word is Compel's emphasis, which is not supported: write (word:1.1).",
    ),
)
_ESCAPED = re.compile(r"\\[()\[\]\\]")


def unsupported_syntax(text: str) -> list[str]:
    """A sentence for each kind of syntax that other programs read and this one does not; at most one for a kind."""
    plain = _ESCAPED.sub("  ", text)
    found = []
    for pattern, sentence in _SYNTAX:
        match = pattern.search(plain)
        if match:
            found.append(sentence.format(_short(match[0]), _short(match[0].strip("{}"))))
    return found


# Attention ----------------------------------------------------------------------------------------------------------


def parse(prompt: str) -> list[Part]:
    """The prompt in parts of one weight each; never empty."""
    parts: list[list] = []
    opened: dict[str, list[int]] = {"(": [], "[": []}  # the first part inside each bracket that is open
    factors: list[tuple[int, int, float]] = []  # (first part, part behind the last, factor)
    for found in _PART.finditer(prompt):
        text = found[0]
        if text in "([":
            opened[text].append(len(parts))
        elif found[1] is not None and opened["("]:
            factors.append((opened["("].pop(), len(parts), min(_HUGE, max(-_HUGE, float(found[1])))))
        elif text == ")" and opened["("]:
            factors.append((opened["("].pop(), len(parts), ROUND))
        elif text == "]" and opened["["]:
            factors.append((opened["["].pop(), len(parts), SQUARE))
        elif text.startswith("\\"):
            parts.append([text[1:], 1.0])
        else:
            for number, piece in enumerate(_BREAK.split(text)):
                if number:
                    parts.append(["BREAK", BREAK])
                parts.append([piece, 1.0])
    factors += [(first, len(parts), ROUND) for first in opened["("]]
    factors += [(first, len(parts), SQUARE) for first in opened["["]]
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
