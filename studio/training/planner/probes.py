"""A few steps of a run that is planned: what fits into memory, how long things take, and how three rates compare."""

import random
import statistics
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from studio.basemodels import Family, load_base
from studio.basemodels.card import describe_base
from studio.errors import RunError, out_of_memory
from studio.generation.adapter_cache import cache_of
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache
from studio.training.config import RunConfig, config_from, dotted
from studio.training.config_sections import FIND_THEIR_RATE
from studio.training.distributed import Distributed
from studio.training.effects import refuse
from studio.training.examples import BatchLoader, Example, Unreadable, encode_missing, list_examples
from studio.training.micro_batches import DoesNotFit
from studio.training.paired import difference
from studio.training.parameter_count import parameter_line
from studio.training.planner.plan import Measured, Probe, Wish
from studio.training.preflight import available_memory, smaller, try_steps
from studio.training.previews import side_of
from studio.training.reopening import Progress
from studio.training.run_resources import precision_of
from studio.training.selection import Selection, split
from studio.training.train_step import TrainStep, fault_of
from studio.training.validation import Validator
from studio.workspace import Workspace

STEPS = 10  # of a probe
FACTOR = 3.0  # between one rate and the next
JUDGES = 8  # images that rates are compared by; where fewer are held out, more are left out of the probes' batches
BROKEN = 10.0  # times the base's loss, where a loss is not a number any more
SMALLER = (0.75, 0.5)  # of the resolution, where nothing else fits


@dataclass
class _Probing:
    """What the parts share."""

    config: RunConfig
    wish: Wish
    workspace: Workspace
    stop: threading.Event
    base: Family
    cache: Cache
    chosen: Selection

    def examples(self, config: RunConfig, held_out: bool = False) -> list[Example]:
        items = self.chosen.held_out if held_out else self.chosen.items
        found, _ = list_examples(
            items, self.base, self.cache, config.data, config.training.seed, chosen=self.chosen, held_out=held_out
        )
        return found

    def encode(self, examples: list[Example], config: RunConfig) -> list[Example]:
        """Those of them that can be read."""
        texts = not config.adapter.text_encoder
        found = encode_missing(examples, self.base, self.cache, Distributed(), self.stop, config.data, texts)
        unreadable = {one.path for one in found if isinstance(one, Unreadable)}
        return [one for one in examples if one.item.path not in unreadable]

    def missing(self, examples: list[Example]) -> int:
        return sum(not all(self.cache.has(key) for key in one.latents) for one in examples)


def measure(
    config: RunConfig, wish: Wish, workspace: Workspace, stop: threading.Event
) -> Generator[Progress, None, Measured | None]:
    """Try the run that `config` describes; None after `stop`. Writes nothing but cache files, which the run will use.

    Raises StudioError where it could not even begin.
    """
    if config.slider.positive:
        raise RunError("A slider needs no plan: it has no images of its own, by which it could be measured.")
    began = time.monotonic()
    precision = precision_of(config.training)
    _refuse_too_large(config, wish, precision)
    yield 0, 1, "Loading the base model"
    base = load_base(config.base, not config.training.compile, precision)
    base.onload()
    refuse(config, base)
    cache = Cache(workspace.cache / "encoded")
    probing = _Probing(config, wish, workspace, stop, base, cache, split(config, lambda item: cache.facts(item)[0]))
    examples = probing.examples(config)
    cache.keep_facts()
    if not examples:
        raise RunError("No image can be learned from: add some to the dataset.")
    loaded = time.monotonic() - began
    fit = yield from _what_fits(probing, examples)
    if fit is None:
        return None
    fitted = config_from(dotted(config) | fit.change)
    examples, held_out = probing.examples(fitted), probing.examples(fitted, held_out=True)
    rated = yield from _rates(probing, fitted, examples, held_out)
    if rated is None:
        return None
    side = fitted.data.resolution or base.resolution
    own = [one for one in examples if one.is_main]
    return Measured(
        images=len(own),
        enlarged=sum(one.enlarged > 1 for one in own),
        held_out=len(held_out),
        resolution=side,
        usual=base.resolution,
        change=fit.change,
        tried=fit.tried,
        memory=fit.memory,
        available=_limit(wish, available_memory(base.device)),
        step=rated.step,
        preview=fit.preview / max(1, sum(1 for line in config.preview.prompts if line.strip())),
        validation=rated.validation,
        before=loaded + rated.image * probing.missing([*examples, *held_out]),
        steps=STEPS,
        probes=rated.probes,
        judges=rated.judges,
        pixels=(side_of(base) / side) ** 2,
        parameters="" if config.adapter.init_from else _trainable(config),
    )


def _trainable(config: RunConfig) -> str:
    line = parameter_line(config.adapter, config.base, by_line=False)
    return line.partition(". ")[0].rstrip(".")


def _limit(wish: Wish, available: float) -> float:
    return min(available, wish.memory) if wish.memory is not None else available


def _refuse_too_large(config: RunConfig, wish: Wish, precision: str) -> None:
    if wish.memory is None:
        return
    size = describe_base(config.base, precision).size.gigabytes
    if size > wish.memory:
        raise RunError(
            f"The base model alone takes {size:.1f} GB of the {wish.memory:g} that you allow: allow more, or choose it "
            "with quantized weights."
        )


# What fits -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fit:
    """change: of the settings; memory: GB at the most; preview: seconds of a round of previews."""

    change: dict[str, Any]
    memory: float
    preview: float
    tried: int


def ways_to_fit(config: RunConfig, resolution: int, multiple: int, fixed: frozenset[str]) -> list[dict[str, Any]]:
    """Changes that take ever less memory, the first being none; without those of what the person has set."""
    ways = smaller(config)
    for share in SMALLER:
        side = int(resolution * share) // multiple * multiple
        if side >= 16:
            ways.append({**ways[-1], "data.resolution": side})
    return [way for way in ways if not fixed & way.keys()]


def _what_fits(probing: _Probing, examples: list[Example]) -> Generator[Progress, None, _Fit | None]:
    """The first of these ways that a few real steps fit into; the last that ran, where none does."""
    config, base = probing.config, probing.base
    ways = ways_to_fit(config, config.data.resolution or base.resolution, base.multiple, probing.wish.fixed)
    limit, found = _limit(probing.wish, available_memory(base.device)), None
    for number, change in enumerate(ways):
        if probing.stop.is_set():
            return None
        yield 0, 1, "Trying what fits into memory"
        tried = config_from(dotted(config) | change | {"training.compile": False})
        few = _largest(examples if "data.resolution" not in change else probing.examples(tried), config)
        few = probing.encode(few, tried)
        if not few:
            raise RunError("The largest images can't be read: see the dataset's check.")
        base.offload_encoders(text=not config.adapter.text_encoder)
        try:
            _, memory, preview, _ = try_steps(tried, few, base, probing.cache, probing.stop)
        except (RuntimeError, MemoryError, DoesNotFit) as error:
            if not isinstance(error, DoesNotFit) and not out_of_memory(error):
                if probing.stop.is_set():
                    return None
                raise
            continue
        found = _Fit(change, memory, preview, number + 1)
        if memory <= limit:
            return found
    if found is None:
        raise RunError("A step does not fit into this device's memory: choose a smaller base, or a lower resolution.")
    return found


def _largest(examples: list[Example], config: RunConfig) -> list[Example]:
    largest = max((one.frame.size for one in examples), key=lambda size: size[0] * size[1])
    return [one for one in examples if one.frame.size == largest][: config.training.batch_size]


# Three rates ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Rated:
    """Seconds of a step, a validation, an image that is encoded; and the probes."""

    step: float
    validation: float
    image: float
    probes: tuple[Probe, ...]
    judges: int


def rates_of(config: RunConfig, wish: Wish, judges: int) -> list[float]:
    """Those that are tried, from low to high; one where nothing is to be chosen or compared."""
    own = config.training.learning_rate
    chosen = "training.learning_rate" in wish.fixed or config.training.optimizer in FIND_THEIR_RATE
    if chosen or not judges:
        return [own]
    return [own / FACTOR, own, own * FACTOR]


def _rates(
    probing: _Probing, config: RunConfig, examples: list[Example], held_out: list[Example]
) -> Generator[Progress, None, _Rated | None]:
    training = config.training
    judges, learned = judged_by(examples, held_out, training.seed)
    plan = BatchSampler(learned, training.batch_size, training.seed, config.data)
    shown = {id(row.example): row.example for n in range(STEPS * training.accumulation) for row in plan.rows(n)}
    rates = rates_of(config, probing.wish, len(judges))
    total = STEPS * len(rates)
    yield 0, total, "Encoding images and captions"
    needed, began = [*shown.values(), *judges], time.monotonic()
    lacking = probing.missing(needed)
    probing.encode(needed, config)
    image = (time.monotonic() - began) / lacking if lacking else 0.0
    probing.base.offload_encoders(text=not config.adapter.text_encoder)
    took: list[float] = []
    measured: dict[float, Tensor] = {}
    base_rows: Tensor | None = None
    validation = 0.0
    for number, rate in enumerate(rates):
        with ExitStack() as stack:
            step = _train_step(probing, config, rate, stack)
            reader = BatchLoader(probing.base, probing.cache, config.data, texts=not step.trains_text)
            validator = Validator(judges, probing.base, reader, Distributed(), step.conditions) if judges else None
            if validator and base_rows is None:
                began, step.strength = time.monotonic(), 0.0
                base_rows = validator.measure()
                step.strength = 1.0
                validation = (time.monotonic() - began) * max(1, len(held_out)) / len(judges)
            broke = False
            for one in range(1, STEPS + 1):
                if probing.stop.is_set():
                    return None
                began = time.monotonic()
                reading = step.step(one, plan, reader, 1.0)
                broke = broke or fault_of(reading, step.scaler.is_enabled()) is not None
                took += [time.monotonic() - began] if one > 1 else []
                yield number * STEPS + one, total, f"Learning rate {rate:.2g}"
            if validator and base_rows is not None:
                with step.evaluation_weights():
                    measured[rate] = base_rows * BROKEN if broke else validator.measure()
    probes = compared(training.learning_rate, measured, base_rows)
    return _Rated(statistics.median(took), validation, image, probes, len(judges))


def judged_by(examples: list[Example], held_out: list[Example], seed: int) -> tuple[list[Example], list[Example]]:
    """(images that the probes are compared by, examples that they learn from). At most a third is left out of those."""
    own = [one for one in examples if one.is_main and not one.regularization]
    more = max(0, min(JUDGES - len(held_out), len(own) // 3))
    apart = random.Random(seed).sample(own, more)
    paths = {one.item.path for one in apart}
    judges = [*held_out[:JUDGES], *apart]
    return judges, [one for one in examples if one.item.path not in paths]


def compared(own: float, measured: Mapping[float, Tensor], base: Tensor | None) -> tuple[Probe, ...]:
    """Probes of what each rate has measured, (images, draws) losses, against the base's and those of the own rate."""
    usual = measured.get(own)
    if base is None or usual is None or len(measured) < 2:
        return ()
    whole = base.mean().item()
    return tuple(
        Probe(rate, rows.mean().item() / whole - 1, difference((rows - usual).mean(1).tolist()).over(whole))
        for rate, rows in sorted(measured.items())
    )


def _train_step(probing: _Probing, config: RunConfig, rate: float, stack: ExitStack) -> TrainStep:
    """The run's start at a rate that is full from the first step; off the base when the stack closes."""
    settings: dict[str, Any] = {"training.learning_rate": rate, "training.warmup": 0, "training.compile": False}
    settings |= {"training.schedule": "constant"} if config.training.optimizer not in FIND_THEIR_RATE else {}
    step = TrainStep(config_from(dotted(config) | settings), probing.base, Distributed())
    # Under a name that no run has: what is drawn meanwhile never finds it.
    stack.enter_context(cache_of(probing.base).training(probing.workspace.cache / "plan", step.adapters, step.beside))
    return step
