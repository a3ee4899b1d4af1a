"""Resizing and merging: exact where that can be, and the error said where it can't."""

import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, Update, attach, merge, resize
from studio.adapters.formulas import KINDS
from studio.adapters.insight import energy_rank
from studio.adapters.reshape import singular_values
from studio.errors import AdapterError
from tests.adapters.test_update import delta


def model():
    torch.manual_seed(0)
    return nn.ModuleDict({"conv": nn.Conv2d(3, 8, 3), "fc": nn.Linear(24, 16)})


def updates(kind="lora", rank=4, seed=0, **more):
    adapter = attach(model(), AdapterSpec(rank=rank, alpha=3, kind=kind, targets="all", **more))
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw))
    return adapter.updates


def distance(one, other):
    """‖one − other‖ / ‖one‖ over all layers."""
    lost = sum((delta(one[place]) - delta(other[place])).square().sum() for place in one)
    return (lost / sum(delta(update).square().sum() for update in one.values())).sqrt().item()


@pytest.mark.parametrize("kind", ["lora", "tucker", "loha", "lokr"])
def test_a_rank_that_holds_everything_changes_nothing(kind):
    before = updates(kind)
    after, error = resize(before, 24)
    assert error < 1e-5 and distance(before, after) < 1e-5
    assert {update.label for update in after.values()} == {"LoRA"}


@pytest.mark.parametrize("kind", ["lora", "loha", "lokr"])
def test_a_smaller_rank_is_the_best_one_and_its_error_is_said(kind):
    before = updates(kind)
    after, error = resize(before, 2)
    assert all(update.rank <= 2 for update in after.values())
    assert 0.01 < error == pytest.approx(distance(before, after), rel=1e-3)
    lost = whole = 0.0
    for update in before.values():  # Eckart-Young: nothing of rank 2 is nearer than the two largest directions
        values = torch.linalg.svdvals(delta(update).flatten(1))
        lost, whole = lost + values[2:].square().sum(), whole + values.square().sum()
    assert error == pytest.approx((lost / whole).sqrt().item(), rel=1e-3)


@pytest.mark.parametrize("kind", ["lora", "tucker", "lokr", "loha"])
@pytest.mark.parametrize("rank", [1, 4])
def test_singular_values_come_from_the_factors(kind, rank, monkeypatch):
    before = updates(kind, rank)
    expected = {place: torch.linalg.svdvals(delta(update).flatten(1)) for place, update in before.items()}
    if kind != "loha":  # LoHa's factors are no smaller than the product
        monkeypatch.setitem(KINDS, "lokr", lambda *_: pytest.fail("the product was written out"))
        monkeypatch.setitem(KINDS, "lora", lambda *_: pytest.fail("the product was written out"))
    for place, update in before.items():
        values = singular_values(update)
        longest = max(len(values), len(expected[place]))
        padded = [nn.functional.pad(one, (0, longest - len(one))) for one in (values, expected[place])]
        assert torch.allclose(*padded, atol=1e-4 * expected[place][0].item())


def test_a_merge_is_the_sum_at_the_strengths():
    one, other = updates(rank=4), updates("loha", rank=2, seed=1)
    both, error = merge([(one, 0.7), (other, -0.4)])
    assert error == 0.0
    for place in one:
        got, first, second = (delta(layers[place]).flatten(1) for layers in (both, one, other))
        assert torch.allclose(got, 0.7 * first - 0.4 * second, atol=1e-4)


def test_layers_of_a_merge_have_one_alpha_whatever_their_ranks():
    """diffusers reads a file in kohya's layout as if they had."""
    one, other = updates(rank=4), updates(rank=2, seed=1)
    place = next(iter(one))
    both, _ = merge([(one, 1.0), ({place: other[place]}, 1.0)])
    assert {update.rank for update in both.values()} == {4, 6} and {update.alpha for update in both.values()} == {6.0}
    assert torch.allclose(delta(both[place]), delta(one[place]) + delta(other[place]), atol=1e-4)


def test_a_merge_of_two_loras_has_both_ranks_and_one_cut_to_a_rank_says_its_error():
    one, other = updates(rank=4), updates(rank=3, seed=1)
    both, _ = merge([(one, 1.0), (other, 0.5)])
    assert {update.rank for update in both.values()} == {7}
    cut, error = merge([(one, 1.0), (other, 0.5)], rank=3)
    assert error == pytest.approx(distance(both, cut), rel=1e-3)


def test_a_layer_that_only_one_has_is_kept():
    one, other = updates(), updates(seed=1)
    del other["", "fc"]
    both, _ = merge([(one, 1.0), (other, 1.0)])
    assert torch.allclose(delta(both["", "fc"]), delta(one["", "fc"]), atol=1e-5)


def test_what_needs_the_bases_weights_is_refused():
    with pytest.raises(AdapterError, match="DoRA can't be done without"):
        resize(updates("dora"), 2)
    with pytest.raises(AdapterError, match="whole number"):
        resize(updates(), 0)


def test_adapters_of_different_bases_are_not_merged():
    other = {("", "fc"): Update("lora", {"A": torch.ones(2, 5), "B": torch.ones(16, 2)}, 2.0)}
    with pytest.raises(AdapterError, match="different base models"):
        merge([(updates(), 1.0), (other, 1.0)])


@pytest.mark.parametrize("rank", [None, 2])
def test_weights_that_overflow_in_a_merge_are_refused(rank):
    with pytest.raises(AdapterError, match="overflow"):
        merge([(updates(), 1e308), (updates(seed=1), 1.0)], rank)


def test_the_directions_that_matter_are_counted():
    B, A = torch.linalg.qr(torch.randn(16, 8))[0], torch.linalg.qr(torch.randn(24, 8))[0].T
    strong = torch.tensor([10.0, 10, 10, 0.1, 0.1, 0.1, 0.1, 0.1])
    assert energy_rank(Update("lora", {"A": A, "B": B * strong}, 8.0)) == 3
    assert energy_rank(Update("lora", {"A": A, "B": B * 0}, 8.0)) == 0
