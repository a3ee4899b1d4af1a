"""What the chosen base knows by name, and which words of a prompt it will ignore."""

from collections.abc import Sequence
from dataclasses import dataclass

from studio.basemodels import base_folder
from studio.basemodels.vocabulary import Vocabulary, display_scale, read_vocabulary
from studio.errors import StudioError
from studio.services import base_models
from studio.workspace import Workspace

__all__ = ["UnknownWord", "display_scale", "preview_prompts", "unknown_words", "vocabulary"]


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


def preview_prompts(
    workspace: Workspace, captions: Sequence[str], trigger: str = "", base: str = base_models.STARTER
) -> list[str]:
    """What the previews of a run on a set with these captions show best: two of its captions, and two things that the
    base knows and the set has not, each with the trigger in front. Fewer where there are fewer.
    """
    found = [caption.strip() for caption in captions if caption.strip()]
    prompts = list(dict.fromkeys(found[:: max(1, len(found) // 2)]))[:2]
    if known := vocabulary(workspace, base):
        taken = {word for caption in found for word in caption.lower().replace(",", " ").split()}
        unseen = [one for one in known.examples(len(known.names)) if not taken & set(one.split(",")[0].lower().split())]
        prompts += [", ".join(p for p in one.split(", ") if not p.endswith(" style")) for one in unseen[:2]]
    front = " ".join(trigger.split())
    return [p if not front or p.lower().startswith(front.lower()) else f"{front}, {p}" for p in prompts]
