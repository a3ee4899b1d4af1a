"""What a step changes: the adapters, their optimizer and their average. What a checkpoint holds is all here."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from studio import devices
from studio.adapters.writing import adapter_bytes
from studio.basemodels import Family
from studio.building import building
from studio.errors import out_of_memory
from studio.text import size
from studio.training.batch_sampler import BatchSampler
from studio.training.config import RunConfig
from studio.training.distributed import Distributed
from studio.training.examples import Batch, BatchLoader
from studio.training.folders import names_trigger
from studio.training.micro_batches import MicroBatcher, NoisedBatch, NoisedRows
from studio.training.objective import loss_of, offset_noise, pyramid_noise, stratified, timesteps
from studio.training.optimizers import Average, lr_factor, make_optimizer, set_learning_rates
from studio.training.patterns import parsed
from studio.training.prior_prediction import COST, prior_loss, spread_over
from studio.training.rounding import in_float32, to_bfloat16
from studio.training.starting import attach_training_adapter, start_adapters
from studio.workspace import atomic_write


@dataclass(frozen=True)
class StepResult:
    """The result of a step, still on the device: reading it back waits for the device."""

    step: int
    names: list[str]
    losses: Tensor  # (images of all processes and batches,)
    shares: Tensor  # (the same,) where in the noise schedule each was, 0..1
    norm: Tensor  # of the gradient before clipping, a scalar
    warning: str | None = None  # what the person should know of it


def fault_of(reading: StepResult, overflow: bool) -> str | None:
    """What is wrong when a loss or a gradient is not a number any more; None for nothing.

    overflow: whether gradients may be infinite, since fp16's scaler steps over these by itself.
    """
    fine = torch.isfinite(reading.losses)
    if fine.all() and (overflow or torch.isfinite(reading.norm)):
        return None
    bad = [name for name, ok in zip(reading.names, fine.tolist()) if not ok] or reading.names
    names = ", ".join(sorted(set(bad))[:4])
    return f"The loss was not a number any more at step {reading.step}, with {names}."


class TrainStep:
    """Adapters on a base, and how they are adjusted."""

    def __init__(
        self,
        config: RunConfig,
        base: Family,
        distributed: Distributed,
        init: Path | None = None,
        training_adapter: Path | None = None,
    ):
        """init, training_adapter: the run's copies of the adapter that it continues from, and of the one that is merged
        into a distilled base while it trains.
        """
        self.config, self.base, self.distributed = config, base, distributed
        wanted, settings = config.adapter, config.training
        torch.manual_seed(settings.seed)
        with building:
            adapters, self.notes = start_adapters(config, base, init)
            try:
                self.beside, notes = attach_training_adapter(config, base, training_adapter)
            except BaseException:
                for adapter in adapters.values():
                    adapter.detach()
                raise
        self.notes += notes
        self.facts: list[str] = []  # sentences for the run's setup
        self.adapters = {component: adapter.to(base.device).eval() for component, adapter in adapters.items()}
        if settings.weights == "bf16":
            saved = sum(to_bfloat16(adapter) for adapter in adapters.values())
            self.facts.append(f"Weights in bf16, rounded stochastically: {size(saved)} less than in fp32.")
        if config.data.prior_prediction and names_trigger(config.data):
            self.facts.append(f"Prior prediction: {COST}.")
        self.parameters = [p for adapter in adapters.values() for p in adapter.parameters()]
        self.optimizer = make_optimizer(adapters, settings, parsed(wanted.patterns))
        self.average = Average(self.parameters, settings.ema) if settings.ema else None
        half = base.dtype == torch.float16
        self.scaler = torch.amp.GradScaler(base.device.type, enabled=half)
        self.trains_text = wanted.text_encoder
        self.text_stops = False  # whether the text encoder trains no more, at this step
        self.pieces = MicroBatcher()
        base.checkpoint_gradients(settings.gradient_checkpointing)
        if settings.compile:
            base.compile()

    @property
    def strength(self) -> float:
        return next(iter(self.adapters.values())).strength

    @strength.setter
    def strength(self, value: float) -> None:
        for adapter in self.adapters.values():
            adapter.strength = value

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Without the training adapter, as the result is drawn."""
        if self.beside is None:
            yield
            return
        self.beside.strength = 0.0
        try:
            yield
        finally:
            self.beside.strength = 1.0

    def detach(self) -> None:
        """Take all adapters off the base."""
        for adapter in (*self.adapters.values(), *([self.beside] if self.beside else [])):
            adapter.detach()

    def conditions(self, batch: Batch) -> dict[str, Tensor]:
        """What the denoiser is told: from the cache, or by the text encoders as they are now when those train."""
        words = batch.conditions or self._encoded([row.caption for row in batch.rows])
        return words | self.base.size_conditioning([row.framing for row in batch.rows])

    def _encoded(self, captions: list[str]) -> dict[str, Tensor]:
        data = self.config.data
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.text_stops):
            return self.base.encode_prompt(captions, data.clip_skip, data.max_token_length)

    def step(self, step: int, plan: BatchSampler, reader: BatchLoader, slower: float) -> StepResult:
        """Adjust the adapters once. slower: a factor on the learning rate, below 1 after a rollback.

        When memory runs out, the step is begun again in smaller pieces, and so are the steps after it. Raises
        `DoesNotFit` when one image alone is too much; the adapters are then what they were before the step.
        """
        settings, warning = self.config.training, None
        set_learning_rates(self.optimizer, slower * lr_factor(step, settings))
        self.text_stops = 0 < settings.text_encoder_stop < step
        for component, adapter in self.adapters.items():
            adapter.train(not (self.text_stops and component.startswith("text_encoder")))
        while (parts := self._gradients(step, plan, reader)) is None:
            warning = self.pieces.smaller(settings, self.base.device)
        draw = devices.device_generator(self.base.device, settings.seed * 1_000_003 + step)
        with in_float32(self.parameters, draw):
            self.distributed.sum_gradients(self.parameters)
            self.scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self.parameters, settings.clip or float("inf"))
            self.scaler.step(self.optimizer)
            self.scaler.update()
            self.optimizer.zero_grad(set_to_none=True)
        for adapter in self.adapters.values():
            adapter.eval()
        if self.average:
            self.average.take()
        names = [row.example.name for drawn, _ in parts for row in drawn.rows]
        losses = torch.cat([self.distributed.gather(losses) for _, losses in parts])
        return StepResult(step, names, losses, torch.cat([drawn.shares for drawn, _ in parts]), norm, warning)

    def _gradients(self, step: int, plan: BatchSampler, reader: BatchLoader) -> list[tuple[NoisedBatch, Tensor]] | None:
        """Each batch of the step with this process's losses, their gradients summed; None when memory ran out."""
        settings, parts = self.config.training, []
        # Summed over batches and processes, this is the mean over all images of the step.
        share_of_step = settings.batch_size * settings.accumulation
        try:
            for part in range(settings.accumulation):
                drawn = self._draw((step - 1) * settings.accumulation + part, plan)
                found = []
                for rows in self.pieces.of(drawn.mine):
                    total: Tensor | float = 0.0
                    for losses in self._losses(drawn, rows, reader):  # one after the other: no more memory than for one
                        torch.autograd.backward(self.scaler.scale(losses.sum() / share_of_step))
                        total = total + losses.detach()
                    assert isinstance(total, Tensor)
                    found.append(total)
                parts.append((drawn, torch.cat(found)))
            return parts
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
        self.optimizer.zero_grad(set_to_none=True)  # behind the except: its frames hold what is to be freed
        return None

    def _draw(self, number: int, plan: BatchSampler) -> NoisedBatch:
        """All that is random in a batch.

        Every random number comes from a generator seeded with the batch's number, on the CPU and for the whole batch:
        the same on any device, on any number of processes and in pieces of any size, and a resumed run needs no
        generator's state.
        """
        settings, base = self.config.training, self.base
        draw = torch.Generator().manual_seed(settings.seed * 1_000_003 + number)
        torch.manual_seed(settings.seed * 1_000_003 + number)  # the adapter's dropout
        rows = plan.rows(number)
        width, height = rows[0].example.frame.size
        shape = (len(rows), *base.latent_shape(width, height))
        shares = timesteps(stratified(len(rows), draw), settings, base.usual_timesteps)
        noise, fresh = torch.randn(shape, generator=draw), torch.randn(shape, generator=draw)
        extra = torch.randn(shape, generator=draw) * settings.input_perturbation
        if settings.noise_offset:
            noise = offset_noise(noise, settings.noise_offset, draw)
        if settings.pyramid_noise:
            noise = pyramid_noise(noise, settings.pyramid_noise, settings.pyramid_discount, draw)
        perturbation = extra if settings.input_perturbation else None
        return NoisedBatch(rows, self.distributed.share(rows), shares, noise, fresh, perturbation, number)

    def _noised(self, drawn: NoisedBatch, rows: slice, reader: BatchLoader) -> NoisedRows:
        """The rows on the device, with their noise."""
        settings, base = self.config.training, self.base

        def here(x: Tensor) -> Tensor:
            return x[rows].to(base.device, non_blocking=True)

        batch = reader.read(drawn.rows[rows])
        size = drawn.rows[0].example.frame.size
        shift = base.shift_at(*size) if settings.shift_by_resolution else settings.shift
        t = here(base.times(drawn.shares, shift))
        perturbation = None if drawn.perturbation is None else here(drawn.perturbation)
        return NoisedRows(batch, batch.mean + batch.spread * here(drawn.fresh), here(drawn.noise), t, perturbation)

    def _losses(self, drawn: NoisedBatch, rows: slice, reader: BatchLoader) -> Iterator[Tensor]:
        """(the rows',) losses, each with gradients: the training loss, then that of prior prediction."""
        noised = self._noised(drawn, rows, reader)
        batch = noised.batch
        yield self._loss(batch, noised.latents, noised.noise, noised.t, noised.perturbation, drawn, rows)
        places = [place for place, row in enumerate(batch.rows) if row.prior is not None]
        if places:
            yield spread_over(self._prior_losses(noised, places, reader), places, len(batch.rows))

    def _loss(
        self,
        batch: Batch,
        latents: Tensor,
        noise: Tensor,
        t: Tensor,
        perturbation: Tensor | None,
        drawn: NoisedBatch,
        rows: slice,
    ) -> Tensor:
        """(B,) losses of the rows of `drawn`, with gradients. perturbation: as in `loss_of`."""
        settings, words = self.config.training, self.conditions(batch)
        return loss_of(self.base, latents, words, noise, t, batch.weight, settings, perturbation)

    def _prior_losses(self, noised: NoisedRows, places: list[int], reader: BatchLoader) -> Tensor:
        """(the places',) losses against the base's own prediction, see `prior_prediction`."""
        rows = [noised.batch.rows[place] for place in places]
        captions = [row.prior for row in rows if row.prior is not None]
        seen = noised.noise if noised.perturbation is None else noised.noise + noised.perturbation
        noisy = self.base.add_noise(noised.latents, seen, noised.t)[places]
        t, sizes = noised.t[places], self.base.size_conditioning([row.framing for row in rows])

        def conditions() -> dict[str, Tensor]:
            return (self._encoded(captions) if self.trains_text else reader.words(rows, captions)) | sizes

        strength, self.strength = self.strength, 0.0
        try:
            with torch.no_grad():
                prediction = self.base.predict(noisy, t, conditions())
        finally:
            self.strength = strength
        return prior_loss(self.base, noisy, t, conditions(), prediction, self.config.data.prior_prediction)

    @contextmanager
    def evaluation_weights(self) -> Iterator[None]:
        """The weights that would be saved now: averaged where the run averages. Training ones come back unchanged."""
        evaluate = getattr(self.optimizer, "eval", None)  # schedule-free optimizers keep two sets
        if not (self.average or evaluate):
            yield
            return
        kept = [p.detach().clone() for p in self.parameters]
        modes = [group.get("train_mode") for group in self.optimizer.param_groups]
        mode_of_all = getattr(self.optimizer, "train_mode", None)
        if self.average:
            self.put(self.average.values)
        elif evaluate:
            evaluate()
        try:
            yield
        finally:
            self.put(kept)
            if mode_of_all is not None:
                self.optimizer.train_mode = mode_of_all  # type: ignore[attr-defined]
            for group, mode in zip(self.optimizer.param_groups, modes):
                if mode is not None:
                    group["train_mode"] = mode

    @torch.no_grad()
    def put(self, values: list[Tensor]) -> None:
        """Write these numbers into the adapters' parameters."""
        for parameter, value in zip(self.parameters, values):
            parameter.copy_(value)

    def values(self) -> list[Tensor]:
        """A copy of the adapters' parameters, on the CPU."""
        return [p.detach().cpu().clone() for p in self.parameters]

    def save(self, path: Path, metadata: dict[str, str] | None = None) -> None:
        """Write the adapters as one file. Raises OSError."""
        updates = {(c, key): u for c, adapter in self.adapters.items() for (_, key), u in adapter.updates.items()}
        atomic_write(path, adapter_bytes(path.stem, updates, metadata=metadata))

    def summary(self) -> str:
        return ", ".join(f"{component}: {adapter.summary()}" for component, adapter in self.adapters.items())

    def state(self) -> dict[str, Any]:
        """By reference; `checkpoints.pack` makes it lasting."""
        return {
            "adapters": {component: adapter.state_dict() for component, adapter in self.adapters.items()},
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state() if self.average else None,
            "scaler": self.scaler.state_dict(),
            "pieces": self.pieces.size,
        }

    def restore(self, state: dict[str, Any]) -> None:
        for component, adapter in self.adapters.items():
            adapter.load_state_dict(state["adapters"][component])
        with in_float32(self.parameters):  # an optimizer brings its state to the precision of the weights
            self.optimizer.load_state_dict(state["optimizer"])
        if self.average and state["average"]:
            self.average.restore(state["average"])
        self.scaler.load_state_dict(state["scaler"])
        self.pieces.size = state.get("pieces")
