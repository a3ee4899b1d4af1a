"""Honest loss: held-out images at the same noise and timesteps every time, beside the base model's own figure."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from studio.basemodels import Family
from studio.training.cache import key_of
from studio.training.distributed import Distributed
from studio.training.events import Validation
from studio.training.examples import Batch, BatchLoader, Example, Row
from studio.training.objective import loss_of
from studio.training.verdict import BANDS, describe, judge

TOGETHER = 8  # images a forward pass
EARLIER = (1, 75)  # how runs of before 0.2 read captions: clip skip, most tokens


class Validator:
    """Measures an adapter on images that it never learns from; remembers the base's figure and the best one."""

    def __init__(
        self,
        examples: list[Example],
        base: Family,
        reader: BatchLoader,
        distributed: Distributed,
        conditions: Callable[[Batch], dict[str, Tensor]],
        base_hash: str = "",
    ):
        """base_hash: names the base's weights by their content."""
        self.examples = sorted(examples, key=lambda e: e.frame.size)
        # What the losses are of: those of another key are never compared with them.
        read = (reader.data.clip_skip, reader.data.max_token_length) if base.reads_on else EARLIER
        self.key = key_of(
            base_hash,
            reader.data.outside if reader.data.masks else None,
            *([] if read == EARLIER else [read]),
            [(e.name, e.digest, e.frame.size, e.frame.scaled, e.mask, e.captions[0]) for e in self.examples],
        )[:16]
        self.base, self.reader, self.distributed, self.conditions = base, reader, distributed, conditions
        # Several draws an image, more where there are few images, as many in each quarter of the schedule.
        self.draws = BANDS * math.ceil(max(8, 32 / max(1, len(examples))) / BANDS)
        self.base_rows: Tensor | None = None
        self.best_rows: Tensor | None = None
        self.last_rows: Tensor | None = None
        self.history: list[tuple[int, float]] = []  # step, loss
        self.verdicts: list[str] = []  # a verdict for each of them

    @torch.no_grad()
    def measure(self) -> Tensor:
        """(images, draws) losses, CPU, of the base model as it is now, with what hangs on it."""
        at = [((d + 0.5) / self.draws) for d in range(self.draws)]
        cells = [(e, d) for e in range(len(self.examples)) for d in range(self.draws)]
        mine = cells[self.distributed.rank :: self.distributed.count]
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
        return self.distributed.gather(found.to(self.base.device)[None]).sum(0).cpu()

    def validate(self, step: int) -> Validation:
        """Measure the adapter and say how it does. The base must have been measured into `base_rows` before."""
        assert self.base_rows is not None
        rows = self.last_rows = self.measure()
        loss, base_loss = rows.mean().item(), self.base_rows.mean().item()
        if self.best_rows is None or loss < self.best_rows.mean().item():
            self.best_rows = rows
        self.history.append((step, loss))
        word = judge(self.history, rows, self.best_rows, self.base_rows)
        self.verdicts.append(word)
        spread = (rows - self.base_rows).std().item() / math.sqrt(rows.numel())
        return Validation(step, loss, base_loss, spread, _bands(rows), _bands(self.base_rows), word, self.key)

    def describe(self) -> str:
        """Where in the noise schedule it got better, and where worse again."""
        if self.last_rows is None or self.best_rows is None or self.base_rows is None:
            return ""
        return describe(self.last_rows, self.best_rows, self.base_rows)

    def state(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "best": self.best_rows,
            "last": self.last_rows,
            "history": self.history,
            "verdicts": self.verdicts,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        """Go on from `state()`. False, and nothing of it is taken, where it was measured on other images."""
        if state.get("key") != self.key:
            return False
        self.best_rows, self.last_rows, self.verdicts = state["best"], state["last"], list(state["verdicts"])
        self.history = [tuple(row) for row in state["history"]]
        return True


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
