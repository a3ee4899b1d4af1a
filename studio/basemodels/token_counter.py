"""How many tokens a caption has, and how many of them are read. No torch here."""

from dataclasses import dataclass
from typing import Any

MAX_CHUNKS = 64  # chunks of tokens that a prompt or a caption is encoded in


@dataclass(frozen=True)
class TokenCounter:
    """Called with a caption: (its tokens, the text that the text encoder does not read).

    room: tokens that the text encoder reads at once. reads_on: whether a longer text is read in chunks of that length.
    """

    tokenizer: Any
    room: int
    reads_on: bool = False

    def __call__(self, caption: str, most: int = 0) -> tuple[int, str]:
        ids = self.tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids
        return len(ids), self.tokenizer.decode(ids[self.limit(most) :]).strip()

    def limit(self, most: int = 0) -> int:
        """How many tokens of a text are read. most: as a run sets it (`data.max_token_length`), 0 for all."""
        return (most or MAX_CHUNKS * self.room) if self.reads_on else self.room

    def chunks(self, tokens: int) -> int:
        """In how many chunks so many tokens are read."""
        return max(1, -(-tokens // self.room)) if self.reads_on else 1
