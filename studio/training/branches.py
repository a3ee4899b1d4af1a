"""Two branches of a run from one checkpoint, in memory: one with an image, one in which its loss counts as zero.

The image keeps its places in the batches, so that every other image comes at the same step, with the same noise,
timestep and caption. Taking it out of the dataset instead would shuffle all the others anew, and the two branches would
differ by chance as well.
"""

import math
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from studio.errors import RunError
from studio.generation.adapter_cache import cache_of
from studio.training import checkpoints, runs
from studio.training.batch_sampler import BatchSampler
from studio.training.config_sections import TrainingConfig
from studio.training.distributed import Distributed
from studio.training.examples import BatchLoader, Example
from studio.training.influence import Influence
from studio.training.paired import difference
from studio.training.reopening import Progress, Reopened, opened_run
from studio.training.train_step import TrainStep, fault_of
from studio.training.validation import Validator
from studio.workspace import Workspace

SEEN = 8  # how often an image is shown in a branch whose length is not given
SHORTEST, LONGEST = 10, 100  # steps of such a branch


def measure_influence(
    folder: Path, workspace: Workspace, image: str, steps: int, stop: threading.Event
) -> Generator[Progress, None, Influence | None]:
    """Train both branches and measure them on the held-out images; None after `stop`.

    image: its name in the run. steps: of a branch; 0 for as many as show the image about 8 times. Yields (done, in all,
    what). Nothing of the run is written. Raises RunError where nothing can be compared, else as `reopen`.
    """
    began = time.monotonic()
    opened = yield from opened_run(folder, workspace, stop)
    if opened is None:
        return None
    _refuse(opened, image)
    plain, silent = (_plan(opened, examples) for examples in (opened.examples, without(opened.examples, image)))
    span = _span(opened, plain, steps)
    places = plain.places_of(image, span)
    if not places:
        raise RunError(f"{image} is not shown in steps {span.first} to {span.last}: give the branches more steps.")
    found: list[tuple[list[float], Tensor]] = []
    with ExitStack() as stack:
        step = _train_step(opened, stack)
        fresh = checkpoints.pack(step.state())
        for number, plan in enumerate((plain, silent)):
            step.restore(span.state["train_step"] if span.state else checkpoints.unpack(fresh))
            what = "Training without it" if number else "Training with it"
            losses: list[float] = []
            for loss in _trained(opened, step, plan, span, stop):
                losses.append(loss)
                yield number * span.count + len(losses), 2 * span.count, what
            if stop.is_set():
                return None
            with step.evaluation_weights():
                found.append((losses, _validator(opened, step).measure().mean(1)))
    (losses, with_it), (_, without_it) = found
    base = without_it.mean().item()
    return Influence(
        image,
        span.first,
        span.last,
        places,
        span.count * plain.sampler.batch * plain.accumulation,
        with_it.mean().item(),
        base,
        difference((with_it - without_it).tolist()).over(base),
        _repeats(opened, span, losses),
        [*opened.notes, *span.notes],
        round(time.monotonic() - began, 1),
    )


def without(examples: list[Example], image: str) -> list[Example]:
    """The same examples, in which the loss on one image is zero."""
    return [replace(e, weight=0.0, priors=()) if e.name == image else e for e in examples]


@dataclass(frozen=True)
class Span:
    """The steps of both branches. state: of the checkpoint before them, None for the start."""

    first: int
    last: int
    state: dict[str, Any] | None
    notes: list[str]

    @property
    def count(self) -> int:
        return self.last - self.first + 1


@dataclass(frozen=True)
class Plan:
    sampler: BatchSampler
    accumulation: int

    def places_of(self, image: str, span: Span) -> int:
        """How many rows of the batches of these steps show the image."""
        batches = range((span.first - 1) * self.accumulation, span.last * self.accumulation)
        return sum(row.example.name == image for number in batches for row in self.sampler.rows(number))


def _plan(opened: Reopened, examples: list[Example]) -> Plan:
    settings = opened.config.training
    return Plan(BatchSampler(examples, settings.batch_size, settings.seed, opened.config.data), settings.accumulation)


def _refuse(opened: Reopened, image: str) -> None:
    name = opened.folder.name
    if image in {e.name for e in opened.held_out}:
        raise RunError(f"{image} is held out: {name} never learns from it, so it can't hurt.")
    if image not in {e.name for e in opened.examples}:
        raise RunError(f"{name} does not train on {image[:80]!r}: choose one of its images.")
    if not opened.held_out:
        raise RunError(
            f"{name} holds out no images, so nothing can be compared: set validation.every or data.held_out."
        )


def _span(opened: Reopened, plan: Plan, steps: int) -> Span:
    """From the newest checkpoint after which a branch still fits into the run, else from its start."""
    settings = opened.config.training
    wanted = min(steps or _usual(plan, settings), settings.steps)
    notes = [f"A branch can't be longer than the run: {settings.steps:,} steps."] if steps > settings.steps else []
    for checkpoint in reversed(checkpoints.every(opened.folder)):
        if int(checkpoint.name) + wanted <= settings.steps and (state := checkpoints.state_of(checkpoint)):
            first = int(state["step"]) + 1
            return Span(first, first - 1 + wanted, {"train_step": state.get("learner"), **state}, notes)
    return Span(1, wanted, None, notes)


def _usual(plan: Plan, settings: TrainingConfig) -> int:
    a_step = plan.sampler.times_seen(settings.batch_size * settings.accumulation)[0]
    return min(LONGEST, max(SHORTEST, math.ceil(SEEN / max(a_step, 1e-9))))


def _train_step(opened: Reopened, stack: ExitStack) -> TrainStep:
    """As the run has it; off the base when the stack closes."""
    copies = [opened.folder / name for name in (runs.INIT, runs.TRAINING_ADAPTER)]
    files = [copy if copy.is_file() else None for copy in copies]
    step = TrainStep(opened.config, opened.base, Distributed(), *files)
    # Under a name of its own: what is drawn with the run's adapter meanwhile takes the file, not a branch.
    stack.enter_context(cache_of(opened.base).training(opened.folder / "branch", step.adapters, step.beside))
    return step


def _validator(opened: Reopened, step: TrainStep) -> Validator:
    reader = _reader(opened, step)
    return Validator(opened.held_out, opened.base, reader, Distributed(), step.conditions)


def _reader(opened: Reopened, step: TrainStep) -> BatchLoader:
    return BatchLoader(opened.base, opened.cache, opened.config.data, texts=not step.trains_text)


def _trained(
    opened: Reopened, step: TrainStep, plan: Plan, span: Span, stop: threading.Event
) -> Generator[float, None, None]:
    """The loss of each step, as the run writes it down."""
    reader, slower = _reader(opened, step), float(span.state["slower"]) if span.state else 1.0
    for number in range(span.first, span.last + 1):
        if stop.is_set():
            return
        reading = step.step(number, plan.sampler, reader, slower)
        if fault := fault_of(reading, step.scaler.is_enabled()):
            raise RunError(f"{fault} The branches can't be compared.")
        losses = reading.losses.tolist()
        yield sum(losses) / len(losses)


def _repeats(opened: Reopened, span: Span, losses: list[float]) -> bool | None:
    """Whether these are the losses of the run's own steps."""
    written = {step: loss for step, loss, _ in opened.view.losses}
    pairs = [(written[n], loss) for n, loss in enumerate(losses, span.first) if n in written]
    return all(one == other for one, other in pairs) if pairs else None
