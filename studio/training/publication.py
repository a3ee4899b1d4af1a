"""What a person says about a model that is to be published."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Publication:
    """What a person says about the model. triggers: words that call what was learned; about: Markdown."""

    repo: str = ""  # owner/name
    licence: str = ""  # as the hub names them; "" for none said
    triggers: tuple[str, ...] = ()
    about: str = ""
    private: bool = True
