"""Honest loss: held-out pictures at the same noise and timesteps every time, beside the base model's own figure."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.training.events import Validation
from studio.training.examples import Batch, Example, Reader, Row
from studio.training.objective import loss_of
from studio.training.processes import Processes
from studio.training.verdict import BANDS, in_words, judge

TOGETHER = 8  # pictures a forward pass


class HeldOut:
    """Measures an adapter on pictures that it never learns from; remembers the base's figure and the best one."""

    def __init__(
        self, examples: list[Example], base: Family, reader: Reader, processes: Processes,
        conditions: Callable[[Batch], dict[str, Tensor]],
    ):  # fmt: skip
        self.examples = sorted(examples, key=lambda e: e.frame.size)
        self.base, self.reader, self.processes, self.conditions = base, reader, processes, conditions
        # Several draws a picture, more where there are few pictures, as many in each quarter of the schedule.
        self.draws = BANDS * math.ceil(max(8, 32 / max(1, len(examples))) / BANDS)
        self.base_rows: Tensor | None = None
        self.best_rows: Tensor | None = None
        self.last_rows: Tensor | None = None
        self.history: list[tuple[int, float]] = []  # step, loss
        self.words: list[str] = []  # a verdict for each of them

    @torch.no_grad()
    def measure(self) -> Tensor:
        """(pictures, draws) losses, CPU, of the base model as it is now, with what hangs on it."""
        at = [((d + 0.5) / self.draws) for d in range(self.draws)]
        cells = [(e, d) for e in range(len(self.examples)) for d in range(self.draws)]
        mine = cells[self.processes.rank :: self.processes.count]
        found = torch.zeros(len(self.examples), self.draws)
        for part in _of_one_size(mine, self.examples):
            rows = [Row(self.examples[e], False, self.examples[e].captions[0]) for e, _ in part]
            batch = self.reader.read(rows)
            draws = [torch.Generator().manual_seed(1000 + d * 4099 + e) for e, d in part]
            fresh = torch.stack([torch.randn(batch.mean.shape[1:], generator=g) for g in draws]).to(batch.mean)
            noise = torch.stack([torch.randn(batch.mean.shape[1:], generator=g) for g in draws]).to(batch.mean)
            t = self.base.times(torch.tensor([at[d] for _, d in part])).to(batch.mean.device)
            losses = loss_of(
                self.base, batch.mean + batch.spread * fresh, self.conditions(batch), noise, t, batch.weight
            )
            for (e, d), loss in zip(part, losses.cpu()):
                found[e, d] = loss
        return self.processes.gather(found.to(self.base.device)[None]).sum(0).cpu()

    def look(self, step: int) -> Validation:
        """Measure the adapter and say how it does. The base must have been measured into `base_rows` before."""
        assert self.base_rows is not None
        rows = self.last_rows = self.measure()
        loss, base_loss = rows.mean().item(), self.base_rows.mean().item()
        if self.best_rows is None or loss < self.best_rows.mean().item():
            self.best_rows = rows
        self.history.append((step, loss))
        word = judge(self.history, rows, self.best_rows, self.base_rows)
        self.words.append(word)
        spread = (rows - self.base_rows).std().item() / math.sqrt(rows.numel())
        return Validation(step, loss, base_loss, spread, _bands(rows), _bands(self.base_rows), word)

    def in_words(self) -> str:
        """Where in the noise schedule it got better, and where worse again."""
        if self.last_rows is None or self.best_rows is None or self.base_rows is None:
            return ""
        return in_words(self.last_rows, self.best_rows, self.base_rows)

    def state(self) -> dict:
        return {"best": self.best_rows, "last": self.last_rows, "history": self.history, "words": self.words}

    def restore(self, state: dict) -> None:
        self.best_rows, self.last_rows, self.words = state["best"], state["last"], list(state["words"])
        self.history = [tuple(row) for row in state["history"]]


def _bands(rows: Tensor) -> list[float]:
    """Mean loss in each quarter of the noise schedule, least noise first."""
    return [round(part.mean().item(), 6) for part in rows.chunk(BANDS, dim=1)]


def _of_one_size(cells: list[tuple[int, int]], examples: list[Example]) -> list[list[tuple[int, int]]]:
    parts: list[list[tuple[int, int]]] = []
    for e, d in cells:
        size = examples[e].frame.size
        if not parts or len(parts[-1]) == TOGETHER or examples[parts[-1][0][0]].frame.size != size:
            parts.append([])
        parts[-1].append((e, d))
    return parts
