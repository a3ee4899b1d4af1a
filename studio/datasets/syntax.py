"""Signs of other programs in captions, which are trained here as the words that they are written in."""

import re
from collections.abc import Iterable

from studio.datasets.dataset import Item
from studio.text import pluralize

_CHOICE = "{a|b}, a choice of words"
_SIGNS = {  # of kohya's scripts, unless it says otherwise
    "|||, the separator behind the tags that stay in front": re.compile(r"\|\|\|"),
    ";;;, the separator within a tag": re.compile(r";;;"),
    _CHOICE: re.compile(r"\{[^{}]*\|[^{}]*\}"),
    "__name__, a list of words (A1111)": re.compile(r"(?<!\w)__[\w/*-]+__(?!\w)"),
    "(word:1.2), a weight (A1111)": re.compile(r"\([^()]+:\s*-?\d*\.?\d+\)"),
    "<lora:…>, an adapter (A1111)": re.compile(r"<(?:lora|lyco|hypernet):[^<>]*>"),
}


def caption_syntax(items: Iterable[Item], wildcards: bool = False, separator: str = "") -> list[str]:
    """A line for each sign that captions hold and nothing here reads, and for captions of several lines.

    wildcards, separator: what a run reads, see `data.wildcards` and `data.keep_tags_separator`
    """
    items, lines = list(items), []
    several = [item for item in items if item.lines > 1 and not wildcards]
    if several:
        lines.append(
            f"{pluralize(len(several), 'caption file')} of several lines, {several[0].file} among them: the lines are "
            "read as one caption, not as one to choose from (data.wildcards does that)."
        )
    for sign, pattern in _SIGNS.items():
        if wildcards and sign == _CHOICE or separator and pattern.search(separator):
            continue
        found = [item for item in items if pattern.search(item.caption)]
        if found:
            many = pluralize(len(found), "caption")
            lines.append(f"{many}, that of {found[0].file} among them, with {sign}: trained as plain words.")
    return lines
