"""Editing many captions at once: choose them by a filter, propose, look at the differences, apply what is accepted.

An operation is a function from a caption to a caption. Nothing writes but `apply`, and that as one undoable change.
"""

import difflib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import regex  # like `re`, with a time limit: a person's pattern may take for ever

from studio.datasets.captions import one_line
from studio.datasets.dataset import Dataset, Item
from studio.datasets.history import Change, write_captions
from studio.datasets.phrases import is_prose, join, split, tags_of
from studio.errors import DatasetError

T = TypeVar("T")
Operation = Callable[[str], str]
SECONDS = 1.0  # for a pattern, over all captions together
_MOST_COUNTED = 10_000  # repetitions asked for in a pattern's braces, multiplied
_LONGEST = 20_000  # characters: of a caption after find and replace
_FACE = re.compile(r"\w_\w")  # o_o, x_x, 0_0: the only tags of three characters with a _ in the middle


@dataclass(frozen=True)
class Filter:
    """Which images: those that meet all that is set.

    has, lacks   a tag, whole and in any case
    pattern      a regular expression found somewhere in the caption, in any case
    words        (fewest, most) words in the caption
    smaller_than, at_least  bounds of the shorter side of the image in pixels; 0 is no bound
    captioned    True: only with a caption; False: only without
    name         a part of the file's name, in any case
    """

    has: str = ""
    lacks: str = ""
    pattern: str = ""
    words: tuple[int, int] | None = None
    smaller_than: int = 0
    at_least: int = 0
    captioned: bool | None = None
    name: str = ""


class Proposal(NamedTuple):
    file: str
    before: str
    after: str


def select(dataset: Dataset, wanted: Filter = Filter()) -> list[Item]:  # noqa: B008  (it is frozen)
    """The items that the filter lets through. Raises DatasetError for a pattern that is wrong or takes too long."""
    has, lacks, name = _key(wanted.has), _key(wanted.lacks), wanted.name.casefold()
    found = _finder(wanted.pattern) if wanted.pattern else None
    chosen = []
    for item in dataset.items:
        if name and name not in dataset.file_of(item).casefold():
            continue
        if wanted.captioned is not None and bool(item.caption) != wanted.captioned:
            continue
        if wanted.words and not wanted.words[0] <= len(item.caption.split()) <= wanted.words[1]:
            continue
        side = min(item.size)
        if (wanted.smaller_than and side >= wanted.smaller_than) or side < wanted.at_least:
            continue
        if has or lacks:
            tags = {phrase.casefold() for phrase in split(item.caption)}
            if (has and has not in tags) or (lacks and lacks in tags):
                continue
        if found and not found(item.caption):
            continue
        chosen.append(item)
    return chosen


def sort_items(items: Iterable[Item], by: str = "name", descending: bool = False) -> list[Item]:
    """by: "name", "caption" (its words), "words" (their number), "pixels" or "aspect" (longer side by shorter one)."""
    keys: dict[str, Callable[[Item], object]] = {
        "name": lambda item: str(item.path),
        "caption": lambda item: item.caption.casefold(),
        "words": lambda item: len(item.caption.split()),
        "pixels": lambda item: item.size[0] * item.size[1],
        "aspect": lambda item: max(item.size) / max(1, min(item.size)),
    }
    if by not in keys:
        raise DatasetError(f"Images can't be sorted by {by[:40]!r}: choose {', '.join(keys)}.")
    return sorted(items, key=keys[by], reverse=descending)  # type: ignore[arg-type]


def tag_counts(dataset: Dataset) -> dict[str, int]:
    """{tag: how many captions have it}, the most frequent first; equal ones by name. Prose counts for what it opens
    with, see `phrases`.
    """
    counts = Counter(tag for item in dataset.items for tag in set(tags_of(item.caption)))
    return dict(sorted(counts.items(), key=lambda one: (-one[1], one[0])))


def propose(dataset: Dataset, wanted: Filter, operation: Operation) -> list[Proposal]:
    """What the operation would change, in the order of the dataset. Raises DatasetError as filter and operation do."""
    proposals = []
    for item in select(dataset, wanted):
        after = one_line(operation(item.caption))
        if after != item.caption:
            proposals.append(Proposal(dataset.file_of(item), item.caption, after))
    return proposals


def apply(dataset: Dataset, accepted: Collection[Proposal], label: str, author: str = "rule:bulk edit") -> Change:
    """Write the accepted proposals as one undoable change; a caption that was edited since is left alone and named.

    Raises DatasetError when the folder can't be written.
    """
    after = {one.file: one.after for one in accepted}
    return write_captions(dataset, after, label, author, expected={one.file: one.before for one in accepted})


def word_diff(before: str, after: str) -> list[tuple[str, str]]:
    """[("same" | "removed" | "added", words)]: same and removed make `before`, same and added make `after`."""
    old, new = (re.findall(r"\S+?(?=,)|,|[^\s,]+", text)[:2000] for text in (before, after))
    parts: list[tuple[str, str]] = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(("same", _text(old[a:b])))
        else:
            parts += [("removed", _text(old[a:b]))] * (b > a) + [("added", _text(new[c:d]))] * (d > c)
    return parts


# Operations ---------------------------------------------------------------------------------------------------------


def add_tag(tag: str, front: bool = False) -> Operation:
    """The tag at the front or the back of each caption that does not have it."""
    tag = _needed(tag, "tag")

    def add(caption: str) -> str:
        if _key(tag) in map(_key, split(caption)):
            return caption
        return join([tag, *split(caption)] if front else [*split(caption), tag])

    return add


def remove_tag(tag: str) -> Operation:
    tag = _needed(tag, "tag")
    return _on_tags(lambda tags: [one for one in tags if _key(one) != _key(tag)])


def rename_tag(old: str, new: str) -> Operation:
    """`new` in the place of `old`; where both are there, once."""
    old, new = _needed(old, "tag"), _needed(new, "tag")

    def rename(tags: list[str]) -> list[str]:
        if _key(old) not in map(_key, tags):
            return tags
        return _once([new if _key(one) == _key(old) else one for one in tags], new)

    return _on_tags(rename)


def prepend(text: str) -> Operation:
    """The text, as it is typed, before each caption."""
    return lambda caption: text + caption


def append(text: str) -> Operation:
    """The text, as it is typed, after each caption."""
    return lambda caption: caption + text


def replace(find: str, by: str, pattern: bool = False, any_case: bool = False) -> Operation:
    """`by` for each `find`. pattern: `find` is a regular expression, and `by` may name its groups as \\1.

    Raises DatasetError for a pattern that is wrong, and, when it is used, for one that takes too long.
    """
    if not find:
        raise DatasetError("There is nothing to look for: type the words to replace.")
    compiled = _compiled(find if pattern else regex.escape(find), any_case)
    by_text = by if pattern else by.replace("\\", "\\\\")
    seconds = _Seconds(find)

    def change(caption: str) -> str:
        after = seconds.of(lambda left: compiled.sub(by_text, caption, timeout=left))
        if len(after) > max(_LONGEST, len(caption)):
            raise DatasetError(f"{find[:40]!r} would make a caption longer than {_LONGEST:,} characters.")
        return after

    change("")  # `by` may name a group that is not there
    return change


def deduplicate() -> Operation:
    """Each tag once, where it first stands, in any case."""
    return _on_tags(lambda tags: list({_key(one): one for one in reversed(tags)}.values())[::-1])


def sort_by_frequency(counts: dict[str, int], keep_first: int = 0) -> Operation:
    """Tags by how many captions have them, the most frequent first; counts: from `tag_counts`. Prose stays.

    keep_first: so many at the front stay, such as a trigger word.
    """

    def order(tags: list[str]) -> list[str]:
        return tags[:keep_first] + sorted(tags[keep_first:], key=lambda tag: -counts.get(tag, 0))

    return lambda caption: caption if is_prose(caption) else _on_tags(order)(caption)


def tidy() -> Operation:
    """One space between words, ", " between tags, none that is empty."""
    return lambda caption: join(split(caption)) if not is_prose(caption) else one_line(caption).strip(" ,")


def underscores_to_spaces() -> Operation:
    """`red_hat` as `red hat`; faces such as o_o and ^_^ stay."""
    change = re.compile(r"(?<=\w)_+(?=[\w(])")

    def one(match: re.Match[str]) -> str:
        return match[0] if _FACE.fullmatch(match[0].strip()) else change.sub(" ", match[0])

    return lambda caption: re.sub(r"[^,]+", one, caption)


def _on_tags(change: Callable[[list[str]], list[str]]) -> Operation:
    def operation(caption: str) -> str:
        before = list(split(caption))
        after = change(before)
        return caption if after == before else join(after)

    return operation


def _once(tags: list[str], tag: str) -> list[str]:
    first = next((n for n, one in enumerate(tags) if _key(one) == _key(tag)), None)
    return [one for n, one in enumerate(tags) if n == first or _key(one) != _key(tag)]


def _key(tag: str) -> str:
    return one_line(tag).casefold()


def _needed(text: str, what: str) -> str:
    if text := one_line(text).strip(", "):
        return text
    raise DatasetError(f"Type a {what} first.")


def _text(words: list[str]) -> str:
    return " ".join(words).replace(" ,", ",")


class _Seconds:
    """What is left of SECONDS for one pattern."""

    def __init__(self, pattern: str):
        self._pattern, self._left = pattern, SECONDS

    def of(self, work: Callable[[float], T]) -> T:
        start = time.perf_counter()
        try:
            return work(max(0.001, self._left))
        except TimeoutError as error:
            raise DatasetError(f"{self._pattern[:40]!r} takes too long to find: make the pattern simpler.") from error
        except (regex.error, IndexError) as error:
            raise DatasetError(f"{self._pattern[:40]!r} can't be replaced like that: {error}.") from error
        finally:
            self._left -= time.perf_counter() - start


def _finder(pattern: str) -> Callable[[str], bool]:
    compiled, seconds = _compiled(pattern, any_case=True), _Seconds(pattern)
    return lambda caption: seconds.of(lambda left: compiled.search(caption, timeout=left)) is not None


def _compiled(pattern: str, any_case: bool) -> "regex.Pattern[str]":
    try:
        if len(pattern) > 1000:
            raise regex.error("longer than 1,000 characters")
        if math.prod(max(1, int(count[:6])) for count in re.findall(r"\d+(?=\})", pattern)) > _MOST_COUNTED:
            raise regex.error(f"its counts in braces multiply to more than {_MOST_COUNTED:,}")  # each takes memory
        return regex.compile(pattern, regex.IGNORECASE if any_case else 0)
    except (regex.error, RecursionError, OverflowError, MemoryError) as error:
        raise DatasetError(f"{pattern[:40]!r} is not a regular expression: {error}.") from error
