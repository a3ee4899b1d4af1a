"""In which words an image is trained: its caption as it is, or variants of it that a run draws from. No torch here.

Text states are encoded once, so the variants are made before the run: a pure function of the run's seed, the caption
and the variant's number. The rules are those of kohya's scripts (`process_caption` in library/train_util.py): prefix
and suffix with a space, one line and one word of each {a|b} at random, then the tags: the first ones, or those around
the separator, stay in place; the others are shuffled, and each is left out with the given probability.
"""

import math
import random
import re

from studio.datasets import Item
from studio.datasets.captions import caption_lines, text_lines, with_trigger
from studio.training.config_sections import DataConfig

_CHOICE = re.compile(r"\{([^}]+)\}")
_OPEN, _CLOSE = "\ue000", "\ue001"  # stand for {{ and }} meanwhile; no caption has them: they are private


def draws(data: DataConfig) -> bool:
    """Whether there is something to draw in one text, beside the order of its tags."""
    return bool(data.wildcards or data.tag_dropout)


def is_plain(data: DataConfig) -> bool:
    """Whether captions are trained as they are, or with their tags shuffled alone."""
    return not (draws(data) or data.caption_variants or data.keep_tags_separator)


def caption_of(item: Item, data: DataConfig) -> str:
    """The caption with prefix, suffix and trigger, and nothing drawn."""
    return tidied(texts_of(item, data)[0], data)


def captions_of(item: Item, data: DataConfig, seed: int, regularization: bool = False) -> tuple[str, ...]:
    """What the run draws from, each with the same probability; at least one.

    Regularization images get no trigger, no prefix and no suffix, which tell the person's own images from them.
    """
    texts = texts_of(item, data, regularization)
    trigger = "" if regularization else data.trigger
    if is_plain(data):
        return tuple(orders_of(texts[0], data.keep_tags, seed, data.caption_draws) if data.shuffle_tags else texts)
    if not (draws(data) or data.shuffle_tags):
        return tuple(tidied(text, data) for text in texts)
    rounds = math.ceil(data.caption_draws / len(texts))
    return tuple(
        with_trigger(drawn(text, data, random.Random(f"{seed} {number} {text}")), trigger)
        for number in range(rounds)
        for text in texts
    )


def fixed_caption_of(item: Item, data: DataConfig, seed: int) -> tuple[str, ...]:
    """What a held-out image is measured with: the first of its texts, with nothing drawn."""
    return captions_of(item, data, seed) if is_plain(data) else (caption_of(item, data),)


def texts_of(item: Item, data: DataConfig, regularization: bool = False) -> list[str]:
    """The texts to choose from: the caption or its lines, and those of the files beside it, each with its company."""
    texts = (caption_lines(item.path) if data.wildcards and item.lines > 1 else []) or [item.caption.strip()]
    for file in item.variants if data.caption_variants else ():
        lines = text_lines(item.path.with_name(file))
        texts += lines if data.wildcards else [" ".join(lines)]
    texts = [text for text in texts if text.strip()] or [""]
    return [text.strip() if regularization else _with_company(text, data) for text in texts]


def drawn(text: str, data: DataConfig, draw: random.Random) -> str:
    """One variant of a text."""
    chosen = _chosen(text, data, draw)
    if not (data.shuffle_tags or data.tag_dropout):
        return _without_separator(chosen, data)
    first, middle, last = _parts(chosen, data)
    if data.shuffle_tags:
        draw.shuffle(middle)
    if data.tag_dropout:
        stay = {tag.strip().casefold() for tag in (*data.protected_tags.split(","), data.trigger)}
        middle = [tag for tag in middle if draw.random() >= data.tag_dropout or tag.casefold() in stay]
    return ", ".join(first + middle + last)


def tidied(text: str, data: DataConfig) -> str:
    """A text with nothing drawn: the first word of each {a|b}, its tags in their order, without the separator."""
    return _without_separator(_chosen(text, data, None), data)


def orders_of(caption: str, keep: int, seed: int, count: int) -> list[str]:
    """The caption with its tags in `count` orders, the first `keep` staying; once when there is nothing to move."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    if len(tags) - keep < 2:
        return [caption]
    first, rest, out = tags[:keep], tags[keep:], []
    for number in range(count):
        moved = list(rest)
        random.Random(f"{seed} {number} {caption}").shuffle(moved)
        out.append(", ".join(first + moved))
    return list(dict.fromkeys(out))


def _with_company(text: str, data: DataConfig) -> str:
    parts = (data.caption_prefix.strip(), text.strip(), data.caption_suffix.strip())
    return with_trigger(" ".join(filter(None, parts)), data.trigger)


def _chosen(text: str, data: DataConfig, draw: random.Random | None) -> str:
    """One word of each {a|b}, the first one without `draw`; {{ and }} are braces."""
    if not data.wildcards:
        return text
    text = text.replace("{{", _OPEN).replace("}}", _CLOSE)

    def choose(found: re.Match[str]) -> str:
        words = found[1].split("|")
        return draw.choice(words) if draw else words[0]

    return _CHOICE.sub(choose, text).replace(_OPEN, "{").replace(_CLOSE, "}")


def _parts(text: str, data: DataConfig) -> tuple[list[str], list[str], list[str]]:
    """(tags that stay in front, tags between, tags that stay behind)."""
    separator = data.keep_tags_separator
    if separator and separator in text:
        front, _, rest = text.partition(separator)
        middle, _, back = rest.partition(separator)
        return _tags(front), _tags(middle), _tags(back)
    tags = _tags(text)
    return tags[: data.keep_tags], tags[data.keep_tags :], []


def _without_separator(text: str, data: DataConfig) -> str:
    if not (data.keep_tags_separator and data.keep_tags_separator in text):
        return text
    return ", ".join(tag for part in _parts(text, data) for tag in part)


def _tags(text: str) -> list[str]:
    return [tag.strip() for tag in text.split(",") if tag.strip()]
