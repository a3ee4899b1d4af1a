"""A run that is over, opened again to be measured: its base, its images and captions as it trained on them."""

import threading
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

from studio.basemodels import Family, load_base
from studio.errors import RunError
from studio.training import made_of, provenance
from studio.training.cache import Cache
from studio.training.changes import as_begun
from studio.training.class_images import drawn
from studio.training.config import RunConfig, config_from_toml
from studio.training.distributed import Distributed
from studio.training.events import Preparing
from studio.training.examples import Example
from studio.training.preparing import prepare
from studio.training.reading import RunView, read_run_folder
from studio.training.run_resources import precision_of
from studio.training.selection import Selection, split
from studio.workspace import Workspace

Progress = tuple[int, int, str]  # done, in all, what is done


@dataclass(frozen=True)
class Reopened:
    """examples: what is trained on, regularization images included. notes: what is not as it was, a line each."""

    folder: Path
    view: RunView
    config: RunConfig
    base: Family
    cache: Cache
    chosen: Selection
    examples: list[Example]
    held_out: list[Example]
    notes: list[str]


def opened_run(folder: Path, workspace: Workspace, stop: threading.Event) -> Generator[Progress, None, Reopened | None]:
    """As `reopen`, with what is done meanwhile as progress."""
    opening = reopen(folder, workspace, stop)
    while True:
        try:
            one = next(opening)
        except StopIteration as end:
            found: Reopened | None = end.value
            return found
        yield one.done, one.total, one.what or "Encoding images and captions"


def reopen(folder: Path, workspace: Workspace, stop: threading.Event) -> Generator[Preparing, None, Reopened | None]:
    """Yields Preparing while something has to be encoded or drawn anew; returns None after `stop`.

    Nothing in the run's folder is written. Raises RunError for a run that goes on or is a slider, DatasetError when its
    images are gone, BaseModelError when its base is.
    """
    view = read_run_folder(folder)
    if view.state == "running":
        raise RunError(f"{folder.name} is running: it is measured when it has ended.")
    config, _ = as_begun(config_from_toml(folder / "run.toml"), provenance.begun_under(folder))
    if config.slider.positive:
        raise RunError(f"{folder.name} is a slider: what it is trained on has no captions of its own.")
    config = config.model_copy(update={"name": folder.name})
    distributed, cache = Distributed(), Cache(workspace.cache / "encoded")
    chosen = split(config, lambda item: cache.facts(item)[0], made_of.image_record(folder))
    base = load_base(config.base, not config.training.compile, precision_of(config.training))
    base.onload()
    provenance.refuse_other_weights(folder, base)
    ready = yield from drawn(config, chosen, base, workspace, distributed, stop, view.step)
    if ready is None:
        return None
    config, chosen = ready
    prepared = prepare(config, chosen, base, cache, distributed, stop, view.step)
    examples, held_out, _ = yield from prepared  # type: ignore[misc]
    if stop.is_set() or not examples:
        return None
    notes = provenance.changed(folder, base, cache, chosen, examples)
    return Reopened(folder, view, config, base, cache, chosen, examples, held_out, notes)
