"""One layer's update as plain tensors: its scale, its shape by arithmetic, and its parts where layers are fused."""

import pytest
import torch

from studio.adapters import Update
from studio.adapters.formulas import KINDS, cayley
from studio.adapters.update import update_of
from studio.errors import AdapterError


def delta(update, W=None):
    W = torch.empty(update.shape) if W is None else W
    return KINDS[update.kind](W, dict(update.parts), update.sigma)


def parts(kind, out=12, width=8):
    torch.manual_seed(0)
    r = torch.randn
    return {
        "lora": {"A": r(2, width), "B": r(out, 2)},
        "full": {"diff": r(out, width)},
        "lokr": {"lokr_w1": r(3, 2), "lokr_w2": r(out // 3, width // 2)},
        "loha": {f"hada_w{n}_{s}": r(out, 2) if s == "a" else r(2, width) for n in "12" for s in "ab"},
        "glora": {"a1": r(width, 2), "a2": r(2, width), "b1": r(out, 2), "b2": r(2, width)},
        "oft": {"oft_blocks": r(3, 4, 4)},
        "boft": {"oft_blocks": r(2, 3, 4, 4)},
    }[kind]


@pytest.mark.parametrize("kind", ["lora", "full", "lokr"])
def test_the_rows_of_a_fused_layer_are_the_rows_of_its_update(kind):
    whole = update_of(parts(kind) | {"alpha": torch.tensor(3.0), "diff_b": torch.arange(12.0)})
    for rows in ((0, 4), (4, 12)):
        cut = whole.slice_rows(rows, (rows[1] - rows[0], 8))
        assert torch.allclose(delta(cut), delta(whole)[slice(*rows)], atol=1e-6)
        assert torch.equal(cut.parts["diff_b"], torch.arange(12.0)[slice(*rows)])


def test_lengths_of_outputs_are_cut_with_their_rows_and_those_of_inputs_are_refused():
    for kind in ("lora", "lokr"):
        whole = update_of(parts(kind) | {"dora_scale": torch.arange(12.0)[:, None]})
        cut = whole.slice_rows((4, 8), (4, 8))
        assert torch.equal(cut.parts["magnitude"], torch.arange(4.0, 8.0)) and cut.label
        with pytest.raises(AdapterError, match="along its inputs"):
            update_of(parts(kind) | {"dora_scale": torch.ones(1, 8)}).slice_rows((4, 8), (4, 8))


def test_what_can_not_be_cut_or_has_another_size_is_said():
    with pytest.raises(AdapterError, match="LoHa of several layers"):
        update_of(parts("loha")).slice_rows((0, 4), (4, 8))
    with pytest.raises(AdapterError, match="not that of the layers"):
        update_of(parts("lora")).slice_rows((8, 16), (8, 8))
    with pytest.raises(AdapterError, match="its size is 12×8, the base model's 12×9"):
        update_of(parts("lora")).fitted((12, 9))


def test_glora_of_the_old_order_is_the_same_update():
    new, W = parts("glora"), torch.randn(12, 8)
    old = {"a1": new["a2"], "a2": new["a1"], "b1": new["b2"], "b2": new["b1"]}
    one, other = (update_of(p | {"alpha": torch.tensor(1.0)}) for p in (new, old))
    assert one.rank == other.rank == 2 and one.shape == other.shape == (12, 8)
    assert torch.allclose(delta(one, W), delta(other, W), atol=1e-5)


@pytest.mark.parametrize("kind", ["oft", "boft"])
def test_turns_keep_lengths(kind):
    """An orthogonal R changes no column's length: R W and W have the same."""
    W = torch.randn(12, 8)
    if kind == "boft":
        W = torch.randn(8, 8)
        update = update_of({"oft_blocks": torch.randn(2, 2, 4, 4)})
    else:
        update = update_of(parts(kind))
    turned = W + delta(update, W)
    assert torch.allclose(turned.norm(dim=0), W.norm(dim=0), atol=1e-4) and not torch.allclose(turned, W, atol=0.1)


def test_a_constraint_bounds_the_turn():
    blocks = torch.randn(3, 4, 4)
    free, bound = cayley(blocks, 0.0), cayley(blocks, 0.01)
    identity = torch.eye(4)
    assert 0.001 < (bound - identity).norm() < 0.05 < (free - identity).norm()


@pytest.mark.parametrize(
    "given, sigma",
    [
        ({"A": torch.ones(4, 8), "B": torch.ones(12, 4)}, 1.0),
        ({"A": torch.ones(4, 8), "B": torch.ones(12, 4), "alpha": torch.tensor(2.0)}, 0.5),
        ({"lokr_w1": torch.ones(3, 2), "lokr_w2": torch.ones(4, 4), "alpha": torch.tensor(9.0)}, 1.0),
        ({"diff": torch.ones(2, 2), "alpha": torch.tensor(9.0)}, 1.0),
    ],
)
def test_the_scale_is_alpha_over_rank_and_one_where_there_is_no_rank(given, sigma):
    assert update_of(given).sigma == sigma


@pytest.mark.parametrize("length, axis", [(12, "output"), (8, "input")])
def test_a_flat_dora_scale_runs_along_the_side_that_it_fits(length, axis):
    update = update_of(parts("lora") | {"dora_scale": torch.ones(length)})
    assert update.axis == "" and update.fitted((12, 8)).axis == axis


@pytest.mark.parametrize("shape, axis", [((8, 1), "output"), ((1, 8), "input")])
def test_on_a_square_layer_the_scales_own_shape_says_the_axis(shape, axis):
    update = update_of(parts("lora", out=8) | {"dora_scale": torch.ones(shape)})
    assert update.fitted((8, 8)).axis == axis
    assert isinstance(update, Update) and update.label == "DoRA"
