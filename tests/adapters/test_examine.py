"""The adapter inspector: where an adapter acts, how much of its rank it uses, what it overlaps; checked with numpy."""

import numpy as np
import pytest
import torch
from torch import nn

from studio.adapters import AdapterSpec, Update, attach, read_adapter, write_adapter
from studio.adapters.advice import advice, verdict
from studio.adapters.block_map import block_map, kind_of
from studio.adapters.examine import ALL, examine
from studio.adapters.files import read_outline
from studio.adapters.layer_adapters import ATTRIBUTE
from studio.basemodels import load_base
from studio.errors import GenerationError
from studio.web.components.heatmap import block_table, energy_chart

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
ATTENTION = f"{BLOCK}.attn1.to_q"


@pytest.fixture(scope="module")
def base():
    return load_base(shared=False)


def made(path, base, seed=0, scale=0.05, rank=4, only=lambda component, key: True, **spec):
    chance, updates = torch.Generator().manual_seed(seed), {}
    for component, module in base.modules().items():
        adapter = attach(module, AdapterSpec(rank=rank, alpha=rank, targets="attention+feed-forward", **spec))
        for parameter in adapter.parameters():
            parameter.data = parameter.data + torch.randn(parameter.shape, generator=chance) * scale
        updates |= {(component, key): u for (_, key), u in adapter.updates.items() if only(component, key)}
        adapter.detach()
    write_adapter(path, updates)
    return read_adapter(path)


def weight(base, component, path):
    return base.modules()[component].get_submodule(path).weight.detach().numpy()


def dense(update):
    return update.sigma * update.parts["B"].flatten(1).numpy() @ update.parts["A"].flatten(1).numpy()


def kron(update):
    p = {part: tensor.numpy() for part, tensor in update.parts.items()}
    w2 = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
    return update.sigma * np.kron(p["lokr_w1"], w2)


def test_the_map_tells_how_far_each_block_moves(base, tmp_path):
    file = made(tmp_path / "a.safetensors", base)
    found = examine(file, base.modules())
    moved = whole = 0.0
    for (component, path), update in file.layers.items():
        if component == "unet" and path.startswith("down_blocks.1.") and kind_of(path) == "self-attention q":
            moved += np.square(dense(update)).sum()
            whole += np.square(weight(base, component, path)).sum()
    cell = found.where.cells["unet.down_blocks.1", "self-attention q"]
    assert cell.applied == cell.total > 0
    assert cell.share == pytest.approx((moved / whole) ** 0.5, rel=1e-4)
    assert found.fit.matched == found.fit.total == len(file.layers)


def test_a_dora_is_measured_by_what_it_does_to_the_weight(base, tmp_path):
    file = made(tmp_path / "a.safetensors", base, kind="dora", only=lambda component, key: key == ATTENTION)
    update, W = file.layers["unet", ATTENTION], weight(base, "unet", ATTENTION)
    V = W + dense(update)
    change = update.parts["magnitude"].numpy()[:, None] * V / np.linalg.norm(V, axis=1, keepdims=True) - W
    found = examine(file, base.modules())
    share = found.where.of_block("unet.down_blocks.1").share
    assert share == pytest.approx(np.linalg.norm(change) / np.linalg.norm(W), rel=1e-4)
    values = np.linalg.svd(change, compute_uv=False) ** 2
    assert found.kept[ALL] == pytest.approx(values.cumsum() / values.sum(), abs=1e-4)


def test_blocks_stand_in_the_order_in_which_the_network_uses_them(base, tmp_path):
    where = examine(made(tmp_path / "a.safetensors", base), base.modules()).where
    unet = [block.removeprefix("unet.") for block in where.blocks if block.startswith("unet.")]
    order = ["conv_in", "down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1", "conv_out"]
    assert [block for block in unet if block in order] == order


def test_what_the_file_lacks_is_grey_and_what_the_base_lacks_is_hatched(base, tmp_path):
    path = tmp_path / "a.safetensors"
    here = made(path, base, only=lambda component, key: component == "unet" and key.startswith("up_blocks"))
    strange = Update("lora", {"A": torch.ones(2, 7), "B": torch.ones(9, 2)}, 2.0)
    write_adapter(path, {**here.layers, ("unet", "down_blocks.7.attentions.0.attn1.to_v"): strange}, "kohya")
    found = examine(read_adapter(path), base.modules())
    assert found.where.of_block("unet.down_blocks.1").applied == 0
    assert found.where.cells["unet.down_blocks.7", "self-attention v"].unused == 1
    html = block_table(found.where)
    assert 'class="away" title="unet.down_blocks.1, ' in html and 'class="unused" title="unet.down_blocks.7' in html
    assert "1 unused: the base model has no such layer (1)" in verdict(found)


def test_a_file_for_another_base_is_told_in_one_line_and_has_no_map(base, tmp_path):
    update = Update("lora", {"A": torch.randn(4, 2048), "B": torch.randn(640, 4)}, 4.0)
    write_adapter(tmp_path / "a.safetensors", {("unet", f"{BLOCK}.attn2.to_k"): update}, "kohya")
    found = examine(read_adapter(tmp_path / "a.safetensors"), base.modules())
    assert found.where is None and "Made for SDXL: none of its 1 layers fits" in verdict(found)
    assert "\n" not in verdict(found) and len(found.kept[ALL]) == 4  # its rank is known without a base


@pytest.mark.parametrize("strong, enough", [(3, 3), (6, 6)])
def test_the_rank_that_keeps_nearly_all_is_advised(base, tmp_path, strong, enough):
    file = made(tmp_path / "a.safetensors", base, rank=8)
    for update in file.layers.values():
        B = torch.linalg.qr(update.parts["B"])[0]
        update.parts["A"].copy_(torch.linalg.qr(update.parts["A"].T)[0].T)
        update.parts["B"].copy_(B * torch.tensor([1.0] * strong + [0.001] * (8 - strong)))
    found = examine(file, base.modules())
    assert found.rank_for() == enough
    assert any(f"Rank {enough} keeps" in line and "resized from 8" in line for line in advice(found))
    assert f"rank {enough}\n{ALL} 100.0 %" in energy_chart(found.kept)


def test_a_dead_part_and_an_over_strong_block_are_named(base, tmp_path):
    file = made(tmp_path / "a.safetensors", base, scale=0.02)
    for (component, path), update in file.layers.items():
        if component == "text_encoder":
            update.parts["B"].zero_()
        elif path.startswith("mid_block"):
            update.parts["B"].mul_(300)
    said = " ".join(advice(examine(file, base.modules())))
    assert "The text encoder part is dead" in said and "unet.mid_block is over-strong" in said


def test_two_adapters_on_the_rows_are_compared_as_written_out(base, tmp_path):
    one, other = made(tmp_path / "a.safetensors", base), made(tmp_path / "b.safetensors", base, 1, kind="lokr")
    flat = {(component, key.replace(".", "_")): update for (component, key), update in one.layers.items()}
    pairs = [(dense(flat[place]), kron(update)) for place, update in other.layers.items()]
    cross, mine, yours = (
        sum((a * b).sum() for a, b in found)
        for found in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
    )
    against = {place: Update("lora", {**u.parts, "B": -u.parts["B"]}, u.alpha) for place, u in one.layers.items()}
    write_adapter(tmp_path / "c.safetensors", against)
    others = {"same": one, "kron": other, "against": read_adapter(tmp_path / "c.safetensors")}
    found = examine(one, base.modules(), others)
    assert found.overlaps["same"] == pytest.approx(1, abs=1e-4)
    assert found.overlaps["against"] == pytest.approx(-1, abs=1e-4)
    assert found.overlaps["kron"] == pytest.approx(cross / (mine * yours) ** 0.5, abs=1e-5)
    said = " ".join(advice(found))
    assert "works against against" in said and "pushes the same way as same" in said


def test_looking_changes_nothing_and_stops_between_layers(base, tmp_path):
    file = made(tmp_path / "a.safetensors", base)
    before = {key: value.clone() for key, value in base.model.state_dict().items()}

    def stop(done, total):
        if done == 2:
            raise GenerationError("Stopped.")

    with pytest.raises(GenerationError):
        examine(file, base.modules(), progress=stop)
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())
    assert not any(ATTRIBUTE in module.__dict__ for module in base.model.modules())


def test_the_header_alone_tells_layers_kinds_and_ranks(base, tmp_path):
    for kind in ("lora", "dora", "loha", "lokr"):
        whole = made(tmp_path / f"{kind}.safetensors", base, kind=kind)
        short = read_outline(tmp_path / f"{kind}.safetensors")
        assert short.layers.keys() == whole.layers.keys() and short.layout == whole.layout
        assert (short.kinds, short.ranks) == (whole.kinds, whole.ranks)
        assert all(short.layers[place].shape == update.shape for place, update in whole.layers.items())


@pytest.mark.parametrize(
    "path, kind",
    [
        ("up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0", "self-attention out"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn2_to_k", "cross-attention k"),
        ("encoder.layers.3.self_attn.q_proj", "self-attention q"),
        ("encoder.layers.3.mlp.fc1", "feed-forward"),
        ("transformer_blocks.0.attn.add_k_proj", "cross-attention k"),
        ("transformer_blocks.0.norm1.linear", "time"),
        ("down_blocks.0.resnets.0.time_emb_proj", "time"),
        ("down_blocks.0.resnets.1.conv2", "conv"),
        ("single_transformer_blocks.3.proj_mlp", "feed-forward"),
        ("mid_block.attentions.0.proj_in", "projection"),
    ],
)
def test_layers_are_told_apart_by_kind(path, kind):
    assert kind_of(path) == kind


def test_an_unknown_model_has_a_map_too():
    model = nn.ModuleDict({"one": nn.Linear(4, 4), "two": nn.Linear(4, 4)})
    adapter = attach(model, AdapterSpec(rank=2, targets=("one",)))
    where = block_map({"unet": model}, {("unet", "one"): (1.0, 4.0)}, [])
    assert where.of_component("unet").share == 0.5 and "unet.two" in where.blocks
    adapter.detach()
