"""What is saved is what is read, in either layout, whole or not at all."""

import hashlib
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from studio.adapters import AdapterSpec, attach, attach_file, describe, describe_text, read_adapter
from studio.errors import AdapterError


def model(width=6):
    torch.manual_seed(0)
    return nn.ModuleDict({"conv_in": nn.Conv2d(3, width, 3), "to_q": nn.Linear(width, width)})


def run(m):
    x = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    return m["to_q"](m["conv_in"](x).mean((2, 3)))


def trained(m, **spec):
    adapter = attach(m, AdapterSpec(**{"rank": 3, "alpha": 1.5, "targets": "all", **spec}))
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.normal_()
    return adapter


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_a_saved_adapter_comes_back_exactly(tmp_path, layout):
    m = model()
    adapter = trained(m)
    expected = run(m)
    adapter.save(tmp_path / "a.safetensors", layout=layout, metadata={"studio.trigger": "zok", "studio.note": "ü"})
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    file = read_adapter(tmp_path / "a.safetensors")
    assert (file.rank, file.alpha, file.layout, len(file.layers)) == (3, 1.5, layout, 2)
    assert file.metadata["studio.trigger"] == "zok" and file.metadata["studio.note"] == "ü"
    assert file.metadata["ss_network_dim"] == "3" and file.metadata["ss_network_alpha"] == "1.5"
    again = model()
    loaded = attach_file(file, {"unet": again})
    assert torch.allclose(run(again), expected, atol=1e-5)  # merged here, live there
    loaded.train()
    assert torch.equal(run(again), expected)
    assert str(loaded.report) == "2 of 2 layers applied"
    loaded.save(tmp_path / "b.safetensors", layout=layout)
    both = read_adapter(tmp_path / "b.safetensors").layers, file.layers
    assert all(torch.equal(both[0][k].parts[part], both[1][k].parts[part]) for k in both[1] for part in "AB")


def test_mixed_ranks_and_alphas_survive_in_both_layouts(tmp_path):
    m = model()
    trained(m, rank=2, alpha=5, targets=("to_q",)).save(tmp_path / "q.safetensors", layout="kohya")
    trained(m, targets=("conv_in",)).save(tmp_path / "c.safetensors", layout="kohya")
    both = {k: v for n in "qc" for k, v in safetensors.torch.load_file(tmp_path / f"{n}.safetensors").items()}
    safetensors.torch.save_file(both, tmp_path / "both.safetensors")
    again = model()
    adapter = attach_file(read_adapter(tmp_path / "both.safetensors"), {"unet": again})
    for layout in ("diffusers", "kohya"):
        adapter.save(tmp_path / "out.safetensors", layout=layout)
        file = read_adapter(tmp_path / "out.safetensors")
        assert {f.rank: f.alpha for f in file.layers.values()} == {2: 5.0, 3: 1.5}


def test_strength_is_live_on_a_loaded_adapter(tmp_path):
    m = model()
    trained(m).save(tmp_path / "a.safetensors")
    again = model()
    base = run(again)
    adapter = attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": again}, strength=0.0)
    assert torch.equal(run(again), base)
    adapter.strength = 1.0
    assert not torch.allclose(run(again), base)
    adapter.detach()
    assert torch.equal(run(again), base)


def test_an_adapter_for_another_base_is_refused_and_nothing_is_touched(tmp_path):
    trained(model()).save(tmp_path / "a.safetensors")
    other = model(width=8)
    with pytest.raises(AdapterError, match="^[^ ]+ was made for another base model: 0 of its 2 layers fit. Choose"):
        attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": other})
    assert all(p.requires_grad for p in other.parameters())


def test_a_partial_match_is_applied_and_reported(tmp_path):
    trained(model()).save(tmp_path / "a.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "a.safetensors")
    tensors |= {"unet.gone.lora_A.weight": torch.ones(2, 4), "unet.gone.lora_B.weight": torch.ones(4, 2)}
    tensors |= {"text_encoder.q.lora_A.weight": torch.ones(2, 4), "text_encoder.q.lora_B.weight": torch.ones(4, 2)}
    tensors |= {"lora_unet_x.boft_R": torch.ones(2, 2)}
    safetensors.torch.save_file(tensors, tmp_path / "b.safetensors")
    report = attach_file(read_adapter(tmp_path / "b.safetensors"), {"unet": model()}).report
    assert (report.matched, report.total) == (2, 4)
    assert dict(report.unused) == {
        "unet.gone": "the base model has no such layer",
        "text_encoder.q": "there is no text_encoder to put it on",
        "lora_unet_x.boft_R": "PEFT's BOFT is not read",
    }
    assert str(report).startswith("2 of 4 layers applied, 3 keys unused: ") and "\n" not in str(report)


def test_a_layer_with_parts_of_two_kinds_is_left_out_whole(tmp_path):
    pair = {"A.weight": torch.ones(2, 6), "B.weight": torch.ones(6, 2)}
    tensors = {f"unet.to_q.lora_{k}": v for k, v in pair.items()}
    tensors |= {f"unet.to_k.lora_{k}": v.clone() for k, v in pair.items()}
    tensors["unet.to_q.hada_w1_a"] = torch.ones(6, 2)
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    file = read_adapter(tmp_path / "a.safetensors")
    assert list(file.layers) == [("unet", "to_k")]
    assert len(file.unknown) == 3 and set(file.unknown.values()) == {"lora with hada_w1_a is not supported"}


def test_pairs_written_as_1x1_convolutions_fit_linear_layers_and_the_other_way(tmp_path):
    m = nn.ModuleDict({"to_q": nn.Linear(6, 6), "proj": nn.Conv2d(6, 6, 1)})
    A, B = torch.randn(2, 6), torch.randn(6, 2)
    tensors = {"to_q.lora_A.weight": A[..., None, None], "to_q.lora_B.weight": B[..., None, None]}
    tensors |= {"proj.lora_A.weight": A.clone(), "proj.lora_B.weight": B.clone()}
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, tmp_path / "a.safetensors")
    assert attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": m}).report.matched == 2


def test_half_precision_and_rank_stabilised_files_are_read_right(tmp_path):
    tensors = {"unet.to_q.lora_A.weight": torch.randn(4, 6).half(), "unet.to_q.lora_B.weight": torch.randn(6, 4).half()}
    settings = {"unet.lora_alpha": 8, "unet.use_rslora": True}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {"lora_adapter_metadata": json.dumps(settings)})
    update = read_adapter(tmp_path / "a.safetensors").layers["unet", "to_q"]
    assert update.parts["A"].dtype == torch.float32 and update.sigma == 8 / 4**0.5


def test_what_is_not_finite_is_not_written_and_the_last_good_file_stays(tmp_path):
    adapter = trained(model())
    adapter.save(tmp_path / "a.safetensors")
    before = (tmp_path / "a.safetensors").read_bytes()
    with torch.no_grad():
        next(adapter.parameters()).fill_(float("nan"))
    with pytest.raises(AdapterError, match="not finite"):
        adapter.save(tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    "name, arguments, words",
    [
        ("a.bin", {}, "must end in .safetensors"),
        ("a.safetensors", {"layout": "banana"}, "layout 'banana' is unknown"),
        ("a.safetensors", {"layout": "kohya", "prefix": "banana"}, "'banana'"),
    ],
)
def test_a_wrong_name_or_layout_is_said(tmp_path, name, arguments, words):
    adapter = trained(model())
    with pytest.raises(AdapterError, match=words):
        adapter.save(tmp_path / name, **arguments)
    assert not list(tmp_path.iterdir())


def test_a_file_is_described_as_data_and_as_text(tmp_path):
    said = {"studio.trigger": "zok\x1b[31m", "studio.base": "starter"}
    trained(model()).save(tmp_path / "a.safetensors", metadata=said)
    file = read_adapter(tmp_path / "a.safetensors")
    description = describe(file)
    assert json.loads(json.dumps(description)) == description
    assert description["components"] == {"unet": 2} and description["ranks"] == {"3": 2}
    assert description["trigger_words"] == ["zok\x1b[31m"] and description["base"] == {"studio.base": "starter"}
    assert description["sha256"] == file.hash and description["size"] == file.size
    text = describe_text(description)
    assert "unet 2" in text and "starter" in text and "\x1b" not in text


def test_the_metadata_tells_what_other_programs_ask_and_the_hash_of_the_numbers(tmp_path):
    trained(model(), kind="loha").save(tmp_path / "a.safetensors")
    said = read_adapter(tmp_path / "a.safetensors").metadata
    data = (tmp_path / "a.safetensors").read_bytes()
    body = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert said["sshs_model_hash"] == body and said["modelspec.hash_sha256"] == "0x" + body
    assert said["ss_network_module"] == "lycoris.kohya" and json.loads(said["ss_network_args"]) == {"algo": "loha"}
    assert "modelspec.architecture" not in said  # nothing tells it here
    assert said["modelspec.sai_model_spec"] == "1.0.1" and said["ss_network_dim"] == "3"
