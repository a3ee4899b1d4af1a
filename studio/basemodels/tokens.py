"""How many tokens a base makes of a caption, without loading the base."""

from functools import cache
from typing import Any

from studio.basemodels.choice import BaseChoice
from studio.basemodels.clip_vocabulary import clip_tokenizer
from studio.basemodels.registry import base_folder, family_class
from studio.basemodels.single_file import config_folder, kind_of_file
from studio.basemodels.token_counter import TokenCounter
from studio.errors import BaseModelError


@cache
def token_counter(base: str = "starter") -> TokenCounter:
    """By the base's own tokenizer, that of the encoder which reads most where it has several. Raises BaseModelError."""
    from studio.libraries import AutoTokenizer

    choice, place = BaseChoice.of(base), base_folder(base)
    family = family_class(place, choice.family)
    configs = config_folder(place, kind_of_file(place, choice.family)) if place.is_file() else place

    def tokenizer(name: str) -> Any:
        if not (configs / name).is_dir():
            return clip_tokenizer() if name == "tokenizer" and place.is_file() else None
        return AutoTokenizer.from_pretrained(configs / name, local_files_only=True, trust_remote_code=False)

    try:
        return family.counter(tokenizer, choice.max_sequence_length)
    except (OSError, ValueError, AttributeError) as error:
        raise BaseModelError(f"{choice.title} has no tokenizer that can be read: restore its folder.") from error
