"""What the row of an adapter and `inspect` compute: no singular value before it is asked for, no product of factors.

Counted, not timed; `tests.benchmarks.inspecting` measures files of 300 MB.
"""

import pytest
import torch
from safetensors.torch import save_file

from studio.adapters import read_adapter
from studio.adapters.reshape import factors, singular_values
from studio.services.adapters import inspect_adapter
from studio.services.generation import adapter_summary
from studio.workspace import Workspace
from tests.operations import calls, growth

PATH = "mid_block_attentions_0_transformer_blocks_0_attn1_to_q"  # 256 × 256 in the starter
WHOLE = {
    "lora": {"lora_down.weight": (8, 256), "lora_up.weight": (256, 8), "alpha": ()},
    "loha": {f"hada_w{n}_{side}": (256, 8) if side == "a" else (8, 256) for n in "12" for side in "ab"},
    "lokr": {"lokr_w1": (16, 16), "lokr_w2": (16, 16)},
    "lokr in parts": {"lokr_w1": (4, 4), "lokr_w2_a": (64, 2), "lokr_w2_b": (2, 64)},
    "full difference": {"diff": (256, 256)},
}


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "workspace")


def saved(workspace, parts, paths=(PATH,)):
    torch.manual_seed(0)
    tensors = {
        f"lora_unet_{path}.{part}": torch.randn(shape) if shape else torch.tensor(4.0)
        for path in paths
        for part, shape in parts.items()
    }
    save_file(tensors, workspace.adapters / "a.safetensors")
    return "file:a.safetensors"


def written_out(work):
    """How often a Kronecker product is written out; `_kron_shape` only computes its size."""
    return calls(work, "kron") - calls(work, "_kron_shape")


@pytest.mark.parametrize("kind", WHOLE)
def test_no_singular_value_is_computed_before_it_is_asked_for(workspace, kind):
    key = saved(workspace, WHOLE[kind])
    adapter_summary(workspace, key)  # what is computed once, of the base and of the known models
    for work in (
        lambda: inspect_adapter(workspace, key, ""),
        lambda: inspect_adapter(workspace, key, "starter"),
    ):
        assert not calls(work, "svd") and not calls(work, "qr") and not written_out(work)
    asked = lambda: inspect_adapter(workspace, key, "starter", detail=True)  # noqa: E731
    assert calls(asked, "svd")
    assert not kind.startswith("lokr") or not written_out(asked)


def test_the_row_reads_the_header_alone(workspace):
    """Of three tensors it reads one number, alpha: the bytes of the others are never asked for."""
    key = saved(workspace, WHOLE["lora"])
    assert not calls(lambda: adapter_summary(workspace, key), "readinto")
    assert calls(lambda: inspect_adapter(workspace, key, ""), "readinto") >= 2


def test_inspecting_grows_with_the_number_of_layers(workspace):
    """Twice as many layers, at most a little more than twice as many calls."""

    def inspect(count):
        key = saved(workspace, WHOLE["lora"], [f"layer_{n}" for n in range(count)])
        return inspect_adapter(workspace, key, "starter")

    assert growth(inspect, 100, 200) < 2.3


@pytest.mark.parametrize("kind", WHOLE)
def test_singular_values_through_the_factors_are_those_of_the_product(workspace, kind):
    """The oracle is torch's decomposition of the written-out product."""
    saved(workspace, WHOLE[kind])
    (update,) = read_adapter(workspace.adapters / "a.safetensors").layers.values()
    B, A = factors(update)
    wanted, found = torch.linalg.svdvals(B @ A), singular_values(update)
    assert torch.allclose(found, wanted[: len(found)], atol=1e-3 * wanted[0])
    assert wanted[len(found) :].square().sum() < 1e-6 * wanted.square().sum()
