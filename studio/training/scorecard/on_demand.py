"""Scorecards of a run that is over: of the adapter that it keeps, and of checkpoints on its way."""

import io
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from studio.adapters import attach_file, read_adapter
from studio.basemodels import Family, load_base
from studio.basemodels.defaults import variant_of
from studio.building import building
from studio.datasets import Item, frame_of
from studio.errors import AdapterError, RunError
from studio.generation.adapter_cache import cache_of
from studio.training import checkpoints, made_of, runs
from studio.training.caption_variants import caption_of
from studio.training.config import RunConfig, config_from_toml
from studio.training.defaults import prompts_of
from studio.training.events import Event
from studio.training.reading import read_run_folder
from studio.training.run_resources import precision_of
from studio.training.scorecard.card import Scorer, Shown
from studio.training.scorecard.features import Encoder
from studio.training.scorecard.in_run import FOLDER, MOST
from studio.training.scorecard.of_run import judged_event, to_event
from studio.training.scorecard.plan import FULL, Size
from studio.training.selection import Selection, split
from studio.workspace import atomic_write

Progress = Callable[[int, int, str], None]


def score_run(
    folder: Path,
    count: int = 1,
    encoder: Encoder | None = None,
    size: Size = FULL,
    stop: threading.Event | None = None,
    progress: Progress | None = None,
) -> Iterator[Event]:
    """Score the adapter that the run in `folder` keeps, and `count` - 1 of its checkpoints, evenly spread, and judge
    it anew. The events are written to the run's log before they are yielded.

    progress: called with (cards done, in all, what is scored now). Raises RunError when there is nothing to score,
    DatasetError when its images are gone, BaseModelError when its base is.
    """
    config, view = config_from_toml(folder / "run.toml"), read_run_folder(folder)
    if view.state == "running":
        raise RunError(f"{folder.name} is running: it is scored when it has ended.")
    files = checkpoints_to_score(folder, count)
    if not files:
        raise RunError(f"{folder.name} has no adapter yet: nothing can be scored.")
    base = load_base(config.base, precision=precision_of(config.training))
    base.onload()
    chosen = split(config, record=made_of.image_record(folder))
    held_out, trained = (shown_of(items, chosen, config, base) for items in (chosen.held_out, chosen.items))
    strength = _Strength()
    scorer = Scorer(base, config, held_out, trained, prompts_of(variant_of(config.base)), strength.set, size, encoder)
    for number, (step, file) in enumerate(files):
        if stop is not None and stop.is_set():
            return
        if progress:
            progress(number, len(files), f"Scoring step {step:,}")
        with cache_of(base).active(()), strength.of(base, file):
            scores, sheet = scorer.score(step)
        stream, target = io.BytesIO(), folder / FOLDER / f"{step:06d}.png"
        sheet.save(stream, "PNG")
        target.parent.mkdir(exist_ok=True)
        atomic_write(target, stream.getvalue(), lasting=False)
        event = to_event(replace(scores, sheet=target.relative_to(folder).as_posix()))
        runs.append(folder, event)
        yield event
    found = replace(read_run_folder(folder), judged=None).verdict
    if found:
        judged = judged_event(view.step, found)
        runs.append(folder, judged)
        yield judged


class _Strength:
    """The strength of the adapter that is scored now."""

    def __init__(self) -> None:
        self.adapter: object = None

    def set(self, value: float) -> None:
        self.adapter.strength = value  # type: ignore[attr-defined]

    def of(self, base: Family, file: Path) -> "_Attached":
        return _Attached(self, base, file)


class _Attached:
    def __init__(self, strength: _Strength, base: Family, file: Path):
        self.strength, self.base, self.file = strength, base, file

    def __enter__(self) -> None:
        with building:
            self.adapter = attach_file(read_adapter(self.file), self.base.modules())
        self.strength.adapter = self.adapter

    def __exit__(self, *_: object) -> None:
        self.adapter.detach()


def checkpoints_to_score(folder: Path, count: int) -> list[tuple[int, Path]]:
    """(step, file) of `count` adapters, by step: the one that is kept, then checkpoints, evenly spread."""
    found = {int(one.name): one / "adapter.safetensors" for one in checkpoints.every(folder)}
    kept, result = 0, folder / "adapter.safetensors"
    if result.is_file():
        try:
            kept = int(read_adapter(result).metadata.get("studio.step", "0"))
        except (ValueError, AdapterError):
            kept = read_run_folder(folder).step
    others = sorted(step for step in found if step != kept)
    places = _spread(others, count - (1 if kept else 0))
    chosen = {step: found[step] for step in places} | ({kept: result} if kept else {})
    return sorted((step, file) for step, file in chosen.items() if file.is_file())


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """`count` of the steps, the last one among them."""
    if count <= 0 or not steps:
        return []
    if count >= len(steps):
        return list(steps)
    return sorted({steps[round((place + 1) * len(steps) / count) - 1] for place in range(count)})


def shown_of(items: Sequence[Item], chosen: Selection, config: RunConfig, base: Family) -> list[Shown]:
    """The images as training cuts them."""

    def load(item: Item) -> Image.Image:
        image, data = item.load(), config.data
        side = data.resolution or base.resolution
        step = max(base.multiple, 64 if side >= 512 else 0)
        return frame_of(*image.size, side, step, data.buckets, data.upscale).cut(image)

    return [
        Shown(one.file, caption_of(one, chosen.data_of(one, config.data)), lambda one=one: load(one))  # type: ignore[misc]
        for one in items[:MOST]
    ]
