"""Settings are checked when made, and presets choose the layers that they name."""

import pytest

from studio.adapters import AdapterSpec
from studio.errors import AdapterError

UNET = "down_blocks.1.attentions.0.transformer_blocks.0"


@pytest.mark.parametrize(
    "values",
    [
        {"rank": 0},
        {"rank": 1025},
        {"rank": True},
        {"rank": 4.0},
        {"alpha": 0},
        {"alpha": float("nan")},
        {"kind": "magic"},
        {"dropout": 1.0},
        {"dropout": -0.1},
        {"targets": "magic"},
        {"targets": ()},
        {"targets": ("(",)},
        {"targets": (3,)},
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(values):
    with pytest.raises(AdapterError) as caught:
        AdapterSpec(**values)
    assert "\n" not in str(caught.value)


def test_alpha_is_the_rank_unless_said():
    assert AdapterSpec(rank=6).alpha_of("any") == 6
    assert AdapterSpec(rank=6, alpha=3).alpha_of("any") == 3


@pytest.mark.parametrize("targets", ["attention", ("attention",), ["attention"]])
def test_attention_means_the_projections_of_attention_layers(targets):
    spec = AdapterSpec(targets=targets)
    wanted = [f"{UNET}.attn1.to_q", f"{UNET}.attn2.to_out.0", "encoder.layers.0.self_attn.out_proj"]
    others = [f"{UNET}.ff.net.2", "down_blocks.1.attentions.0.proj_in", "encoder.layers.0.mlp.fc1", "conv_in"]
    assert all(map(spec.wants, wanted))
    assert not any(map(spec.wants, others))


def test_feed_forward_is_added_by_its_preset_and_everything_by_all():
    spec = AdapterSpec(targets="attention+feed-forward")
    assert all(map(spec.wants, [f"{UNET}.ff.net.0.proj", f"{UNET}.ff.net.2", "encoder.layers.0.mlp.fc1"]))
    assert not spec.wants("conv_in")
    assert AdapterSpec(targets="all").wants("conv_in")
