"""What a candidate for a trigger word is to a base model: how its tokenizer splits it, and whether it means something.

A good trigger means nothing yet. Adapters are taught it either as one rare token or as a few pieces that together are
no word.
"""

import json
from dataclasses import dataclass
from functools import cache
from typing import Any

from studio.basemodels.clip_vocabulary import RARE
from studio.errors import ConfigError
from studio.workspace import ASSETS

_LARGE = 10_000  # tokens; in a smaller vocabulary every whole word was often seen
_ORDINARY = (  # what people caption images with
    "man woman person girl boy child baby face hand eye hair people king queen knight soldier doctor robot monster "
    "ghost dog cat horse bird fish bear lion tiger dragon snake mouse tree flower forest mountain river sea sky sun "
    "moon star fire water snow rain city street house room door window car train ship plane bicycle book phone "
    "table chair bed lamp clock cup food bread apple cake coffee dress hat shoe ring sword gun ball toy red green "
    "blue yellow black white pink orange purple brown gold silver old new big small dark light happy sad photo "
    "picture image painting drawing sketch art style anime cartoon portrait landscape logo game film music love "
    "night day summer winter ink pixel paper wood stone glass metal cloud garden bridge "
)


@dataclass(frozen=True)
class TriggerReport:
    """pieces: as the tokenizer splits the word; rare: it is one token that is seldom seen; known: it is a word that
    means something to any base; message: all of this in one or two sentences.
    """

    word: str
    pieces: list[str]
    rare: bool
    known: bool
    message: str


def trigger_report(word: str, tokenizer: Any) -> TriggerReport:
    """What `word` is to the base with this tokenizer of transformers. Raises ConfigError when there is no word."""
    word = " ".join(word.split())
    if not word or len(word) > 100:
        raise ConfigError("Give the trigger word: one word that means nothing yet, like zsk.")
    ids = tokenizer(word, add_special_tokens=False)["input_ids"]
    pieces = [tokenizer.decode([one]).strip() or str(tokenizer.convert_ids_to_tokens(one)) for one in ids]
    size = len(tokenizer)
    if tokenizer.unk_token_id in ids:
        reason = f"The tokenizer doesn't know all characters of {word!r}: use plain letters."
        return TriggerReport(word, pieces, False, False, reason)
    rare = len(ids) == 1 and size >= _LARGE and ids[0] >= RARE * size
    known = word.lower() in ordinary_words()
    return TriggerReport(word, pieces, rare, known, f"{_split(word, pieces, rare)} {_meaning(pieces, rare, known)}")


@cache
def ordinary_words() -> frozenset[str]:
    """Words that mean something to any base: common ones, and all that the starter was taught."""
    try:
        taught = json.loads((ASSETS / "starter" / "vocabulary.json").read_bytes())
        phrases = [*taught["names"], *taught["colours"]]
    except (OSError, ValueError, KeyError, TypeError):
        phrases = []
    return frozenset(_ORDINARY.split()).union(*({phrase.lower(), *phrase.lower().split()} for phrase in phrases))


def _split(word: str, pieces: list[str], rare: bool) -> str:
    if len(pieces) == 1:
        return f"{word!r} is one {'rare ' * rare}token."
    return f"{word!r} is split into {len(pieces)} pieces: {' + '.join(pieces)}."


def _meaning(pieces: list[str], rare: bool, known: bool) -> str:
    if known:
        return "It already means something to the base, which the adapter would bend: choose a word that doesn't exist."
    if len(pieces) == 1:
        if rare:
            return "It means little to the base, so an adapter can make it its own."
        return "The base has seen it often, so it probably means something: a word that doesn't exist is safer."
    inside = [piece for piece in pieces if len(piece) > 2 and piece.lower() in ordinary_words()]
    if inside:
        return f"What {' and '.join(map(repr, inside))} in it means will show in the images."
    return "Together they are no ordinary word, so they can be a trigger." + (
        " Fewer pieces leave more room for the rest of the caption." if len(pieces) > 4 else ""
    )
