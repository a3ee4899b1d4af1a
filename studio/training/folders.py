"""A line of `data.folders`: one more dataset folder of a run, with settings of its own. No torch here.

    /images/cats  repeats=3 trigger=zsk
    /images/dogs  weight=2 flip=true prefix=photo of
    /images/zsk   weight=1                          the same folder as data.folder: settings for that one

A value goes on to the next of these words, so that neither folders nor captions need quotes. What a line leaves out is
as the section `data` has it. weight= is the folder's share of all samples, against the weights of the others, whatever
its number of images; where no line has one, every folder counts by its images times their repeats.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.training.config_sections import DataConfig

MOST_WEIGHT, MOST_REPEATS, LONGEST = 1000.0, 1000, 500
_KEYS = ("weight", "repeats", "trigger", "flip", "prefix", "suffix", "caption")
_KEY = re.compile(rf"(?:^|\s)({'|'.join(_KEYS)})=")
_LIKE_A_KEY = re.compile(r"\s([a-z_]{2,20})=")


@dataclass(frozen=True)
class DatasetFolder:
    """folder: as it was written. None: as the section `data` has it; caption: of images that have none."""

    folder: str
    weight: float | None = None
    repeats: int | None = None
    trigger: str | None = None
    flip: bool | None = None
    prefix: str | None = None
    suffix: str | None = None
    caption: str = ""

    def settings(self, data: DataConfig) -> DataConfig:
        """The section as this folder's images follow it."""
        own = {
            "repeats": self.repeats,
            "trigger": self.trigger,
            "flip": self.flip,
            "caption_prefix": self.prefix,
            "caption_suffix": self.suffix,
        }
        return data.model_copy(update={key: value for key, value in own.items() if value is not None})


def parse(line: str) -> DatasetFolder:
    """Raises ValueError in one sentence."""
    folder, rest = _cut(line)
    if not folder:
        raise ValueError(f"{line.strip()[:40]!r} names no folder in front of its settings")
    if odd := _LIKE_A_KEY.search(folder):
        raise ValueError(f"{odd[1][:20]}= is not one of {', '.join(f'{key}=' for key in _KEYS)} (in {line[:40]!r})")
    found = list(_KEY.finditer(rest))
    values: dict[str, Any] = {}
    for this, after in zip(found, [*found[1:], None]):
        key, text = this[1], rest[this.end() : after.start() if after else None].strip()
        if key in values:
            raise ValueError(f"{key}= stands twice behind {folder[-40:]!r}")
        values[key] = _READ.get(key, _text)(key, text, folder[-40:])
    return DatasetFolder(folder, **values)


def parsed(lines: Sequence[str]) -> list[DatasetFolder]:
    """Of all lines but empty ones. Raises ValueError, also where a folder stands twice."""
    found = [parse(line) for line in lines if line.strip()]
    names = [one.folder for one in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"the folder {twice[-40:]!r} stands there twice")
    return found


def names_trigger(data: DataConfig) -> bool:
    """Whether any folder of the run has a trigger word. Raises ValueError as `parsed`."""
    return bool(data.trigger) or any(line.trigger for line in parsed(data.folders))


def renamed(line: str, change: Callable[[str], str]) -> str:
    """The line with its folder replaced, the settings behind it as they are."""
    folder, rest = _cut(line)
    return f"{change(folder)} {rest.strip()}".strip()


def written(one: DatasetFolder) -> str:
    """The line that is read as this."""
    values = {key: getattr(one, key) for key in _KEYS if getattr(one, key) not in (None, "")}
    values |= {key: "" for key in ("trigger", "prefix", "suffix") if getattr(one, key) == ""}
    shown = {
        key: str(value).lower() if isinstance(value, bool) else f"{value:.10g}" if key == "weight" else value
        for key, value in values.items()
    }
    return " ".join([one.folder, *(f"{key}={shown[key]}" for key in _KEYS if key in shown)])


def triggers_of(data: DataConfig) -> list[str]:
    """The trigger words of a run, that of `data.folder` first."""
    lines = parsed(data.folders)
    own = next(
        (line.trigger for line in lines if line.folder == data.folder and line.trigger is not None), data.trigger
    )
    found = (own, *(line.trigger or "" for line in lines))
    return list(dict.fromkeys(trigger.strip() for trigger in found if trigger.strip()))


def labels_of(folders: Sequence[Path]) -> list[str]:
    """A short name for each: its own, with a number where an earlier one has the same."""
    out: list[str] = []
    for folder in folders:
        name, number = folder.name, 2
        while name in out:
            name, number = f"{folder.name}-{number}", number + 1
        out.append(name)
    return out


def _cut(line: str) -> tuple[str, str]:
    """(folder, settings)."""
    first = _KEY.search(line)
    return (line[: first.start()].strip(), line[first.start() :]) if first else (line.strip(), "")


def _weight(key: str, text: str, folder: str) -> float:
    number = _number(key, text, folder)
    if not 0 < number <= MOST_WEIGHT:
        raise ValueError(f"weight= of {folder!r} must be above 0, at most {MOST_WEIGHT:g}")
    return number


def _repeats(key: str, text: str, folder: str) -> int:
    number = _number(key, text, folder)
    if number != int(number) or not 1 <= number <= MOST_REPEATS:
        raise ValueError(f"repeats= of {folder!r} must be a whole number from 1 to {MOST_REPEATS:,}")
    return int(number)


def _number(key: str, text: str, folder: str) -> float:
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{key}= of {folder!r} holds no number") from None
    if not abs(number) < 1e9:
        raise ValueError(f"{key}= of {folder!r} holds no number of a size that can be used")
    return number


def _flag(key: str, text: str, folder: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{key}= of {folder!r} must be true or false")
    return text.lower() == "true"


def _text(key: str, text: str, folder: str) -> str:
    if len(text) > (80 if key == "trigger" else LONGEST):
        raise ValueError(f"{key}= of {folder!r} is too long: at most {80 if key == 'trigger' else LONGEST} characters")
    return text


_READ: dict[str, Callable[[str, str, str], Any]] = {"weight": _weight, "repeats": _repeats, "flip": _flag}
