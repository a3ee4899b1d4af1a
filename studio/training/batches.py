"""Which pictures each batch shows: a pure function of its number, so that a resumed run needs no sampler's state.

Every picture is seen equally often whatever bucket it is in: a bucket's turn comes as often as it has pictures, and
each bucket goes through its own endless row of shuffled rounds.
"""

import random
from collections import defaultdict
from functools import lru_cache

from studio.training.config import DataConfig
from studio.training.examples import Example, Row


class Plan:
    """The batches of a run. The same examples and seed give the same plan."""

    def __init__(self, examples: list[Example], batch: int, seed: int, data: DataConfig):
        self.batch, self.seed, self.data = batch, seed, data
        self.buckets: dict[tuple[int, int], list[Example]] = defaultdict(list)
        for example in examples:
            self.buckets[example.frame.size] += [example] * example.repeats
        self.shown = sum(map(len, self.buckets.values()))  # pictures of one round, repeats counted
        self._turns = lru_cache(2)(self._turns_of)
        self._round = lru_cache(2 * len(self.buckets) + 2)(self._round_of)

    def rows(self, number: int) -> list[Row]:
        """Batch 0, 1, 2, …: examples of one bucket, each with its mirroring and its words drawn."""
        cycle, place = divmod(number, self.shown)
        size, earlier = self._turns(cycle)[place]
        start = (cycle * len(self.buckets[size]) + earlier) * self.batch
        draw = random.Random(f"{self.seed} words {number}")
        return [self._drawn(self._at(size, start + i), draw) for i in range(self.batch)]

    def _drawn(self, example: Example, draw: random.Random) -> Row:
        mirrored = draw.random() < 0.5 if len(example.latents) > 1 else False
        order, silent = draw.randrange(len(example.captions)), draw.random() < self.data.caption_dropout
        return Row(example, mirrored, "" if silent else example.captions[order])

    def _turns_of(self, cycle: int) -> list[tuple[tuple[int, int], int]]:
        """(bucket, its turns before in this cycle) of each batch; a bucket has as many turns as pictures."""
        turns = [size for size in sorted(self.buckets) for _ in self.buckets[size]]
        random.Random(f"{self.seed} buckets {cycle}").shuffle(turns)
        seen: dict[tuple[int, int], int] = defaultdict(int)
        out = []
        for size in turns:
            out.append((size, seen[size]))
            seen[size] += 1
        return out

    def _at(self, size: tuple[int, int], place: int) -> Example:
        examples = self.buckets[size]
        return examples[self._round(size, place // len(examples))[place % len(examples)]]

    def _round_of(self, size: tuple[int, int], number: int) -> list[int]:
        order = list(range(len(self.buckets[size])))
        random.Random(f"{self.seed} {size} {number}").shuffle(order)
        return order
