"""A run in a few numbers and short lines, for lists of many: kept in the cache, so that no long log is read twice."""

import json
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from studio.errors import StudioError
from studio.training.config import config_from_toml
from studio.training.reading import LOG, RunView, is_inside, read_run_folder, skim_run_folder
from studio.workspace import Workspace, atomic_write, is_valid_unicode, size_of

POINTS = 1000  # of a line
FRESH = 120.0  # seconds: a log that changed this lately is likely to grow on, so its reading is remembered
VERSION = 2  # of what is kept; another one is made again


Point = TypeVar("Point")
Stamp = tuple[int, int, int]  # when run.toml changed, when the log did, its bytes


@dataclass(frozen=True)
class Summary:
    """What a list shows of a run."""

    name: str
    state: str
    base: str
    dataset: str  # its name, not its path
    step: int
    steps: int
    best: float | None  # the lowest held-out loss
    base_loss: float | None  # the base model's, at that validation
    verdict: str  # see RunView.word
    changed: float  # seconds since 1970
    preview: str  # file of the newest one in the run folder, or ""
    size: int  # bytes on disk

    @property
    def against_base(self) -> float | None:
        """-0.38 for a held-out loss that is 38 % lower than the base's."""
        return self.best / self.base_loss - 1 if self.best is not None and self.base_loss else None


@dataclass(frozen=True)
class Course:
    """How a run went, in at most POINTS points a line."""

    trained: list[tuple[int, float]] = field(default_factory=list)  # step, training loss, smoothed
    held_out: list[tuple[int, float]] = field(default_factory=list)  # step, loss on held-out images
    base: list[tuple[int, float]] = field(default_factory=list)  # step, the base model's loss on them
    previews: list[tuple[int, str, str]] = field(default_factory=list)  # step, prompt, file in the run folder


def thin(points: Sequence[Point], most: int = POINTS) -> list[Point]:
    """At most `most` of `points`, evenly spread, the last one always among them."""
    if len(points) <= most:
        return list(points)
    stride = (len(points) - 1) / (most - 1)
    return [points[round(index * stride)] for index in range(most)]


def summaries(workspace: Workspace, names: Iterable[str], seconds: float = 1.0) -> tuple[list[Summary], int]:
    """(what could be read in about `seconds`, how many of `names` are left for the next time)."""
    until, found, left = time.monotonic() + seconds, [], 0
    for name in names:
        if time.monotonic() > until and name not in _seen.get(workspace.root, {}):
            left += 1
            continue
        with suppress(OSError, StudioError):  # its folder went away, or its run.toml is damaged
            found.append(summary(workspace, name))
    return found, left


def summary(workspace: Workspace, name: str) -> Summary:
    """The run `name` in short. Raises ConfigError when its run.toml is damaged, OSError when its folder is gone."""
    seen = _seen.setdefault(workspace.root, {})
    stamp, known = _stamp(workspace, name), seen.get(name)
    if known and known[0] == stamp:
        return known[1]
    kept = _kept(workspace, name, stamp, Summary)
    made = kept[0] if kept else _make(workspace, name, stamp)[0]
    if made.state != "running":  # a run that seems to go on may break off without a word in its log
        seen[name] = stamp, made
    return made


def course(workspace: Workspace, name: str) -> Course:
    """The lines of the run `name`. Raises as `summary` does."""
    stamp = _stamp(workspace, name)
    kept = _kept(workspace, name, stamp, Summary, Course)
    return kept[1] if kept else _make(workspace, name, stamp)[1]


def forget(workspace: Workspace, name: str) -> None:
    """Nothing is kept of this run any more."""
    _seen.get(workspace.root, {}).pop(name, None)
    _file(workspace, name).unlink(missing_ok=True)


_seen: dict[Path, dict[str, tuple[Stamp, Summary]]] = {}  # by workspace and run


def _make(workspace: Workspace, name: str, stamp: Stamp) -> tuple[Summary, Course]:
    """Both from the run's folder; kept in the cache, unless the run goes on."""
    folder = workspace.runs / name
    config = config_from_toml(folder / "run.toml")
    fresh = time.time() - stamp[1] / 1e9 < FRESH
    view = read_run_folder(folder) if fresh else skim_run_folder(folder)
    validated = [one for one in view.validations if one.step]
    best = min(validated, key=lambda one: one.loss) if validated else None
    made = Summary(
        name,
        view.state,
        config.base,
        Path(config.data.folder).name,
        view.step,
        view.steps or config.training.steps,
        best.loss if best else None,
        best.base_loss if best else None,
        view.word,
        max(stamp[1], stamp[0]) / 1e9,
        _inside(view, folder)[-1][2] if view.previews else "",
        size_of(folder),
    )
    line = Course(
        thin([(step, smooth) for step, _, smooth in view.losses]),
        thin([(one.step, one.loss) for one in view.validations]),
        thin([(one.step, one.base_loss) for one in view.validations]),
        _inside(view, folder),
    )
    if view.state != "running":
        text = "\n".join(json.dumps(value) for value in ([VERSION, *stamp], asdict(made), asdict(line)))
        with suppress(OSError):  # a full disk or a very long name: it is read again next time
            atomic_write(_file(workspace, name), text, lasting=False)
    return made, line


def _inside(view: RunView, folder: Path) -> list[tuple[int, str, str]]:
    return [(step, prompt, file.relative_to(folder).as_posix()) for step, prompt, file in view.previews]


def _kept(workspace: Workspace, name: str, stamp: Stamp, *kinds: type) -> list[Any]:
    """What is kept of the run, a line of each kind, if nothing changed since; else nothing."""
    try:
        with _file(workspace, name).open(encoding="utf-8") as stream:
            if json.loads(stream.readline()) != [VERSION, *stamp]:
                return []
            lines = [json.loads(stream.readline()) for _ in kinds]
        wanted = [{one.name for one in fields(kind)} for kind in kinds]
        if [set(one) for one in lines] != wanted or not is_valid_unicode(json.dumps(lines, ensure_ascii=False)):
            return []
        found = [_reader_of(kind).validate_python(one) for one, kind in zip(lines, kinds)]
    except (OSError, ValueError, TypeError, RecursionError):  # pydantic's complaint is a ValueError
        return []
    files = [one.preview or "x" for one in found[:1]] + [file for one in found[1:] for _, _, file in one.previews]
    return found if all(map(is_inside, files)) else []


@cache
def _reader_of(kind: type) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _stamp(workspace: Workspace, name: str) -> Stamp:
    """(when run.toml changed, when the log did, its bytes)."""
    folder = workspace.runs / name
    settings = (folder / "run.toml").stat().st_mtime_ns
    try:
        log = (folder / LOG).stat()
    except FileNotFoundError:
        return settings, 0, 0
    return settings, log.st_mtime_ns, log.st_size


def _file(workspace: Workspace, name: str) -> Path:
    return workspace.cache / "summaries" / f"{name}.json"
