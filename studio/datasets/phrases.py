"""Who wrote which phrase of a caption: a person, a model or a rule. So captioning again can spare what a person wrote.

A caption is either tags or prose. It is prose when its pieces between commas have more than 4 words on average, or when
a sentence ends in it and they have more than 2. Tags are its phrases when it is made of tags; sentences when it is
prose, and a trigger word set in front of prose is a phrase of its own.

`.studio/phrases.json` names the author of a phrase where that is not a person. What is not named there was written by a
person: edits made outside the studio and captions that came with the images are as safe as typed ones.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from difflib import SequenceMatcher
from functools import lru_cache
from pathlib import Path

from studio.datasets.captions import one_line
from studio.datasets.dataset import Dataset
from studio.datasets.journal import Authors
from studio.datasets.meta_dir import META_DIR, read_meta, write_meta
from studio.errors import DatasetError
from studio.workspace import is_valid_unicode

PERSON = "person"
_FILE = "phrases.json"
_END = re.compile(r"(?<=\w[.!?])\s+|(?<=\w[.!?][\"'”’)])\s+")  # a sentence is over, and another begins
_ENDED = re.compile(r"\w[.!?][\"'”’)]?$")


@lru_cache(maxsize=50_000)
def is_prose(caption: str) -> bool:
    """Whether the caption is prose and not tags, by the rule above."""
    pieces = [piece for piece in caption.split(",") if piece.strip()]
    words = len(caption.split()) / max(1, len(pieces))
    return words > 4 or (words > 2 and (_END.search(caption) or _ENDED.search(caption.strip())) is not None)


@lru_cache(maxsize=50_000)
def split(caption: str) -> tuple[str, ...]:
    """The phrases of a caption, without the commas and spaces between them."""
    caption = one_line(caption)
    if not is_prose(caption):
        return tuple(piece.strip() for piece in caption.split(",") if piece.strip())
    first, comma, rest = caption.partition(",")
    front = [first.strip()] if comma and rest.strip() and first.strip() and len(first.split()) <= 2 else []
    return (*front, *(sentence for sentence in _END.split(rest.strip() if front else caption) if sentence))


def join(phrases: Iterable[str]) -> str:
    """A caption of these phrases: in prose a space after one that ends a sentence, else a comma and a space."""
    phrases = [phrase for phrase in phrases if phrase]
    prose = is_prose(", ".join(phrases))
    return "".join(
        phrase + ("" if last else " " if prose and _ENDED.search(phrase) else ", ")
        for phrase, last in zip(phrases, [False] * (len(phrases) - 1) + [True])
    )


def tags_of(caption: str) -> tuple[str, ...]:
    """The tags in a caption: all its phrases, or what stands in front of the prose."""
    phrases = split(caption)
    if not is_prose(one_line(caption)):
        return phrases
    return phrases[:1] if len(phrases) > 1 and len(phrases[0].split()) <= 2 and not _ENDED.search(phrases[0]) else ()


def authors(dataset: Dataset, file: str) -> list[tuple[str, str]]:
    """(phrase, author) in the order of the caption as it is on the disk now.

    author: "person", "model:NAME" or "rule:NAME". Raises DatasetError when there is no such image.
    """
    item = dataset.by_file().get(file)
    if item is None:
        raise DatasetError(f"There is no image called {file[:60]!r} in {dataset.name}: open the dataset again.")
    known = read_authors(dataset.folder).get(file, {})
    return [(phrase, known.get(phrase, PERSON)) for phrase in split(item.caption_now())]


def all_authors(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    """What `authors` says of every image, from the captions as they were when the dataset was opened."""
    known = read_authors(dataset.folder)
    return {
        file: [(phrase, known.get(file, {}).get(phrase, PERSON)) for phrase in split(item.caption)]
        for file, item in dataset.by_file().items()
    }


def merge(
    model_caption: str,
    existing: str,
    written: Collection[tuple[str, str]] = (),
    replace: Collection[str] = ("model", "rule"),
) -> str:
    """The caption after captioning again: what those in `replace` wrote gives way to `model_caption`.

    written  (phrase, author) of `existing`, from `authors`; phrases that it does not name are a person's
    replace  kinds of author: "model", "rule", "person". A person's words stay unless "person" is among them

    What stays keeps its order; what is new comes where the first replaced phrase stood, or at the end, and never
    repeats what stays (in any case).
    """
    by = dict(written)
    kept: list[str] = []
    at = None
    for phrase in split(existing):
        if by.get(phrase, PERSON).partition(":")[0] in replace:
            at = len(kept) if at is None else at
        else:
            kept.append(phrase)
    at = len(kept) if at is None else at
    there = {phrase.casefold() for phrase in kept}
    return join([*kept[:at], *(new for new in split(model_caption) if new.casefold() not in there), *kept[at:]])


def read_authors(folder: Path) -> Authors:
    """{file: {phrase: author}} of the phrases that no person wrote."""
    notes = read_meta(folder / META_DIR / _FILE)
    files = notes.get("files") if isinstance(notes, dict) and notes.get("version") == 1 else None
    sound: Authors = {}
    for file, names in files.items() if isinstance(files, dict) else ():
        if isinstance(names, dict):
            sound[file] = {
                phrase: who for phrase, who in names.items() if isinstance(who, str) and is_valid_unicode(phrase, who)
            }
    return sound


def keep_authors(folder: Path, changes: Mapping[str, tuple[str, str]], gains: Authors) -> None:
    """After {file: (caption before, after)}: `gains` say who wrote the new phrases, the notes who wrote the others.

    Raises DatasetError when the folder can't be written.
    """
    notes = read_authors(folder)
    changed = False
    for file, (before, after) in changes.items():
        old, new, there = notes.get(file, {}), gains.get(file, {}), set(split(before))
        names = {}
        for phrase in split(after):
            who = new.get(phrase) or (old.get(phrase) if phrase in there else None)
            if who:
                names[phrase] = who
        changed |= names != old
        if names:
            notes[file] = names
        else:
            notes.pop(file, None)
    if changed:
        write_meta(folder, _FILE, {"version": 1, "files": notes}, lasting=False)


def gained(before: str, after: str, known: Mapping[str, str], author: str) -> dict[str, str]:
    """{phrase: author} of what the change brings and no person wrote.

    Where a rule reworded what a person wrote, the result is still the person's.
    """
    if author == PERSON:
        return {}
    old, new = split(before), split(after)
    gains: dict[str, str] = {}
    for kind, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        fresh = [phrase for phrase in new[c:d] if phrase not in old]
        persons = kind == "replace" and any(phrase not in known and phrase not in new for phrase in old[a:b])
        if author.startswith("rule:") and persons:
            continue
        gains |= dict.fromkeys(fresh, author)
    return gains


def lost(before: str, after: str, known: Mapping[str, str]) -> dict[str, str]:
    """{phrase: author} of what the change takes away and no person wrote."""
    stay = set(split(after))
    return {phrase: known[phrase] for phrase in split(before) if phrase in known and phrase not in stay}
