"""Whether a run is learning, in words, from made-up held-out losses whose truth is known."""

import pytest
import torch

from studio.training.verdict import LEARNING, NOTHING, OVERFITTING, PLATEAU, describe, judge

BASE = 0.4 + 0.1 * torch.rand(8, 8, generator=torch.Generator().manual_seed(0))


def verdict_of(curve: list[float], noise: float = 0.002) -> str:
    """The word after the last of these mean losses (as shares of the base's), each cell with a little noise."""
    draw = torch.Generator().manual_seed(1)
    looks = [BASE * share + noise * torch.randn(8, 8, generator=draw) for share in curve]
    history = [(50 * (i + 1), rows.mean().item()) for i, rows in enumerate(looks)]
    best = min(looks, key=lambda rows: rows.mean().item())
    return judge(history, looks[-1], best, BASE)


@pytest.mark.parametrize(
    "curve, word",
    [
        ([0.9], LEARNING),
        ([0.9, 0.8, 0.7, 0.6, 0.5], LEARNING),
        ([0.8, 0.7, 0.65, 0.649, 0.651, 0.65, 0.649], PLATEAU),
        ([0.8, 0.7, 0.6, 0.65, 0.7, 0.75], OVERFITTING),
        ([1.0, 1.001, 0.999, 1.0, 1.0], NOTHING),
        ([1.05, 1.1, 1.2, 1.3], OVERFITTING),
    ],
)
def test_a_curve_is_called_what_it_is(curve, word):
    assert verdict_of(curve) == word


def test_a_wobble_within_the_noise_is_not_called_over_fitting():
    assert verdict_of([0.8, 0.7, 0.6, 0.603, 0.602, 0.604], noise=0.05) != OVERFITTING


def test_words_name_the_part_of_the_schedule_that_got_better_and_the_one_that_got_worse():
    best, now = BASE * 0.8, BASE * 0.8
    now = torch.cat([BASE[:, :2] * 1.1, now[:, 2:]], 1)  # least noise: worse than the base and than at its best
    said = describe(now, best, BASE)
    assert "composition (−20 %)" in said and said.endswith("Worse than at its best in fine detail.")
    assert describe(BASE, BASE, BASE) == "Nowhere clearly better than the base."
