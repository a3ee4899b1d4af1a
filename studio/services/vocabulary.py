"""What the chosen base knows by name, and which words of a prompt it will ignore."""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.basemodels import base_folder
from studio.basemodels.vocabulary import Vocabulary, display_scale, read_vocabulary
from studio.errors import StudioError
from studio.services import base_models
from studio.workspace import Workspace

__all__ = ["UnknownWord", "display_scale", "unknown_words", "unseen_things", "vocabulary"]


@dataclass(frozen=True)
class UnknownWord:
    word: str
    base: str

    @property
    def message(self) -> str:
        return f"{self.word}: the {self.base} does not know this word; it is ignored unless an adapter knows it"


def vocabulary(workspace: Workspace, base: str = base_models.STARTER) -> Vocabulary | None:
    """Of the base of this name on the list; None where it has no list of its words."""
    try:
        place = base_folder(base_models.line_of(workspace, base))
    except StudioError:
        return None
    return read_vocabulary(place)


def unknown_words(
    workspace: Workspace, prompt: str, triggers: Sequence[str] = (), base: str = base_models.STARTER
) -> list[UnknownWord]:
    """The prompt's words that the base does not know, in their order; none for a base without a list.

    triggers: the trigger words of the adapters in use, which those know.
    """
    from studio.generation.prompts import BREAK, parse, take_adapters

    known = vocabulary(workspace, base)
    if known is None:
        return []
    text = " ".join(part.text for part in parse(take_adapters(prompt).text) if part.weight != BREAK)
    return [UnknownWord(word, base) for word in known.unknown(text, triggers)]


def unseen_things(workspace: Workspace, captions: Sequence[str], base: str = base_models.STARTER) -> list[str]:
    """Two prompts of things that the base knows and no caption names, for previews; none where it tells no words."""
    known = vocabulary(workspace, base)
    if not known:
        return []
    taken = {word for caption in captions for word in caption.lower().replace(",", " ").split()}
    unseen = [one for one in known.examples(len(known.names)) if not taken & set(one.split(",")[0].lower().split())]
    return [", ".join(part for part in one.split(", ") if not part.endswith(" style")) for one in unseen[:2]]
