"""Config in, events out: the path of a run, from its images to its export check.

Every step draws its images, noise and timesteps from generators seeded with the run's seed and the step's number, so
that a run that goes on from a checkpoint, or on more distributed, is the run that never stopped.
"""

import logging
import threading
from collections.abc import Generator, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

from torch import Tensor

from studio import devices
from studio.basemodels import load_base
from studio.basemodels.weights import weights_hash
from studio.errors import RunError, StudioError, user_message
from studio.generation.adapter_cache import cache_of
from studio.training import checkpoints, made_of, provenance, runs, tensorboard, verdict
from studio.training.batch_sampler import BatchSampler
from studio.training.cache import Cache, key_of
from studio.training.changes import as_begun
from studio.training.class_images import drawn
from studio.training.config import RunConfig, config_from_toml
from studio.training.difficulty import Difficulty
from studio.training.distributed import Distributed
from studio.training.ending import Measured, ending
from studio.training.events import (
    Checkpoint,
    Event,
    Failed,
    Finished,
    RolledBack,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
)
from studio.training.examples import BatchLoader, Example
from studio.training.export_check import try_export_check
from studio.training.made_of import short
from studio.training.memorization import MemorizationCheck
from studio.training.metadata import adapter_metadata
from studio.training.micro_batches import DoesNotFit
from studio.training.optimizers import current_lr
from studio.training.preparing import prepare
from studio.training.previews import draw_previews
from studio.training.reading import at_work, read_run_folder
from studio.training.run_report import result_line, setup_line
from studio.training.run_resources import Clock, memory_used, precision_of
from studio.training.scorecard.in_run import RunScorer
from studio.training.scorecard.of_run import judged_event
from studio.training.scorecard.verdict import Verdict
from studio.training.selection import split
from studio.training.slider import train_step_for, with_images
from studio.training.train_step import StepResult, fault_of
from studio.training.validation import Validator
from studio.workspace import Workspace

log = logging.getLogger(__name__)
ROLLBACKS = 3  # non-finite losses until the run gives up
READ_EVERY = 10  # steps between two waits for an accelerator's losses


def train(
    config: RunConfig,
    workspace: Workspace,
    stop: threading.Event | None = None,
    folder: Path | None = None,
    save: threading.Event | None = None,
    sample: threading.Event | None = None,
) -> Iterator[Event]:
    """Run to the end, yielding each event after it stands in the run folder.

    stop    finishes the step, writes a checkpoint and ends with Stopped
    folder  the run folder to go on with: from its last checkpoint, or from the start where it has none.
            Without it, `runs.new_run` makes one
    save    writes a checkpoint after the step and is cleared
    sample  draws the previews after the step and is cleared

    To pause, don't ask for the next event. Under `accelerate launch` only the first process yields.
    Raises StudioError for what a person can mend; the folder's last event is then Failed.
    """
    distributed = Distributed()
    if folder is None:
        folder = Path(distributed.broadcast(str(runs.new_run(config, workspace)) if distributed.is_main else ""))
    trace = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    log.addHandler(trace)
    step, run = 0, _Run(config, workspace, Path(folder), distributed, stop, save, sample)
    run.leaving.enter_context(at_work(folder))
    try:
        watched = config.training.tensorboard and distributed.is_main
        write_event = run.leaving.enter_context(tensorboard.event_writer(folder)) if watched else None
        for event in run.events():
            step = event.step
            if distributed.is_main:
                with run.clock.away():
                    runs.append(folder, event)
                    if write_event:
                        write_event(event)
                    yield event
    except Exception as error:
        if not isinstance(error, StudioError):
            log.exception("step %d", step)
        event = Failed(step, (user_message(error) or str(error) or type(error).__name__).splitlines()[0])
        if distributed.is_main:
            _try_to_append(folder, event)
            yield event
        raise
    finally:
        run.leaving.close()
        log.removeHandler(trace)
        trace.close()


def _try_to_append(folder: Path, event: Event) -> None:
    try:
        runs.append(folder, event)
    except StudioError:
        log.exception("the last event")


class _Run:
    """One run under way."""

    def __init__(
        self,
        config: RunConfig,
        workspace: Workspace,
        folder: Path,
        distributed: Distributed,
        stop: threading.Event | None,
        save: threading.Event | None,
        sample: threading.Event | None = None,
    ):
        config = config.model_copy(update={"name": folder.name})
        if config.training.epochs is not None and (folder / "run.toml").is_file():
            config = config_from_toml(folder / "run.toml")  # has the steps that they come to
        self.config, self.changed = as_begun(config, provenance.begun_under(folder))
        self.workspace, self.folder, self.distributed = workspace, folder, distributed
        self.stop, self.save, self.sample = (event or threading.Event() for event in (stop, save, sample))
        self.clock = Clock()
        self.smoothed: float | None = None
        self.best: dict[str, Any] | None = None  # {"step", "loss", "base_loss", "values"} of the lowest held-out loss
        self.slower, self.rollbacks = 1.0, 0  # a factor on the learning rate, halved at each rollback
        self.difficulty = Difficulty()
        self.memory: MemorizationCheck | None = None
        self.held: Validator | None = None
        self.scoring: RunScorer | None = None
        self.verdict: Verdict | None = None
        self.ended = ""  # why it ends before its last step by itself
        self.measured_elsewhere = False  # whether the checkpoint's held-out losses are of other images
        self.leaving = ExitStack()  # takes the adapters off the base, which others may use
        self.begun = max((int(f.name) for f in checkpoints.every(folder)), default=0)

    def events(self) -> Iterator[Event]:
        """Prepare, learn, conclude."""
        config = self.config = yield from with_images(self.config, self.workspace, self.distributed, self.stop)
        self.distributed.share([None] * config.training.batch_size)  # refuses a batch that can't be dealt out
        cache = Cache(self.workspace.cache / "encoded")
        chosen = split(config, lambda item: cache.facts(item)[0], made_of.image_record(self.folder))
        self.precision = precision_of(config.training)
        # What is compiled draws a little otherwise, so nobody else may get it.
        base = load_base(config.base, not config.training.compile, self.precision)
        base.onload()  # an earlier run, or a check before this one, has sent parts of a shared base away
        if self.begun:
            provenance.refuse_other_weights(self.folder, base)
        ready = yield from drawn(config, chosen, base, self.workspace, self.distributed, self.stop, self.begun)
        if ready is None:
            yield Stopped(self.begun, "Stopped while class images were drawn; those that are there are kept.")
            return
        config, chosen = ready
        self.config = config
        prepared = prepare(config, chosen, base, cache, self.distributed, self.stop, self.begun)
        examples, held_out, warnings = yield from prepared
        if self.stop.is_set() and not examples:
            yield Stopped(self.begun, "Stopped while the images were being encoded; what is done is kept.")
            return
        self.base, self.chosen = base, chosen
        self.weights = weights_hash(base.folder)  # now: the folder may be gone at a later checkpoint
        copies = [self.folder / name for name in (runs.INIT, runs.TRAINING_ADAPTER)]
        self.train_step = train_step_for(config, base, self.distributed, *(c if c.is_file() else None for c in copies))
        warnings += self.train_step.notes
        result, step = self.folder / "adapter.safetensors", self.train_step
        self.leaving.enter_context(cache_of(base).training(result, step.adapters, step.beside))
        self.reader = reader = BatchLoader(base, cache, config.data, texts=not self.train_step.trains_text)
        self.plan = BatchSampler(examples, config.training.batch_size, config.training.seed, config.data)
        self.difficulty.content = {e.name: short(e.digest) for e in examples}
        if held_out:
            weights = self.distributed.broadcast(
                key_of(provenance.base_files(base)) if self.distributed.is_main else ""
            )
            self.held = Validator(held_out, base, reader, self.distributed, self.train_step.conditions, weights)
            self.train_step.strength = 0.0
            self.held.base_rows = self.held.measure()
            self.train_step.strength = 1.0
        self.scoring = RunScorer(config, base, examples, held_out, self.folder, self._set_strength)
        if config.preview.every and self.distributed.is_main and not config.slider.positive:
            check = MemorizationCheck.of(examples, base)
            self.memory = None if isinstance(check, str) else check
            warnings += [check] if isinstance(check, str) else []
        if self.distributed.is_main:
            warnings += provenance.keep(self.folder, base, cache, chosen, examples, held_out)
        base.offload_encoders(text=not self.train_step.trains_text)
        first = self._restore(checkpoints.newest(self.folder))
        yield Started(first, config.training.steps, *runs.here(), self.train_step.summary(), self._setup(examples))
        for message in self.changed + warnings:
            yield Warned(first, message)
        if self.measured_elsewhere:
            yield from self._measure_anew(first)
        if first == 0:
            yield from self._validate(0)
            yield from self._preview(0)
        yield from self._learn(first)

    def _learn(self, step: int) -> Iterator[Event]:
        settings, wanted = self.config.training, self.config
        good = (step, checkpoints.pack(self._state(step)))
        waiting: list[StepResult] = []
        self.clock.start()
        while step < settings.steps:
            step += 1
            try:
                waiting.append(self.train_step.step(step, self.plan, self.reader, self.slower))
            except DoesNotFit as error:
                yield from map(self._take, waiting)
                raise RunError(f"{error} " + (yield from self._keep_before_giving_up(step - 1))) from error
            self.clock.tick()
            asked = (self.stop.is_set(), self.save.is_set(), self.sample.is_set())
            stop, save, sample = self.distributed.broadcast(asked)
            last = step == settings.steps
            validate = last or _due(step, wanted.validation.every)
            preview = last or sample or _due(step, wanted.preview.every)
            keep = last or stop or save or _due(step, settings.checkpoint_every)
            patient = devices.is_accelerator(self.base.device) and len(waiting) < READ_EVERY
            if patient and not (validate or preview or keep):
                continue
            fault = None
            for reading in waiting:
                fault = fault_of(reading, self.train_step.scaler.is_enabled())
                if fault:
                    break
                yield self._take(reading)
                if reading.warning:
                    yield Warned(reading.step, reading.warning)
            waiting = []
            if fault:
                self.rollbacks += 1
                if self.rollbacks > ROLLBACKS:
                    raise RunError(fault + " It went wrong again after three tries: lower the rate." + self._rescue())
                rollbacks, slower = self.rollbacks, self.slower / 2
                step = self._restore(checkpoints.unpack(good[1]))
                self.rollbacks, self.slower = rollbacks, slower
                yield RolledBack(step, f"{fault} Back to step {step}, with the learning rate times {slower:g}.")
                continue
            if validate:
                yield from self._validate(step)
                self.ended = self.distributed.broadcast(self._ending())
                stop = stop or bool(self.ended)
            if preview:
                yield from self._preview(step, sample)
                self.sample.clear()
            if keep or stop:
                good = (step, checkpoints.pack(self._state(step)))
                self.save.clear()
                yield from self._checkpoint(step, good[1])
            if stop and not last:
                break
        yield from self._conclude(step)

    def _take(self, reading: StepResult) -> Step:
        """Read a step back from the device."""
        losses = reading.losses.tolist()
        loss = sum(losses) / len(losses)
        self.smoothed = loss if self.smoothed is None else 0.95 * self.smoothed + 0.05 * loss
        self.difficulty.see(reading.names, losses, reading.shares.tolist())
        left = (self.config.training.steps - reading.step) * self.clock.seconds
        optimizer, speed = self.train_step.optimizer, round(1 / self.clock.seconds, 4)
        return Step(
            reading.step,
            loss,
            self.smoothed,
            current_lr(optimizer, self.base.denoiser),
            speed,
            round(left, 2),
            float(reading.norm),
            round(memory_used(self.base.device), 3),
            current_lr(optimizer, "text_encoder"),
        )

    def _validate(self, step: int) -> Iterator[Event]:
        """Measure on the held-out images, and remember the weights when they are the best so far."""
        if not self.held:
            return
        with self.train_step.evaluation_weights():
            event = self.held.validate(step)
            if step and (self.best is None or event.loss < self.best["loss"]):
                self.best = _best(event, self.train_step.values())
        yield event
        turned = event.verdict == verdict.OVERFITTING and self.held.verdicts[-2:-1] != [verdict.OVERFITTING]
        if turned and self.best:
            yield Warned(step, f"Over-fitting: the held-out loss was lowest at step {self.best['step']}; it is kept.")
        if step and self.scoring and self.scoring.due(step):
            yield from self._score(step, event)

    def _set_strength(self, value: float) -> None:
        self.train_step.strength = value

    def _score(self, step: int, loss: Validation | None = None, last: bool = False) -> Iterator[Event]:
        """The scorecard of the weights as they would be saved now. loss: their validation; last: of the result."""
        scoring = self.scoring
        assert scoring is not None
        with nullcontext() if last and self.best else self.train_step.evaluation_weights():  # the best are evaluated
            if self.distributed.is_main:
                with self.train_step.drawing():
                    yield from scoring.score(step, last)
                self.base.offload_encoders(text=not self.train_step.trains_text)
            fault = self.distributed.broadcast(scoring.fault(step))
            if loss is not None and not fault:
                scoring.remember(_best(loss, self.train_step.values()))

    def _judge(self, step: int) -> Iterator[Event]:
        """Score the best weights, and let the verdict say whether to keep those or better drawn ones."""
        scoring = self.scoring
        if scoring is None:
            return
        if scoring.plan.size and not self.stop.is_set():
            if self.best:
                self.train_step.put(self.best["values"])
            yield from self._score(self.best["step"] if self.best else step, last=True)
        self.verdict = read_run_folder(self.folder).verdict if self.distributed.is_main else None
        chosen = self.distributed.broadcast(self.verdict.checkpoint if self.verdict else 0)
        if self.best and scoring.sound and chosen == scoring.sound["step"]:
            self.best = scoring.sound

    def _measure_anew(self, step: int) -> Iterator[Event]:
        """The checkpoint's held-out losses are of other images: the best weights and these are measured on what is
        held out now, so that nothing is compared across the two.
        """
        if not self.held:
            self.best = None
            yield Warned(step, "Nothing is held out any more: the run keeps its last step, not an earlier best one.")
            return
        yield Warned(
            step,
            "What is held out is not what this run was measured on before: its best and its present weights are "
            "measured anew, and earlier held-out losses are not compared with.",
        )
        if self.best and self.best["step"] < step:
            now = self.train_step.values()
            self.train_step.put(self.best["values"])
            event = self.held.validate(self.best["step"])
            self.train_step.put(now)
            self.best |= {"loss": event.loss, "base_loss": event.base_loss}
            yield event
        else:
            self.best = None
        yield from self._validate(step)

    def _ending(self) -> str:
        verdicts, scores = self.held.verdicts if self.held else [], self.scoring.scores if self.scoring else []
        return ending(self.config, Measured(verdicts, read_run_folder(self.folder).validations, scores))

    def _preview(self, step: int, asked: bool = False) -> Iterator[Event]:
        if not (self.config.preview.every or asked) or not self.distributed.is_main:
            return
        with self.train_step.evaluation_weights(), self.train_step.drawing():
            for event, number, image in draw_previews(step, self.base, self.train_step, self.config, self.folder):
                yield event
                warning = self.memory.check(number, image, step, self.base) if self.memory else None
                if warning:
                    yield Warned(step, warning)
        self.base.offload_encoders(text=not self.train_step.trains_text)

    def _checkpoint(self, step: int, packed: bytes) -> Iterator[Event]:
        if not self.distributed.is_main:
            return
        try:
            with self.train_step.evaluation_weights():
                metadata = self._metadata(step, None)
                path = checkpoints.save(
                    self.folder,
                    step,
                    packed,
                    lambda file: self.train_step.save(file, metadata),
                    self.config.training.keep_checkpoints,
                )
            self.difficulty.write(self.folder)
        except OSError as error:
            kept = checkpoints.every(self.folder)
            before = f"that of step {int(kept[-1].name)} is whole" if kept else "there is none before it"
            yield Warned(step, f"The checkpoint could not be written ({error.strerror}): {before}. Free some space.")
            return
        yield Checkpoint(step, path.relative_to(self.folder).as_posix())

    def _keep_before_giving_up(self, step: int) -> Generator[Event, None, str]:
        """A checkpoint of the last whole step; returns where it is, in words."""
        if not step:
            return "Nothing is lost: it was the first step."
        yield from self._checkpoint(step, checkpoints.pack(self._state(step)))
        return f"What was learned until step {step} is in its checkpoint."

    def _conclude(self, step: int) -> Iterator[Event]:
        """Write the result, prove it, and say how it went."""
        yield from self._judge(step)
        kept, stopped = self._save_result(step), step < self.config.training.steps
        message = result_line(kept, step, self.best, self.held, self.verdict)
        by_itself = stopped and not self.stop.is_set() and bool(self.ended)
        if self.distributed.is_main:
            if not stopped or by_itself:
                yield try_export_check(step, self.config, self.train_step, self.precision, self.folder)
            if self.verdict and self.scoring:
                yield judged_event(step, self.verdict, self.scoring.seconds / max(1e-3, self.clock.total))
            if by_itself:
                yield Finished(step, kept, f"Stopped at step {step}, {self.ended}. {message}")
            elif stopped:
                yield Stopped(step, f"Stopped at step {step}; it can go on from there. {message}")
            else:
                yield Finished(step, kept, f"Finished. {message}")
        self.distributed.wait()

    def _save_result(self, step: int) -> int:
        """adapter.safetensors: the best of the run, else its last step. Returns the step that it holds."""
        if self.best:
            self.train_step.put(self.best["values"])
            step = self.best["step"]
        else:
            with self.train_step.evaluation_weights():
                values = self.train_step.values()
            self.train_step.put(values)
        if self.distributed.is_main:
            try:
                self.train_step.save(self.folder / "adapter.safetensors", self._metadata(step, self.best))
                provenance.keep_adapter(self.folder)
            except OSError as error:
                raise RunError(
                    f"The adapter could not be written ({error.strerror}): free some space and resume."
                ) from error
        return step

    def _rescue(self) -> str:
        """Keep what a run that went wrong had learned best, and say so."""
        if not self.best:
            return " The checkpoints hold what it had learned before."
        self._save_result(self.best["step"])
        return f" adapter.safetensors holds its best, from step {self.best['step']}."

    def _metadata(self, step: int, best: dict[str, Any] | None) -> dict[str, str]:
        losses = (best["loss"], best["base_loss"]) if best else None
        resolution = self.config.data.resolution or self.base.resolution
        verdict = self.verdict if best else None
        return adapter_metadata(self.config, self.chosen, resolution, step, losses, self.weights, verdict, self.ended)

    def _setup(self, examples: list[Example]) -> str:
        besides = " ".join([*self.train_step.facts, *([self.scoring.line()] if self.scoring else [])])
        return setup_line(self.config, self.base, self.plan, self.chosen, examples, self.distributed, besides)

    def _state(self, step: int) -> dict[str, Any]:
        """All that a run needs to go on as if it had never stopped."""
        return {
            "step": step,
            "smoothed": self.smoothed,
            "best": self.best,
            "slower": self.slower,
            "rollbacks": self.rollbacks,
            "difficulty": self.difficulty.state(),
            "train_step": self.train_step.state(),
            "held": self.held.state() if self.held else None,
            "memory": self.memory.state() if self.memory else None,
            "scoring": self.scoring.state() if self.scoring else None,
        }

    def _restore(self, state: dict[str, Any] | None) -> int:
        """Go back to a state; returns its step, 0 for none."""
        if state is None:
            return 0
        self.train_step.restore(state["train_step"] if "train_step" in state else state["learner"])  # before 0.2
        self.smoothed, self.best = state["smoothed"], state["best"]
        self.slower, self.rollbacks = state["slower"], state["rollbacks"]
        self.difficulty.restore(state["difficulty"])
        same = self.held.restore(state["held"]) if self.held and state["held"] else not state["held"]
        self.measured_elsewhere = not same
        if self.memory and state["memory"]:
            self.memory.restore(state["memory"])
        if self.scoring and same:
            self.scoring.restore(state.get("scoring"))
        return int(state["step"])


def _best(event: Validation, values: list[Tensor]) -> dict[str, Any]:
    """What is remembered of weights that may be kept."""
    return {"step": event.step, "loss": event.loss, "base_loss": event.base_loss, "values": values}


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
