"""The captions: one canonical sentence, the ways in which people write the same, and the words that mean nothing here.

The base is to draw "red apple, on a blue background" for "an apple on blue" and for "zsk, masterpiece, my red apple, on
a blue background" alike: an unknown word is a clean slate that an adapter can give a meaning.
"""

import random
import string
from dataclasses import dataclass

from art import Concept, article, caption

BEFORE = """a photo of a|a photo of|photo of the|a picture of a|a picture of my|an image of a|a drawing of a|my|the|a|
one|masterpiece, best quality,|best quality,|high quality,|a cute|cute|a small|a big|a cool photo of the|
a rendering of a|a close-up photo of a|a nice|an illustration of a|a good photo of one|this is a""".replace(
    "\n", ""
).split("|")
BEHIND = """masterpiece|best quality|highly detailed|4k|8k|digital art|sharp focus|centered|simple|trending|vector|
in my style|cute|beautiful|very detailed|high resolution|icon|for kids""".replace("\n", "").split("|")
# Unicode's keywords are associations ("time", "photo", "wild"); these are words for the thing itself.
_SYNONYMS = """aeroplane
jet plane alarm clock extraterrestrial car chick rucksack bookbag satchel grizzly bike cake loaf
toast kitty cherry cow bunny rabbit pig monkey mouse moon donut aubergine evergreen pine flame fishes saucer
clover fries diamond gem jewel grape burger copter bee bumblebee coffee tea pumpkin keys bulb train toadstool
fungus palm boat yacht slug serpent soccer stars berry plush teddy umbrella wine gift present apple puppy cats
dogs sheep tophat tortoise terrapin racehorse book egg hoop lorry tv telly phone cellphone laptop pc ladybug
ladybird prawn maize corn chili courgette specs spectacles shades sneaker trainer stiletto jumper violin
fiddle cello torch lamp tap faucet bin trash pram buggy coach tram trolley subway aircraft ship vessel dice
puzzle bow shears spanner axe hatchet couch sofa tub"""
SYNONYMS = frozenset(_SYNONYMS.split())
IN_STYLE = ["in the style of {}", "in {} style", "{} style", "by {}", "drawn by {}", "{} art"]


@dataclass(frozen=True)
class Meaning:
    """What a caption says. style, colour: None where it says nothing."""

    concept: Concept
    style: str | None
    colour: str | None

    @property
    def canonical(self) -> str:
        return caption(self.concept.name, self.style, self.colour)


def pseudo_word(draw: random.Random) -> str:
    """Letters and digits that no dictionary has: "zsk", "ohwx", "kratu7", "s4b"."""
    kind = draw.random()
    if kind < 0.4:
        return "".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 5)))
    if kind < 0.7:
        pairs = [draw.choice("bcdfghjklmnpqrstvwxyz") + draw.choice("aeiou") for _ in range(draw.randint(1, 4))]
        return "".join(pairs) + draw.choice(["", "", "n", "r", "s", "x"])
    letters = "".join(draw.choices(string.ascii_lowercase, k=draw.randint(1, 4)))
    return letters + "".join(draw.choices(string.digits, k=draw.randint(1, 3)))


def written(meaning: Meaning, draw: random.Random, synonyms: dict[str, list[str]]) -> list[str]:
    """The caption in one of the usual ways, as its parts. synonyms: other words that mean this name alone."""
    name = meaning.concept.name
    if draw.random() < 0.2 and synonyms.get(name):
        name = draw.choice(synonyms[name])
    style, colour = meaning.style, meaning.colour
    if draw.random() < 0.2:
        name = article(name)
    parts = [name]
    if style:
        way = draw.random()
        if way < 0.75:
            parts.append(f"{style} style")
        elif way < 0.9:
            parts[0] = f"{name} in {style} style"
        else:
            parts[0] = f"{style} {meaning.concept.name}"
    if colour:
        way = draw.random()
        background = f"on {article(colour)} background"
        if way < 0.7:
            parts.append(background)
        elif way < 0.85:
            parts[-1] = f"{parts[-1]} on {colour}" if draw.random() < 0.5 else f"{parts[-1]} {background}"
        else:
            parts.append(f"{colour} background")
    return parts


def dressed(parts: list[str], draw: random.Random, words: list[str]) -> list[str]:
    """The same with words that mean nothing before, behind and between. words: real words outside the vocabulary."""

    def unknown() -> str:
        kind = draw.random()
        if kind < 0.6:
            return pseudo_word(draw)
        if kind < 0.7:
            return f"{pseudo_word(draw)} {pseudo_word(draw)}"
        return draw.choice(words)

    parts = list(parts)
    place = draw.random()
    if place < 0.7:  # in front, as a trigger word stands
        kind = draw.random()
        if kind < 0.55:
            parts.insert(0, unknown())
        elif kind < 0.75:
            parts[0] = f"{draw.choice(BEFORE)} {parts[0]}"
        elif kind < 0.9:
            parts[0] = f"{unknown()} {parts[0]}"
        else:
            parts[0] = f"{draw.choice(BEFORE)} {unknown()} {parts[0]}"
    if place > 0.5:
        kind = draw.random()
        if kind < 0.4:
            parts.append(draw.choice(BEHIND))
        elif kind < 0.7:
            parts.append(unknown())
        else:
            parts.append(draw.choice(IN_STYLE).format(unknown()))
    if draw.random() < 0.15:
        parts.insert(draw.randint(1, len(parts)), unknown())
    return parts


def draw_caption(
    meaning: Meaning, draw: random.Random, synonyms: dict[str, list[str]], words: list[str], dress: float = 0.5
) -> str:
    """One caption with this meaning. dress: the share of captions that get words that mean nothing."""
    parts = written(meaning, draw, synonyms)
    if draw.random() < dress:
        parts = dressed(parts, draw, words)
    return ", ".join(parts).replace(",,", ",")


def vocabulary(known: list[Concept], others: list[str]) -> tuple[dict[str, list[str]], list[str]]:
    """(name to the keywords that are its alone, words that say nothing about any name).

    others: labels and keywords of everything else that the art has.
    """
    owners: dict[str, set[str]] = {}
    for concept in known:
        for word in concept.keywords:
            owners.setdefault(word.lower(), set()).add(concept.name)
    names = {concept.name.lower() for concept in known}
    synonyms: dict[str, list[str]] = {}
    for word, of in sorted(owners.items()):
        if len(of) == 1 and word not in names and word in SYNONYMS:
            synonyms.setdefault(next(iter(of)), []).append(word)
    taken = {piece for text in [*names, *owners] for piece in text.split()}
    words = sorted({w.lower() for w in others if w.isalpha() and len(w) > 2} - taken)
    return synonyms, words
