"""Which images each batch shows: a pure function of its number, so that a resumed run needs no sampler's state.

Every image is seen equally often whatever bucket it is in: a bucket's turn comes as often as it has images, and each
bucket goes through its own endless row of shuffled rounds. Regularization images are seen as often as the others, all
together, however many there are (DreamBooth, arXiv:2208.12242, trains on one of each in every step). An image that is
trained in several sizes is seen as often as the others, in each size equally; a folder with a weight has its share.
"""

import random
from collections import defaultdict
from functools import lru_cache

from studio.training.config_sections import DataConfig
from studio.training.examples import Example, Row
from studio.training.length import balance
from studio.training.shares import places_of

Size = tuple[int, int]


class BatchSampler:
    """The batches of a run. The same examples and seed give the same plan."""

    def __init__(self, examples: list[Example], batch: int, seed: int, data: DataConfig):
        self.batch, self.seed, self.data = batch, seed, data
        self.own: dict[Size, list[Example]] = defaultdict(list)
        self.regularization: dict[Size, list[Example]] = defaultdict(list)
        self.images = [0.0, 0.0]  # own and regularization images, each with its repeats
        self.in_bucket: dict[Size, int] = defaultdict(int)  # the same of a bucket, in each size that an image has
        for kind, some in ((self.own, False), (self.regularization, True)):
            few = [example for example in examples if example.regularization is some]
            for example, places in zip(few, _places(few)):
                kind[example.frame.size] += [example] * places
                self.in_bucket[example.frame.size] += example.repeats
                self.images[some] += example.repeats / example.sizes
        own_count, other_count = self._count(self.own), self._count(self.regularization)
        own_turns, other_turns = balance(own_count, other_count)
        self.places = {  # of each bucket in a cycle: for the own images, for regularization images
            size: (own_turns * len(self.own[size]), other_turns * len(self.regularization[size]))
            for size in sorted({*self.own, *self.regularization})
        }
        self.cycle = sum(own + other for own, other in self.places.values())  # batches until all begins again
        self._turns = lru_cache(2)(self._turns_of)
        self._round = lru_cache(4 * len(self.places) + 2)(self._round_of)

    def rows(self, number: int) -> list[Row]:
        """Batch 0, 1, 2, …: examples of one bucket, each with its mirroring and its words drawn."""
        cycle, place = divmod(number, self.cycle)
        size, earlier = self._turns(cycle)[place]
        start = (cycle * sum(self.places[size]) + earlier) * self.batch
        draw = random.Random(f"{self.seed} words {number}")
        return [self._drawn(self._at(size, start + i), draw) for i in range(self.batch)]

    def times_seen(self, images: int) -> tuple[float, float]:
        """How often an own image and a regularization image are shown when `images` are shown in all; 0 for none.

        On average, where folders have weights or images repeats.
        """
        own_places = sum(own for own, _ in self.places.values())
        own, other = own_places / self.cycle, 1 - own_places / self.cycle
        own_count, other_count = self.images
        return images * own / own_count if own_count else 0.0, images * other / other_count if other_count else 0.0

    def shares(self) -> dict[str, float]:
        """{folder's label: its share of the own images that are shown}."""
        found: dict[str, float] = defaultdict(float)
        whole = self._count(self.own)
        for examples in self.own.values():
            for example in examples:
                found[example.folder] += 1 / whole
        return dict(found)

    def _drawn(self, example: Example, draw: random.Random) -> Row:
        mirrored = draw.random() < 0.5 if example.flips > 1 else False
        order, silent = draw.randrange(len(example.captions)), draw.random() < self.data.caption_dropout
        variant = draw.randrange(len(example.variants)) if len(example.variants) > 1 else 0
        return Row(example, mirrored, "" if silent else example.captions[order], variant)

    def _turns_of(self, cycle: int) -> list[tuple[Size, int]]:
        """(bucket, its turns before in this cycle) of each batch; a bucket has as many turns as places."""
        turns = [size for size in self.places for _ in range(sum(self.places[size]))]
        random.Random(f"{self.seed} buckets {cycle}").shuffle(turns)
        seen: dict[Size, int] = defaultdict(int)
        out = []
        for size in turns:
            out.append((size, seen[size]))
            seen[size] += 1
        return out

    def _at(self, size: Size, place: int) -> Example:
        """The bucket's image at a place of its endless row, in which both kinds are spread evenly."""
        own, other = self.places[size]
        before = place * own // (own + other)  # own images in front of this place
        if (place + 1) * own // (own + other) > before:
            examples, place, kind = self.own[size], before, ""
        else:
            examples, place, kind = self.regularization[size], place - before, "regularization "
        return examples[self._round(f"{kind}{size}", len(examples), place // len(examples))[place % len(examples)]]

    def _round_of(self, name: str, count: int, number: int) -> list[int]:
        order = list(range(count))
        random.Random(f"{self.seed} {name} {number}").shuffle(order)
        return order

    @staticmethod
    def _count(buckets: dict[Size, list[Example]]) -> int:
        return sum(map(len, buckets.values()))


def _places(examples: list[Example]) -> list[int]:
    return places_of(
        [e.repeats for e in examples],
        [e.sizes for e in examples],
        [e.folder for e in examples],
        [e.folder_weight for e in examples],
    )
