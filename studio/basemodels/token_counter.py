"""How many tokens a caption has, and how many of them are read. No torch here."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class TokenCounter:
    """Called with a caption: (its tokens, the text that the text encoder does not read).

    room: most tokens of a caption. reads_on: whether a longer prompt is drawn in pieces of that length; captions that
    are trained on are cut in any case.
    """

    tokenizer: Any
    room: int
    reads_on: bool = False

    def __call__(self, caption: str) -> tuple[int, str]:
        ids = self.tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids
        return len(ids), self.tokenizer.decode(ids[self.room :]).strip()
