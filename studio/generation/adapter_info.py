"""What an adapter's file is before it is used: kind, rank, trigger words, family, and whether it fits the base."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from weakref import ref

from torch import nn

from studio.adapters import place_layers, read_outline
from studio.adapters.family import family_of
from studio.adapters.files import AdapterFile
from studio.adapters.report import short_notes
from studio.basemodels.clip_vocabulary import is_made_up

WORDS = 6  # trigger words that are offered
NEARLY_ALL = 0.9  # of the captions: a trigger stands in each of them
_LONGEST = 60  # characters of one
_COMMONEST = 200  # tags that are looked at


@dataclass(frozen=True)
class AdapterInfo:
    """kinds: as people call them. rank: the commonest. family: "" when unsure. matched: layers that fit, of layers.

    notes: what else is in the file and not used, and what was assumed.
    """

    kinds: tuple[str, ...]
    rank: int
    mixed: bool
    layers: int
    family: str
    words: tuple[str, ...]
    matched: int | None = None
    base: str = ""  # that it says it was trained on, and the hash of that base's weights
    base_hash: str = ""
    notes: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        """Kind, rank and fit in one line; a file that does not fit says so and nothing else."""
        if self.matched == 0:
            made = f"made for {self.family}" if self.family else "made for another base model"
            return f"{made}: none of its {self.layers} layers fits the loaded base"
        rank = f"rank {self.rank}{' and others' if self.mixed else ''}"
        fit = "" if self.matched is None else f" · {self.matched} of {self.layers} layers fit"
        return f"{', '.join(self.kinds)} · {rank}{fit}" + "".join(f" · {note}" for note in self.notes)


def read_adapter_info(path: Path, modules: Mapping[str, nn.Module] | None = None) -> AdapterInfo:
    """Read the file's header, and compare it with a base's modules where they are given. Raises AdapterError."""
    path = Path(path)
    stat = path.stat() if path.is_file() else None
    # By weak references: a base that is gone equals none that comes after it, wherever in memory that lies.
    key = (path, stat and stat.st_mtime_ns, tuple(map(ref, modules.values())) if modules else None)
    if key not in _known:
        file = read_outline(path)
        found = info_of_file(file)
        if modules:
            fitting = len(file.layers) - len(place_layers(file, dict(modules))[1])
            found = replace(found, matched=fitting)
        if len(_known) > 500:
            _known.clear()
        _known[key] = found
    return _known[key]


_known: dict[tuple, AdapterInfo] = {}


def info_of_file(file: AdapterFile) -> AdapterInfo:
    """Without comparing it with a base."""
    return AdapterInfo(
        tuple(file.kinds),
        file.rank,
        len(file.ranks) > 1,
        len(file.layers),
        family_of(file.layers, file.metadata).name,
        trigger_words(file.metadata),
        base=file.metadata.get("studio.base", ""),
        base_hash=file.metadata.get("studio.base_hash", ""),
        notes=short_notes(file),
    )


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Those that the file names, else of the tags that kohya's programs note those of (nearly) all captions that hold a
    made-up word: what CLIP's tokenizer cuts into pieces, or has as one of its rarest tokens. The rest only describes.
    """
    phrases = [metadata.get(key, "") for key in ("studio.trigger", "modelspec.trigger_phrase")]
    words = [word.strip() for phrase in phrases for word in phrase.split(",") if word.strip()]
    if not words:
        tags = _tags(metadata.get("ss_tag_frequency", "")).most_common(_COMMONEST)
        words = [tag for tag, count in tags if count >= NEARLY_ALL * tags[0][1] and is_made_up(tag)]
    return tuple(dict.fromkeys(word[:_LONGEST] for word in words))[:WORDS]


def _tags(text: str) -> Counter[str]:
    """Of {folder: {tag: how often}}; whatever is not that counts as nothing."""
    found: Counter[str] = Counter()
    try:
        folders = json.loads(text) if text else {}
        for tags in folders.values():
            found.update({tag.strip(): n for tag, n in tags.items() if isinstance(n, int) and tag.strip()})
    except (ValueError, AttributeError, RecursionError):
        return Counter()
    return found
