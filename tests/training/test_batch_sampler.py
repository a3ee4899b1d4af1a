"""Which images are shown: all equally often, whatever their bucket, in an order that a number alone decides."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from studio.datasets import Frame, Item
from studio.training.batch_sampler import BatchSampler
from studio.training.caption_variants import orders_of
from studio.training.config_sections import DataConfig
from studio.training.examples import Example

DATA = DataConfig(folder="x", caption_dropout=0.0)


def example(name: str, size=(128, 128), repeats=1, latents=("k",)) -> Example:
    return Example(name, Item(Path(name), "a"), Frame(size, size, 0, 0), latents, ("a",), "a", repeats)


def test_images_of_small_and_large_buckets_are_seen_equally_often():
    examples = [example(f"wide{i}", (160, 96)) for i in range(3)] + [example("lonely", (96, 160))]
    examples += [example(f"square{i}") for i in range(12)]
    plan = BatchSampler(examples, 4, 0, DATA)
    seen = Counter(row.example.name for number in range(16 * 8) for row in plan.rows(number))
    assert set(seen.values()) == {32} and len(seen) == 16


def test_a_batch_has_one_size():
    plan = BatchSampler([example(f"p{i}", (128, 128) if i % 3 else (160, 96)) for i in range(10)], 3, 0, DATA)
    assert all(len({row.example.frame.size for row in plan.rows(number)}) == 1 for number in range(50))


def test_a_batch_depends_on_its_number_alone():
    examples = [example(f"p{i}", (128, 128) if i % 3 else (160, 96), latents=("a", "b")) for i in range(10)]
    forwards = [BatchSampler(examples, 3, 7, DATA).rows(number) for number in range(60)]
    plan = BatchSampler(examples, 3, 7, DATA)
    assert [plan.rows(number) for number in reversed(range(60))] == forwards[::-1]
    assert [BatchSampler(examples, 3, 8, DATA).rows(number) for number in range(60)] != forwards


def test_repeats_count_as_often_as_they_say():
    plan = BatchSampler([example("often", repeats=3), example("once")], 2, 0, DATA)
    seen = Counter(row.example.name for number in range(40) for row in plan.rows(number))
    assert seen["often"] == 3 * seen["once"]


def test_captions_drop_out_and_images_are_mirrored_as_often_as_asked():
    data = DataConfig(folder="x", caption_dropout=0.25)
    plan = BatchSampler([example(f"p{i}", latents=("a", "b")) for i in range(8)], 4, 0, data)
    rows = [row for number in range(500) for row in plan.rows(number)]
    assert abs(sum(row.caption == "" for row in rows) / len(rows) - 0.25) < 0.03
    assert abs(sum(row.mirrored for row in rows) / len(rows) - 0.5) < 0.03


def test_shuffled_tags_keep_the_first_ones_and_lose_none():
    orders = orders_of("zsk, a cat, red, on grass, sunny", 2, 0, 8)
    assert len(orders) > 3
    for caption in orders:
        assert caption.startswith("zsk, a cat, ")
        assert sorted(caption.split(", ")) == sorted(["zsk", "a cat", "red", "on grass", "sunny"])
    assert orders_of("one sentence without tags", 1, 0, 8) == ["one sentence without tags"]


@pytest.mark.parametrize(("own", "others"), [(8, 80), (6, 80), (80, 8), (6, 8), (24, 1000), (1, 1), (7, 7)])
def test_as_many_regularization_images_are_shown_as_own_ones(own, others):
    """One of each in every step, as DreamBooth has it (arXiv:2208.12242, sec. 3.2), whatever their numbers."""
    examples = [example(f"own{i}", (128, 128) if i % 2 else (160, 96)) for i in range(own)]
    examples += [replace(example(f"other{i}"), regularization=True) for i in range(others)]
    plan = BatchSampler(examples, 2, 0, DATA)
    seen = Counter(row.example.name for number in range(plan.cycle) for row in plan.rows(number))
    total = sum(seen.values())
    mine = sum(count for name, count in seen.items() if name.startswith("own"))
    assert abs(mine / total - 0.5) < 0.02
    for kind, times, count in zip(("own", "other"), plan.times_seen(total), (own, others)):
        each = [found for name, found in seen.items() if name.startswith(kind)]
        assert len(each) == count and max(each) - min(each) <= 1 and abs(sum(each) / count - times) < 1e-6


def test_a_batch_of_two_is_one_of_each_where_both_have_one_size():
    examples = [example(f"own{i}") for i in range(5)]
    examples += [replace(example(f"other{i}"), regularization=True) for i in range(40)]
    plan = BatchSampler(examples, 2, 0, DATA)
    assert all(sum(row.example.regularization for row in plan.rows(number)) == 1 for number in range(60))
