"""What a candidate for a trigger word is to a base model: how its tokenizer splits it, and whether it means something.

A good trigger means nothing yet. Adapters are taught it either as one rare token or as a few pieces that together are
no word.
"""

import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from studio.errors import ConfigError
from studio.workspace import ASSETS

_RARE = 0.8  # of the vocabulary: ids follow frequency in BPE and in sentencepiece's vocabularies
_LARGE = 10_000  # tokens; in a smaller vocabulary every whole word was often seen
_CLOSE = 0.95  # of ordinary words have their nearest neighbour farther away
_ORDINARY = (  # what people caption pictures with
    "man woman person girl boy child baby face hand eye hair people king queen knight soldier doctor robot monster "
    "ghost dog cat horse bird fish bear lion tiger dragon snake mouse tree flower forest mountain river sea sky sun "
    "moon star fire water snow rain city street house room door window car train ship plane bicycle book phone "
    "table chair bed lamp clock cup food bread apple cake coffee dress hat shoe ring sword gun ball toy red green "
    "blue yellow black white pink orange purple brown gold silver old new big small dark light happy sad photo "
    "picture painting drawing sketch art style anime cartoon portrait landscape logo game film music love night day "
    "summer winter ink pixel paper wood stone glass metal cloud garden bridge "
)


@dataclass(frozen=True)
class TriggerReport:
    """pieces: as the tokenizer splits the word; rare: it is one token that is seldom seen; known: the ordinary word
    that it is or is close to, "" when there is none; nearest: (word, cosine) of the ordinary words that the text
    encoder takes it for, closest first, empty without an encoder; message: all of this in one to three sentences.
    """

    word: str
    pieces: list[str]
    rare: bool
    known: str
    nearest: list[tuple[str, float]] = field(default_factory=list)
    message: str = ""


def trigger_report(word: str, tokenizer: Any, text_encoder: Any = None) -> TriggerReport:
    """What `word` is to the base with this tokenizer and text encoder (both as transformers loads them).

    text_encoder  called with input_ids (N, T) and attention_mask; its pooler_output (N, width) is compared, or the mean
                  of its last_hidden_state where it has none

    Raises ConfigError when there is no word.
    """
    word = " ".join(word.split())
    if not word or len(word) > 100:
        raise ConfigError("Give the trigger word: one word that means nothing yet, like zsk.")
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([one]).strip() or str(tokenizer.convert_ids_to_tokens(one)) for one in ids]
    size = len(tokenizer)
    unknown = tokenizer.unk_token_id in ids
    rare = len(ids) == 1 and not unknown and size >= _LARGE and ids[0] >= _RARE * size
    words = ordinary_words()
    nearest, close = _nearest(word, words, tokenizer, text_encoder) if text_encoder is not None else ([], False)
    known = word.lower() if word.lower() in words else nearest[0][0] if close else ""
    said = [_split(word, pieces, rare, unknown), _meaning(word, pieces, rare, words, known)]
    if close and known != word.lower():
        said.append(
            f"Its text encoder puts it beside {known!r}, whose look it will begin from: another word may be freer."
        )
    return TriggerReport(word, pieces, rare, known, nearest, " ".join(filter(None, said)))


@cache
def ordinary_words() -> frozenset[str]:
    """Words that mean something to any base: common ones, and all that the starter was taught."""
    try:
        taught = json.loads((ASSETS / "starter" / "vocabulary.json").read_bytes())
        phrases = [*taught["names"], *taught["colours"]]
    except (OSError, ValueError, KeyError, TypeError):
        phrases = []
    return frozenset(_ORDINARY.split()).union(*({phrase.lower(), *phrase.lower().split()} for phrase in phrases))


def _split(word: str, pieces: list[str], rare: bool, unknown: bool) -> str:
    if unknown:
        return f"The tokenizer doesn't know all characters of {word!r}: use plain letters."
    if len(pieces) == 1:
        return f"{word!r} is one {'rare ' * rare}token."
    return f"{word!r} is split into {len(pieces)} pieces: {' + '.join(pieces)}."


def _meaning(word: str, pieces: list[str], rare: bool, words: frozenset[str], known: str) -> str:
    if known == word.lower():
        return "It already means something to the base, which the adapter would bend: choose a word that doesn't exist."
    if len(pieces) == 1:
        if known:
            return ""
        if rare:
            return "It means little to the base, so an adapter can make it its own."
        return "The base has seen it often, so it probably means something: a word that doesn't exist is safer."
    inside = [piece for piece in pieces if len(piece) > 2 and piece.lower() in words]
    if inside:
        return f"What {' and '.join(map(repr, inside))} in it means will show in the pictures."
    if known:
        return ""
    return "Together they are no ordinary word, so they can be a trigger." + (
        " Fewer pieces leave more room for the rest of the caption." if len(pieces) > 4 else ""
    )


def _nearest(word: str, words: frozenset[str], tokenizer, text_encoder) -> tuple[list[tuple[str, float]], bool]:
    """(the three ordinary words nearest to `word`, whether the first is nearer than ordinary words are to each other).

    How near words lie differs from encoder to encoder, so the encoder's own ordinary words are the measure.
    """
    import torch

    others = sorted(words - {word.lower()})
    whole = [one for one in others if len(tokenizer(one, add_special_tokens=False)["input_ids"]) == 1]
    others = whole if len(whole) >= 20 else others  # in pieces it may be no word to this base
    states = torch.cat([_embed(part, tokenizer, text_encoder) for part in _parts([word, *others], 64)])
    states = torch.nn.functional.normalize(states - states[1:].mean(0), dim=-1)  # without what all words share
    between = states[1:] @ states[1:].T
    usual = between.fill_diagonal_(-1).max(1).values.quantile(_CLOSE)
    values, places = (states[1:] @ states[0]).topk(min(3, len(others)))
    nearest = [(others[i], round(value, 4)) for i, value in zip(places.tolist(), values.tolist())]
    return nearest, bool(values[0] >= usual)


def _parts(texts: list[str], size: int) -> list[list[str]]:
    return [texts[start : start + size] for start in range(0, len(texts), size)]


def _embed(texts: list[str], tokenizer, text_encoder):
    """(N, width) unit vectors."""
    import torch

    device = next(text_encoder.parameters()).device
    given = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt").to(device)
    with torch.inference_mode():
        answer = text_encoder(input_ids=given.input_ids, attention_mask=given.attention_mask)
        states = getattr(answer, "pooler_output", None)
        if states is None:
            seen = given.attention_mask[..., None]
            states = (answer.last_hidden_state * seen).sum(1) / seen.sum(1)
    return torch.nn.functional.normalize(states.float().cpu(), dim=-1)
