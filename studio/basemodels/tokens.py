"""How many tokens a base makes of a caption, without loading the base."""

from dataclasses import dataclass
from functools import cache
from typing import Any

from studio.basemodels import BaseChoice, base_folder
from studio.basemodels.clip_vocabulary import clip_tokenizer
from studio.basemodels.single_file import config_folder, kind_of_file
from studio.errors import BaseModelError


@dataclass(frozen=True)
class TokenCounter:
    """Called with a caption: (its tokens, the text that the text encoder does not read)."""

    tokenizer: Any

    @property
    def room(self) -> int:
        """Most tokens of a caption; the encoder's first and last are taken."""
        return self.tokenizer.model_max_length - 2

    def __call__(self, caption: str) -> tuple[int, str]:
        ids = self.tokenizer(caption, add_special_tokens=False, truncation=False, verbose=False).input_ids
        return len(ids), self.tokenizer.decode(ids[self.room :]).strip()


@cache
def token_counter(base: str = "starter") -> TokenCounter:
    """By the base's own tokenizer, the first where it has several. Raises BaseModelError."""
    from transformers import AutoTokenizer

    place = base_folder(base)
    if place.is_file():
        place = config_folder(place, kind_of_file(place, BaseChoice.of(base).family))
        if not (place / "tokenizer").is_dir():
            return TokenCounter(clip_tokenizer())
    folder = place / "tokenizer"
    try:
        return TokenCounter(AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise BaseModelError(f"{base} has no tokenizer that can be read: restore its folder.") from error
