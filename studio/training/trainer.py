"""Config in, events out.

Every step draws its pictures, noise and timesteps from a generator seeded with (seed, step), so that a run that goes
on from a checkpoint needs no sampler or RNG state to be the run that never stopped.
"""

import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from studio.adapters import Adapter, AdapterSpec, attach, read_adapter, write_adapter
from studio.basemodels import StableDiffusion, load_base
from studio.errors import RunError, StudioError
from studio.generation import Recipe, draw, save_picture
from studio.training import checkpoints, runs
from studio.training.config import RunConfig
from studio.training.events import (
    Checkpoint,
    Event,
    Failed,
    Finished,
    Preview,
    Started,
    Step,
    Stopped,
    Validation,
    Warned,
)  # fmt: skip
from studio.training.examples import Examples, encode
from studio.training.metadata import adapter_metadata
from studio.training.objective import held_out_loss, loss_of, rate_at
from studio.training.selection import split
from studio.workspace import Workspace

log = logging.getLogger(__name__)


def train(
    config: RunConfig, workspace: Workspace, stop: threading.Event | None = None, folder: Path | None = None
) -> Iterator[Event]:
    """Run to the end, yielding each event after it stands in the run folder.

    stop    finishes the step, writes a checkpoint and ends with Stopped
    folder  the run folder to go on with: from its last checkpoint, or from the start where it has none.
            Without it, `runs.new_run` makes one

    Raises StudioError for what a person can mend; the folder's last event is then Failed.
    """
    folder = Path(folder) if folder else runs.new_run(config, workspace)
    trace = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    log.addHandler(trace)
    step = 0
    try:
        for event in _events(config, folder, stop or threading.Event()):
            runs.append(folder, event)
            step = event.step
            yield event
    except Exception as error:
        if not isinstance(error, StudioError):
            log.exception("step %d", step)
        event = Failed(step, str(error).splitlines()[0] if str(error) else type(error).__name__)
        runs.append(folder, event)
        yield event
        raise
    finally:
        log.removeHandler(trace)
        trace.close()


def _events(config: RunConfig, folder: Path, stop: threading.Event) -> Iterator[Event]:
    config = config.model_copy(update={"name": folder.name})
    settings = config.training
    items, held_items, warnings = split(config)
    base = load_base(config.base, shared=False)
    examples = encode(items, base, config.data.trigger, config.data.flip)
    held = encode(held_items, base, config.data.trigger) if held_items else None

    torch.manual_seed(settings.seed)
    spec = AdapterSpec(config.adapter.rank, config.adapter.alpha, config.adapter.kind, config.adapter.targets,
                       config.adapter.dropout)  # fmt: skip
    adapter = attach(base.modules()["unet"], spec).to(base.device)
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    first, smoothed, best = 1, None, _Best()
    state = checkpoints.newest(folder)
    if state:
        adapter.load_state_dict(state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        first, smoothed = state["step"] + 1, state["smoothed"]
        best.restore(folder, state.get("best"))
    yield Started(first - 1, settings.steps, *runs.here(), adapter.summary())
    for message in warnings:
        yield Warned(first - 1, message)

    base_loss = 0.0
    if held:
        adapter.strength = 0
        base_loss = held_out_loss(base, held)
        adapter.strength = 1
    if first == 1:
        if held:
            yield Validation(0, base_loss, base_loss)
        yield from _previews(0, base, adapter, config, folder)

    began, step = time.monotonic(), first - 1
    for step in range(first, settings.steps + 1):
        rate = rate_at(step, settings.steps, settings.learning_rate, settings.warmup, settings.schedule)
        loss = _step(step, base, adapter, optimizer, examples, config, rate)
        if not loss == loss or loss in (float("inf"), float("-inf")):
            raise RunError(
                f"The loss is not a number any more at step {step}: lower the learning rate and start again."
                + _rescue(folder, best, config, items, base.resolution, base_loss)
            )
        smoothed = loss if smoothed is None else 0.95 * smoothed + 0.05 * loss
        speed = (step - first + 1) / (time.monotonic() - began)
        yield Step(step, loss, smoothed, rate, speed, (settings.steps - step) / speed)

        last = step == settings.steps
        if held and (last or _due(step, config.validation.every)):
            loss = held_out_loss(base, held)
            best.see(step, loss, adapter)
            yield Validation(step, loss, base_loss)
        if last or _due(step, config.preview.every):
            yield from _previews(step, base, adapter, config, folder)
        if last or stop.is_set() or _due(step, settings.checkpoint_every):
            path = checkpoints.save(folder, step, adapter, optimizer, {"smoothed": smoothed, "best": best.kept(folder)})
            yield Checkpoint(step, path.relative_to(folder).as_posix())
        if stop.is_set() and not last:
            _save_result(folder, adapter.updates, adapter_metadata(config, items, base.resolution, step, None))
            yield Stopped(step, f"Stopped at step {step}; it can go on from there.")
            return

    kept = best.step if best.updates else step
    losses = (best.loss, base_loss) if best.updates else None
    metadata = adapter_metadata(config, items, base.resolution, kept, losses)
    _save_result(folder, best.updates or adapter.updates, metadata)
    yield Finished(step, kept, _verdict(kept, step, best.loss if best.updates else None, base_loss))


def _step(
    step: int, base: StableDiffusion, adapter: Adapter, optimizer: torch.optim.Optimizer, examples: Examples,
    config: RunConfig, rate: float,
) -> float:  # fmt: skip
    """One adjustment of the adapter; returns the loss before it."""
    settings = config.training
    draw_of_step = torch.Generator().manual_seed(settings.seed * 1_000_003 + step)
    torch.manual_seed(settings.seed * 1_000_003 + step)  # the adapter's dropout
    pick = _pictures(step, len(examples), settings.batch_size, settings.seed)
    latents, states = examples.latents[pick], examples.states[pick].clone()
    silent = torch.rand(len(pick), generator=draw_of_step) < config.data.caption_dropout
    states[silent.to(states.device)] = examples.empty
    noise = torch.randn(latents.shape, generator=draw_of_step).to(base.device)
    # Stratified timesteps: each step sees the whole schedule, and its loss jumps less.
    spread = torch.rand(len(pick), generator=draw_of_step)
    t = ((torch.arange(len(pick)) + spread) * base.timesteps / len(pick)).long().to(base.device)

    for group in optimizer.param_groups:
        group["lr"] = rate
    adapter.train()
    loss = loss_of(base, latents, states, noise, t, settings.min_snr_gamma).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(adapter.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    adapter.eval()
    return loss.item()


def _pictures(step: int, count: int, batch: int, seed: int) -> list[int]:
    """The pictures of step 1, 2, …: one endless row of shuffled rounds, so that all are seen equally often."""
    out = []
    for place in range((step - 1) * batch, step * batch):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed * 7919 + place // count))
        out.append(int(order[place % count]))
    return out


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _previews(step: int, base: StableDiffusion, adapter: Adapter, config: RunConfig, folder: Path) -> Iterator[Preview]:
    if not config.preview.every:
        return
    side, wanted = base.resolution, config.preview
    for number, prompt in enumerate(prompt for prompt in wanted.prompts if prompt.strip()):
        recipe = Recipe(
            prompt=prompt, seed=wanted.seed, steps=wanted.steps, guidance=wanted.guidance, width=side, height=side,
            base=config.base, adapters=((folder / "adapter.safetensors", adapter.strength),),
        )  # fmt: skip
        file = save_picture(draw(base, recipe), recipe, folder / "previews", f"{step:06d}-{number}.png")
        yield Preview(step, prompt, file.relative_to(folder).as_posix())


class _Best:
    """The weights with the lowest held-out loss so far; kept on disk beside the checkpoints, so that resuming knows."""

    def __init__(self):
        self.step, self.loss, self.updates = 0, float("inf"), None
        self._written = 0

    def see(self, step: int, loss: float, adapter: Adapter) -> None:
        if loss < self.loss:
            self.step, self.loss, self.updates = step, loss, adapter.updates

    def kept(self, folder: Path) -> dict | None:
        """Write the weights if they are new; what a checkpoint remembers of them."""
        if not self.updates:
            return None
        if self._written != self.step:
            write_adapter(folder / "checkpoints" / "best.safetensors", _named(self.updates))
            self._written = self.step
        return {"step": self.step, "loss": self.loss}

    def restore(self, folder: Path, kept: dict | None) -> None:
        file = folder / "checkpoints" / "best.safetensors"
        if kept and file.is_file():
            self.step, self.loss = kept["step"], kept["loss"]
            self.updates, self._written = dict(read_adapter(file).layers), self.step


def _rescue(folder: Path, best: _Best, config: RunConfig, items: list, resolution: int, base_loss: float) -> str:
    """Keep what a run that went wrong had learned best, and say so."""
    if not best.updates:
        return ""
    _save_result(folder, best.updates, adapter_metadata(config, items, resolution, best.step, (best.loss, base_loss)))
    return f" adapter.safetensors holds its best, from step {best.step}."


def _named(updates: dict) -> dict:
    return {(component or "unet", path): value for (component, path), value in updates.items()}


def _save_result(folder: Path, updates: dict, metadata: dict[str, str]) -> None:
    write_adapter(folder / "adapter.safetensors", _named(updates), metadata=metadata)


def _verdict(kept: int, step: int, loss: float | None, base_loss: float) -> str:
    if loss is None:
        return f"Finished. adapter.safetensors holds step {kept}."
    change = 100 * (loss / base_loss - 1)
    best = f"the best of the run, at step {kept}" if kept != step else "the last step, which was the best"
    return f"Finished. Held-out loss {change:+.0f} % against the base; adapter.safetensors holds {best}."
