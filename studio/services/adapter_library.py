"""The adapter library: dropped adapters and finished runs, each with an image and what its header says."""

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from studio.errors import AdapterError, StudioError
from studio.services import thumbnails
from studio.services.adapter_files import adapter_choices
from studio.services.gallery import newest_files
from studio.workspace import Workspace, atomic_write, checked_name, free_path, with_older_name

REMOVED = ".removed"  # the trash: a folder in that of the dropped adapters
NEWEST = 500  # images of the outputs that are looked through for the adapters in them
SECONDS = 1.0  # for files that were never read: the rest waits for the next call


@dataclass(frozen=True)
class Card:
    """One adapter of the library. key as in `adapter_choices`; size in bytes; known: whether its header was read.

    image: a file that the browser may see, or None
    """

    key: str
    name: str
    size: int
    changed: float
    known: bool = False
    kind: str = ""
    rank: int = 0
    family: str = ""
    words: tuple[str, ...] = ()
    problem: str = ""
    image: Path | None = None

    @property
    def is_run(self) -> bool:
        return self.key.startswith("run:")


def cards(workspace: Workspace, query: str = "", seconds: float = SECONDS) -> list[Card]:
    """Those that have every word of `query` in what is said of them, newest first."""
    remembered, changed = _remembered(workspace), False
    until = time.monotonic() + seconds
    found = []
    for label, key in adapter_choices(workspace):
        path = path_of(workspace, key)
        try:
            stat = path.stat()
        except OSError:  # it went away meanwhile
            continue
        stamp = f"{key} {stat.st_size} {stat.st_mtime_ns}"
        facts = remembered.get(stamp)
        if facts is None and time.monotonic() < until:
            facts = remembered[stamp] = _facts(workspace, path)
            changed = True
        name = label.removesuffix(" (file)") if key.startswith("file:") else label
        card = Card(key, name, stat.st_size, stat.st_mtime, **_card_fields(workspace, facts))
        if matches(card, query):
            found.append(card)
    if changed:
        atomic_write(_memory(workspace), json.dumps(remembered), lasting=False)
    found.sort(key=lambda card: -card.changed)
    drawn = drawn_with(workspace) if any(card.image is None for card in found) else {}
    return [_with_image(workspace, card, drawn) for card in found]


def path_of(workspace: Workspace, key: str) -> Path:
    """Where the file behind a key of `adapter_choices` lies; nothing is checked."""
    kind, _, name = key.partition(":")
    return workspace.runs / name / "adapter.safetensors" if kind == "run" else workspace.adapters / name


def matches(card: Card, query: str) -> bool:
    text = " ".join([card.name, card.kind, f"rank {card.rank}", card.family, *card.words]).lower()
    return all(word in text for word in query.lower().split())


# The trash ---------------------------------------------------------------------------------------------------------


def remove(workspace: Workspace, key: str) -> str:
    """Move a dropped file to the trash; returns the name to restore it by. Raises AdapterError."""
    kind, _, name = key.partition(":")
    path = workspace.adapters / checked_name(name, "adapter")
    if kind != "file" or not path.is_file():
        raise AdapterError("Only dropped files can be deleted here; runs are deleted under All runs.")
    trash = workspace.adapters / REMOVED
    trash.mkdir(exist_ok=True)
    target = free_path(trash, name)
    path.rename(target)
    return target.name


def put_back(workspace: Workspace, name: str) -> str:
    """Undo `remove`; returns the adapter's key. Raises AdapterError when it is not there any more."""
    path = workspace.adapters / REMOVED / checked_name(name, "adapter")
    if not path.is_file():
        raise AdapterError(f"{name} is not in the trash.")
    target = free_path(workspace.adapters, name)
    path.rename(target)
    return f"file:{target.name}"


# What is said of a file -----------------------------------------------------------------------------------------------


def _memory(workspace: Workspace) -> Path:
    return workspace.cache / "adapter_library.json"


def _remembered(workspace: Workspace) -> dict[str, Any]:
    """{key, size and time of change: facts}, read earlier."""
    try:
        values = json.loads(with_older_name(_memory(workspace), "shelf.json").read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return dict(list(values.items())[-5000:]) if isinstance(values, dict) else {}


def _facts(workspace: Workspace, path: Path) -> dict[str, Any]:
    """From the header alone."""
    from studio.adapters.files import read_outline
    from studio.generation.adapter_info import info_of_file
    from studio.generation.cover import read_cover

    try:
        file = read_outline(path)
    except AdapterError as error:
        return {"problem": str(error)}
    facts = asdict(info_of_file(file))
    fields = {name: facts[name] for name in ("rank", "family", "words")} | {"kind": ", ".join(facts["kinds"])}
    cover = read_cover(file.metadata)
    if cover is not None:
        name = f"{hashlib.sha256(cover.tobytes()).hexdigest()[:32]}-cover.webp"
        thumbnails.keep(thumbnails.folder(workspace) / name, cover)
        fields["cover"] = name
    return fields


def _card_fields(workspace: Workspace, facts: Any) -> dict[str, Any]:
    """Of facts that were read from a file of the cache, which somebody may have written in."""
    if not isinstance(facts, dict):
        return {}
    cover = thumbnails.folder(workspace) / Path(str(facts.get("cover") or "-")).name
    rank = facts.get("rank")
    words = facts.get("words")
    return {
        "known": True,
        **{name: str(facts.get(name, "")) for name in ("kind", "family", "problem")},
        "rank": rank if isinstance(rank, int) else 0,
        "words": tuple(map(str, words)) if isinstance(words, list | tuple) else (),
        "image": cover if cover.is_file() else None,
    }


def _with_image(workspace: Workspace, card: Card, drawn: dict[str, Path]) -> Card:
    """The run's newest preview, the file's own image, the newest one drawn with it, or none: in this order."""
    if card.is_run:
        previews = sorted((workspace.runs / card.name / "previews").glob("*.png"))
        if previews:
            return replace(card, image=thumbnails.thumbnail(workspace, previews[-1]))
    if card.image is None:
        path = drawn.get(card.name if card.is_run else Path(card.key.partition(":")[2]).stem)
        return replace(card, image=thumbnails.thumbnail(workspace, path)) if path else card
    return card


def drawn_with(workspace: Workspace) -> dict[str, Path]:
    """{an adapter's title: the newest image of the outputs that it acted in}."""
    found: dict[str, Path] = {}
    for name, (changed, _) in newest_files(workspace)[:NEWEST]:
        path = workspace.outputs / name
        for title in _titles(path, changed):
            found.setdefault(title, path)
    return found


@lru_cache(5000)
def _titles(path: Path, changed: int) -> tuple[str, ...]:
    from studio.generation import read_recipe

    try:
        return tuple(str(one["file"]) for one in read_recipe(path).adapters if one.get("strength"))
    except StudioError:
        return ()
