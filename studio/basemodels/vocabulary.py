"""What a small base knows by name, from its vocabulary.json. Large bases know too much for a list and have none."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

FILE = "vocabulary.json"
_WORD = re.compile(r"[^\W\d_][\w'’-]*|\d+\w*")
# What holds a prompt together, and what any base may be told without meaning a thing.
_PLAIN = frozenset(
    (
        "a",
        "an",
        "the",
        "my",
        "your",
        "of",
        "in",
        "on",
        "at",
        "with",
        "and",
        "style",
        "background",
        "picture",
        "image",
        "photo",
        "drawing",
        "one",
    )
)


@dataclass(frozen=True)
class Vocabulary:
    """names: of things, as captions say them. synonyms: name to other words for it alone. styles, colours: as named in
    "rocket, noto style, on a red background".
    """

    names: tuple[str, ...]
    styles: tuple[str, ...] = ()
    colours: tuple[str, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def words(self) -> frozenset[str]:
        """Every single word that means something to the base, in lower case."""
        other = [word for words in self.synonyms.values() for word in words]
        phrases = [*self.names, *self.styles, *self.colours, *other]
        return _PLAIN.union(word for phrase in phrases for word in _words(phrase))

    def unknown(self, prompt: str, known: Iterable[str] = ()) -> list[str]:
        """The words of a prompt that the base does not know, each once, in their order. known: trigger words of the
        adapters that are in use.
        """
        knows = self.words().union(word for phrase in known for word in _words(phrase))
        return list(dict.fromkeys(word for word in _words(prompt) if word not in knows))

    def find(self, text: str) -> list[str]:
        """The names that `text` is in, or whose synonyms it is in, those that begin with it first; "" finds all."""
        text = " ".join(text.lower().split())
        found = [n for n in self.names if any(text in one for one in (n.lower(), *self.synonyms.get(n, ())))]
        return sorted(found, key=lambda name: not name.lower().startswith(text)) if text else found

    def examples(self, count: int = 6) -> list[str]:
        """Prompts that show what it can draw: names from all over the list, styles and colours in turn."""
        names = self.names[:: max(1, len(self.names) // max(1, count))][:count]
        prompts = []
        for number, name in enumerate(names):
            style = f", {self.styles[number % len(self.styles)]} style" if self.styles else ""
            colour = self.colours[number * 5 % len(self.colours)] if self.colours else ""
            article = "an" if colour[:1] in set("aeiou") else "a"
            prompts.append(f"{name}{style}" + (f", on {article} {colour} background" if colour else ""))
        return prompts


def read_vocabulary(place: Path) -> Vocabulary | None:
    """The vocabulary of the base in this folder; None when it has none, or one that can't be read."""
    try:
        table = json.loads((place / FILE).read_text("utf-8"))
        texts = {key: tuple(str(one) for one in table.get(key, ())) for key in ("names", "styles", "colours")}
        other = {str(name): tuple(map(str, words)) for name, words in dict(table.get("synonyms", {})).items()}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return None
    return Vocabulary(**texts, synonyms=other) if texts["names"] else None


def display_scale(side: int) -> int:
    """How many screen pixels a small image's pixel takes, unsmoothed: 3 at 128 pixels, 2 up to 256, else 1."""
    return 3 if side <= 160 else 2 if side <= 256 else 1


def _words(text: str) -> list[str]:
    """In lower case; what is hyphenated is one word."""
    return _WORD.findall(text.lower().replace("’", "'"))
