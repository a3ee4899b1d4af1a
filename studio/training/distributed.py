"""One run on several processes, as `accelerate launch` or torchrun start them; alone, every verb here does nothing.

The adapter is small, so its gradients travel as one vector and the model needs no wrapping. All processes make the same
draws for the whole batch and each takes its own rows: the same run, whatever their number.
"""

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from torch import Tensor, distributed

from studio import devices
from studio.errors import RunError

Value = TypeVar("Value")  # any plain Python value
PATIENCE = timedelta(hours=6)  # others wait while the first draws previews or encodes its share of the images


class Distributed:
    """rank of count; `first` writes, draws and speaks."""

    def __init__(self) -> None:
        self.count, self.rank = 1, 0
        self.device: torch.device | None = None  # the base model chooses
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            state = PartialState(cpu=devices.accelerator() is None, timeout=PATIENCE)
            self.count, self.rank, self.device = state.num_processes, state.process_index, state.device

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, rows: Sequence[object]) -> slice:
        """This process's rows of a batch. Raises RunError when they can't be dealt out evenly."""
        if len(rows) % self.count:
            raise RunError(
                f"training.batch_size must be a multiple of the {self.count} processes (you gave {len(rows)})."
            )
        size = len(rows) // self.count
        return slice(self.rank * size, (self.rank + 1) * size)

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Add up every process's gradients, in one message."""
        if self.count == 1:
            return
        grads = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([g.flatten() for g in grads])
        distributed.all_reduce(flat)
        for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads])):
            grad.copy_(part.view_as(grad))

    def gather(self, rows: Tensor) -> Tensor:
        """(n, …) of each process to (count · n, …), in the order of their ranks; all have the same n."""
        if self.count == 1:
            return rows
        parts = [torch.empty_like(rows) for _ in range(self.count)]
        distributed.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    def gather_objects(self, value: Value) -> list[Value]:
        """Every process's value, a plain Python one, in the order of their ranks."""
        if self.count == 1:
            return [value]
        held: list[Any] = [None] * self.count
        distributed.all_gather_object(held, value)
        return held

    def broadcast(self, value: Value) -> Value:
        """The first process's value, on all of them. Any plain Python value."""
        if self.count == 1:
            return value
        held = [value]
        distributed.broadcast_object_list(held, device=self.device)
        return held[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            distributed.barrier()
