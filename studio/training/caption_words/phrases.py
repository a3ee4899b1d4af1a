"""Captions as the tags and words that can be dropped from them. No torch here."""

import re
from collections import Counter
from collections.abc import Sequence

from studio.datasets.captions import has_trigger, trigger_pattern

TAG = 3  # words of a part between commas that counts as one tag; a longer part is taken word by word
_SHORT = 3  # letters of a word in a sentence, at least
_STOPPED = """and are but for from has have her his into its near not off onto out over some that the their them there
this under very was were which while who with without your"""
_STOP = frozenset(re.findall(r"\w+", _STOPPED))  # say nothing by themselves


def phrases_of(caption: str, triggers: Sequence[str] = ()) -> list[str]:
    """The triggers that stand in it, its tags, and the words of its sentences; each once, in small letters."""
    found = [trigger.casefold() for trigger in triggers if has_trigger(caption, trigger)]
    for part in _parts(caption):
        bare = _bare(part, triggers)
        if _is_tag(bare):
            found.append(bare.casefold())
        else:
            words = re.findall(r"\w[\w'’-]*", bare.casefold())
            found += [word for word in words if len(word) >= _SHORT and word not in _STOP and not word.isdigit()]
    return [one for one in dict.fromkeys(found) if one]


def without(caption: str, phrase: str, triggers: Sequence[str] = ()) -> str:
    """The caption without this tag, word or trigger, wherever `phrases_of` found it."""
    is_trigger = phrase in [trigger.casefold() for trigger in triggers]
    kept = []
    for part in _parts(caption):
        bare = _bare(part, triggers)
        other_tag = not is_trigger and _is_tag(bare) and bare.casefold() != phrase
        kept.append(part if other_tag else _dropped(part, phrase))
    return ", ".join(part for part in kept if part)


def counted(captions: Sequence[str], triggers: Sequence[str] = ()) -> Counter[str]:
    """How many of the captions have each phrase."""
    return Counter(phrase for caption in captions for phrase in phrases_of(caption, triggers))


def _parts(caption: str) -> list[str]:
    return [part.strip() for part in caption.split(",") if part.strip()]


def _bare(part: str, triggers: Sequence[str]) -> str:
    for trigger in triggers:
        part = _dropped(part, trigger)
    return part


def _dropped(text: str, phrase: str) -> str:
    return " ".join(re.sub(trigger_pattern(phrase), " ", text, flags=re.IGNORECASE).split())


def _is_tag(part: str) -> bool:
    return len(part.split()) <= TAG
