"""Runs of tiny bases, here and on the pretend device."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from studio.basemodels import Family
from studio.training import config_from, train, trainer
from studio.training.events import Event, ExportChecked, Finished, Step
from studio.workspace import Workspace

QUICK = {
    "name": "run",
    "data.caption_dropout": 0,
    "adapter.rank": 2,
    "training.steps": 2,
    "training.batch_size": 2,
    "training.warmup": 1,
    "training.precision": "fp32",
    "preview.every": 0,
    "validation.every": 0,
}


def run(
    base: Path | str, images: Path, at: Path, seen: Callable[[Event, Family], None] | None = None, **more: Any
) -> list[Event]:
    """The events of a run in the workspace `at`. seen: called with each event and the run's base."""
    bases: list[Family] = []
    whole = trainer.load_base

    def noted(*given: Any, **options: Any) -> Family:
        bases.append(whole(*given, **options))
        return bases[-1]

    trainer.load_base = noted
    try:
        events = []
        config = config_from(QUICK | {"base": str(base), "data.folder": str(images)} | more)
        for event in train(config, Workspace.open(at)):
            events.append(event)
            if seen:
                seen(event, bases[-1])
        return events
    finally:
        trainer.load_base = whole


def losses(events: Iterable[Event]) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


def refuse_unfinished(events: list[Event]) -> None:
    """It ended well, and its file gives the trained model."""
    assert isinstance(events[-1], Finished), events[-1]
    proof = next(event for event in events if isinstance(event, ExportChecked))
    assert proof.difference < 1 and not proof.unused, proof
