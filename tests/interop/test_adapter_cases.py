"""Adapter files as people bring them: PEFT's configurations, other programs' names, odd tensors (docs/dev/cases.md)."""

import copy
import hashlib
import json

import pytest
import safetensors.torch
import torch
from torch import nn

from studio.adapters import attach_file, autov3_hash, describe, describe_text, read_adapter, read_outline, write_adapter
from studio.adapters.attach import place_layers
from studio.adapters.rewrite import convert_file, merge_files, resize_file
from studio.adapters.update import Update
from studio.errors import AdapterError
from studio.generation import Recipe
from studio.generation.adapter_info import read_adapter_info
from studio.generation.image_metadata import parameters_text
from tests.interop.test_adapter_files import disturb, error

peft = pytest.importorskip("peft")


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(8, 8, bias=False) for _ in "qkv")

    def forward(self, x):
        return self.to_q(x) + self.to_k(x) * self.to_v(x)


class Net(nn.Module):
    """Two blocks down, one up, named as a UNet names them."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down_blocks = nn.ModuleList(nn.ModuleDict({"attn1": Attention(), "attn2": Attention()}) for _ in range(2))
        self.up_blocks = nn.ModuleList(nn.ModuleDict({"attn1": Attention()}) for _ in range(1))

    def forward(self, x):
        for block in (*self.down_blocks, *self.up_blocks):
            for attention in block.values():
                x = x + attention(x)
        return x


X = torch.linspace(-1, 1, 24).reshape(3, 8)


def save(path, tensors, metadata=None):
    safetensors.torch.save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, path, metadata)
    return path


def pair(stem, a="lora_down.weight", b="lora_up.weight", out=8, into=8, rank=2):
    return {f"{stem}.{a}": torch.randn(rank, into), f"{stem}.{b}": torch.randn(out, rank)}


def peft_file(folder, **config):
    """(the file that PEFT writes, its model): every setting of `config` is PEFT's own."""
    made = peft.LoraConfig(**{"r": 4, "lora_alpha": 4, "target_modules": ["to_q", "to_k"], **config})
    theirs = peft.get_peft_model(Net(), made)
    torch.manual_seed(1)
    disturb(theirs)
    theirs.save_pretrained(folder)
    theirs = peft.PeftModel.from_pretrained(Net(), folder)  # it sorts the patterns when it saves them
    return folder / "adapter_model.safetensors", theirs.eval()


PATTERNS = {
    "alternatives": {r".*(to_q|to_k)": 8},
    "one part": {r"down_blocks.*to_q": 8},
    "two that match": {r"down_blocks.*": 8, "to_q": 16},
    "two that match, turned round": {"to_q": 16, r"down_blocks.*": 8},
    "a plain end": {"attn1.to_q": 8},
    "a plain end before a pattern": {"0.attn1.to_q": 2, r"down_blocks\.\d+\.attn[12]\.to_q": 8},
    "the whole path": {"^down_blocks.0.attn1.to_q": 8, "^attn1.to_k": 16},
    "no dot before the end": {"own_blocks.0.attn1.to_q": 8, "o_q": 8},
    "a class of letters": {r"to_[a-p]": 8},
    "an anchor at the end": {r"down_blocks\.1\..*to_k$": 8},
}


@pytest.mark.parametrize("stabilised", [False, True], ids=["plain", "rank-stabilised"])
@pytest.mark.parametrize("case", PATTERNS)
def test_alpha_patterns_give_pefts_scaling(tmp_path, case, stabilised):
    path, theirs = peft_file(
        tmp_path, alpha_pattern=PATTERNS[case], use_rslora=stabilised, rank_pattern={r".*1.*to_q": 2}
    )
    expected = {
        name.removeprefix("base_model.model."): layer.scaling["default"]
        for name, layer in theirs.named_modules() if hasattr(layer, "scaling") and layer.scaling
    }  # fmt: skip
    file, ours = read_adapter(path), Net()
    assert {key: update.sigma for (_, key), update in file.layers.items()} == pytest.approx(expected)
    attach_file(file, {"unet": ours})
    with torch.no_grad():
        assert error(ours(X), theirs(X)) < 1e-5


def test_slow_patterns_are_refused(tmp_path, monkeypatch):
    slow = tmp_path / "a.safetensors"
    config = {"r": 2, "lora_alpha": 2, "alpha_pattern": {"(?:a|aa|a)+[bc]x?": 4}}
    monkeypatch.setattr("studio.adapters.peft_config.SECONDS", 0.1)
    save(slow, pair("a" * 60, "lora_A.weight", "lora_B.weight"), {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(AdapterError, match="take too long"):
        read_adapter(slow)
    config["alpha_pattern"] = {"(": 4}
    save(slow, pair("a", "lora_A.weight", "lora_B.weight"), {"lora_adapter_metadata": json.dumps(config)})
    with pytest.raises(AdapterError, match="not a regular expression"):
        read_adapter(slow)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "style.safetensors"])
def test_configuration_beside_any_file_name(tmp_path, name):
    path, theirs = peft_file(tmp_path, r=16, lora_alpha=64)
    path = path.rename(tmp_path / name)
    file, ours = read_adapter(path), Net()
    assert file.alpha == 64 and any("adapter_config.json" in note for note in file.notes)
    attach_file(file, {"unet": ours})
    with torch.no_grad():
        assert error(ours(X), theirs(X)) < 1e-5


def test_missing_alpha_is_reported(tmp_path):
    path, _ = peft_file(tmp_path, r=16, lora_alpha=64)
    (tmp_path / "adapter_config.json").unlink()
    file = read_adapter(path)
    assert file.alpha == 16 and file.notes == ("gives no alpha: taken as the rank",) == read_outline(path).notes
    assert "gives no alpha: taken as the rank" in describe_text(describe(file))
    assert "gives no alpha: taken as the rank" in read_adapter_info(path, {"unet": Net()}).line


def test_configuration_of_other_ranks_is_ignored(tmp_path):
    path, _ = peft_file(tmp_path, r=16, lora_alpha=64)
    other = save(tmp_path / "other.safetensors", pair("up_blocks.0.attn1.to_q", "lora_A.weight", "lora_B.weight"))
    file = read_adapter(other)
    assert file.alpha == file.rank == 2 and any("other ranks" in note for note in file.notes)


def test_pefts_default_alpha(tmp_path):
    theirs = peft.LoraConfig(r=2)
    path = tmp_path / "a.safetensors"
    save(path, pair("unet.q", "lora_A.weight", "lora_B.weight"), {"lora_adapter_metadata": '{"unet.r": 2}'})
    assert read_adapter(path).alpha == theirs.lora_alpha


def test_unsupported_settings_are_reported(tmp_path):
    path, _ = peft_file(tmp_path, init_lora_weights="pissa")
    assert any("made with pissa" in note for note in read_adapter(path).notes)


def named(file, layers, component, name=lambda path: path, layout="kohya"):
    write_adapter(file, {(component, name(path)): update for path, update in layers.items()}, layout)
    return read_adapter(file)


def updates(seed, *paths):
    torch.manual_seed(seed)
    return {path: Update("lora", {"A": torch.randn(2, 8), "B": torch.randn(8, 2)}, 2.0) for path in paths}


PATH = "down_blocks.0.attn1.to_q"


def test_merge_unifies_prefixes(tmp_path):
    one = named(tmp_path / "a.safetensors", updates(0, PATH), "unet", layout="diffusers")
    path, _ = peft_file(tmp_path / "peft")
    other = read_adapter(path)
    ours, both = Net(), Net()
    attach_file(one, {"unet": ours}, 0.5)
    attach_file(other, {"unet": ours}, -1.0)
    merge_files([(one, 0.5), (other, -1.0)]).write(tmp_path / "m.safetensors")
    adapter = attach_file(read_adapter(tmp_path / "m.safetensors"), {"unet": both})
    assert adapter.report.matched == adapter.report.total == len(other.layers)
    with torch.no_grad():
        assert error(both(X), ours(X)) < 1e-5


@pytest.mark.parametrize(
    "first, second",
    [
        ("down_blocks_0_attentions_0_proj_in", "input_blocks_1_1_proj_in"),
        ("transformer_blocks_0_attn_to_q", "double_blocks_0_img_attn_qkv"),
        ("layers_0_attention_to_q", "layers_0_attention_qkv"),
        ("blocks_0_attn1_to_q", "blocks_0_self_attn_q"),
    ],
)
def test_merge_refuses_two_naming_schemes(tmp_path, first, second):
    files = [save(tmp_path / f"{n}.safetensors", pair(f"lora_unet_{key}")) for n, key in enumerate((first, second))]
    with pytest.raises(AdapterError, match="name the same layers differently"):
        merge_files([(read_adapter(file), 1.0) for file in files])


def dora_file(folder, magnitude="{}.lora_magnitude_vector"):
    """PEFT's DoRA under kohya's names, the magnitude's path left as some programs leave it (ComfyUI 3494)."""
    path, theirs = peft_file(folder, use_dora=True)
    state, renamed = safetensors.torch.load_file(path), {}
    for key, tensor in state.items():
        stem, _, part = key.removeprefix("base_model.model.").partition(".lora_")
        flat = f"lora_unet_{stem.replace('.', '_')}"
        if part.startswith("magnitude"):
            renamed[magnitude.format("lora_unet_" + stem.replace(".", "_", stem.count(".") - 1), flat)] = tensor
        else:
            renamed[f"{flat}.{'lora_down' if part.startswith('A') else 'lora_up'}.weight"] = tensor
            renamed[f"{flat}.alpha"] = torch.tensor(4.0)
    (folder / "adapter_config.json").unlink()
    return save(folder / "dora.safetensors", renamed), theirs


@pytest.mark.parametrize("magnitude", ["{0}.lora_magnitude_vector", "{1}.lora_magnitude_vector", "{1}.dora_scale"])
def test_dora_under_other_names(tmp_path, magnitude):
    path, theirs = dora_file(tmp_path, magnitude)
    file, ours = read_adapter(path), Net()
    assert set(file.kinds) == {"DoRA"} and not file.unknown
    attach_file(file, {"unet": ours})
    with torch.no_grad():
        assert error(ours(X), theirs(X)) < 1e-5
    with pytest.raises(AdapterError, match="DoRA can't be done without"):
        resize_file(file, 1)
    again = Net()
    convert_file(file, {"unet": Net()}, "diffusers").write(tmp_path / "c.safetensors")
    attach_file(read_adapter(tmp_path / "c.safetensors"), {"unet": again})
    with torch.no_grad():
        assert error(again(X), theirs(X)) < 1e-5


def with_extras(path):
    """One layer of Net, a bundled embedding of two encoders, a norm's scale and a layer that Net has not."""
    return save(path, {
        **pair("lora_unet_down_blocks_0_attn1_to_q"), **pair("lora_unet_nowhere_to_q"),
        **{f"lora_unet_{layer}_to_q.alpha": torch.tensor(2.0) for layer in ("down_blocks_0_attn1", "nowhere")},
        "bundle_emb.zsk.clip_l": torch.ones(2, 768), "bundle_emb.zsk.clip_g": torch.ones(2, 1280),
        "bundle_emb.old.string_to_param.*": torch.ones(1, 768),
        "double_blocks.0.img_attn.norm.key_norm.scale": torch.ones(8),
    })  # fmt: skip


def test_report_and_row_count_everything(tmp_path):
    path = with_extras(tmp_path / "a.safetensors")
    file = read_adapter(path)
    assert set(file.embeddings) == {"zsk", "old"} and len(file.unknown) == 1 and len(file.layers) == 2
    text = describe_text(describe(file))
    assert "1 tensor: double_blocks.0.img_attn.norm.key_norm.scale" in text and "old, zsk" in text
    line = read_adapter_info(path, {"unet": Net()}).line
    assert "1 of 2 layers fit" in line and "1 tensor not used" in line and "2 bundled embeddings not used" in line
    report = str(attach_file(file, {"unet": Net()}).report)
    assert "1 of 2 layers applied, 2 keys unused" in report and "2 bundled embeddings not used" in report


def keys_of(path):
    with safetensors.safe_open(path, "pt") as file:
        return set(file.keys())


def test_rewritten_files_keep_or_name_everything(tmp_path):
    file = read_adapter(with_extras(tmp_path / "a.safetensors"))
    bundled = {key for key in keys_of(file.path) if key.startswith("bundle_emb")}
    plain = read_adapter(save(tmp_path / "b.safetensors", pair("lora_unet_down_blocks_0_attn1_to_q")))
    made = {
        "convert": convert_file(file, {"unet": Net()}, "kohya"),
        "to diffusers": convert_file(file, {"unet": Net()}, "diffusers"),
        "resize": resize_file(file, 1),
        "merge": merge_files([(file, 1.0), (plain, 1.0)]),
    }
    for name, one in made.items():
        one.write(tmp_path / f"{name}.safetensors")
        kept, text = keys_of(tmp_path / f"{name}.safetensors"), " ".join(one.notes)
        assert "1 tensor (double_blocks.0.img_attn.norm.key_norm.scale" in text, name
        assert ("nowhere_to_q" in text) == ("convert" in name or "diffusers" in name)
        if name == "to diffusers":
            assert "bundled embeddings: old, zsk" in text and not bundled & kept
        else:
            assert bundled <= kept and "bundled" not in text


def test_lokr_of_full_factors_needs_no_alpha(tmp_path):
    """LyCORIS writes 1e10 there, which is infinite in half precision."""
    factors = {"lora_unet_q.lokr_w1": torch.randn(2, 2), "lora_unet_q.lokr_w2": torch.randn(4, 4)}
    alpha = {"lora_unet_q.alpha": torch.tensor(1e10).half()}
    file = read_adapter(save(tmp_path / "a.safetensors", factors | alpha))
    assert "the alpha of 1 layer is not finite" in " ".join(file.notes)
    net = nn.ModuleDict({"q": nn.Linear(8, 8, bias=False)})
    expected = net["q"].weight + torch.kron(*factors.values())
    attach_file(file, {"unet": net})
    with torch.no_grad():
        assert torch.allclose(net["q"](torch.eye(8)).T, expected, atol=1e-5)
    write_adapter(tmp_path / "b.safetensors", file.layers, "kohya")
    assert read_adapter(tmp_path / "b.safetensors").notes == ()


def test_odd_number_formats_are_listed(tmp_path):
    odd = {"lora_unet_to_k.lora_down.weight": torch.ones(2, 8, dtype=torch.uint8), "flag": torch.tensor([True])}
    odd["lora_unet_to_k.lora_up.weight"] = torch.ones(8, 2)
    file = read_adapter(save(tmp_path / "a.safetensors", pair("lora_unet_to_q") | odd))
    assert set(file.layers) == {("unet", "to_q")} and set(file.unknown) == set(odd)
    assert "stores numbers as U8" in file.unknown["lora_unet_to_k.lora_down.weight"]


def test_unnamed_layers_try_both_text_encoders(tmp_path):
    def encoder(width):
        return nn.ModuleDict({"encoder": nn.ModuleDict({"layers": nn.ModuleList([
            nn.ModuleDict({"self_attn": nn.ModuleDict({"q_proj": nn.Linear(width, width)})})])})})  # fmt: skip

    modules = {"unet": Net(), "text_encoder": encoder(8), "text_encoder_2": encoder(12)}
    for width, component in ((8, "text_encoder"), (12, "text_encoder_2")):
        stem = "base_model.model.text_model.encoder.layers.0.self_attn.q_proj"
        path = save(tmp_path / "a.safetensors", pair(stem, "lora_A.weight", "lora_B.weight", width, width))
        adapter = attach_file(read_adapter(path), modules)
        assert [place[0] for place, _, _ in adapter.items()] == [component]
        adapter.detach()
    path = save(tmp_path / "a.safetensors", pair(stem, "lora_A.weight", "lora_B.weight", 16, 16))
    with pytest.raises(AdapterError, match="another base model"):
        attach_file(read_adapter(path), modules)


@pytest.mark.parametrize("make", [
    lambda file: resize_file(file, 1), lambda file: merge_files([(file, 1.0), (file, 1.0)]),
    lambda file: convert_file(file, {"unet": Net()}, "kohya"), lambda file: attach_file(file, {"unet": Net()}),
])  # fmt: skip
def test_nan_is_refused_in_one_sentence(tmp_path, make):
    layer = pair("lora_unet_down_blocks_0_attn1_to_q")
    layer["lora_unet_down_blocks_0_attn1_to_q.lora_up.weight"][0, 0] = float("nan")
    with pytest.raises(AdapterError, match="^a holds numbers that are not finite .*use an earlier copy.$"):
        make(read_adapter(save(tmp_path / "a.safetensors", layer)))


def test_image_holds_the_autov3_hash(tmp_path):
    """kohya's `sshs_model_hash`, the sites' AutoV3: SHA-256 of all that follows the header."""
    path = tmp_path / "ink.safetensors"
    write_adapter(path, {("unet", key): update for key, update in updates(0, PATH).items()})
    data = path.read_bytes()
    body = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()
    assert read_adapter(path).metadata["sshs_model_hash"] == body and autov3_hash(path) == body[:12]
    assert f'Lora hashes: "ink: {body[:12]}"' in parameters_text(Recipe(prompt="x", adapters=((path, 1.0),)))
    write_adapter(path, {("unet", key): update for key, update in updates(1, PATH).items()})
    assert autov3_hash(path) != body[:12]
    assert autov3_hash(tmp_path / "nowhere.safetensors") == ""


def test_outline_equals_the_full_file(tmp_path):
    for path in (with_extras(tmp_path / "a.safetensors"), dora_file(tmp_path / "d")[0]):
        whole, head = read_adapter(path), read_outline(path)
        for name in ("unknown", "notes", "alphas", "ranks", "kinds", "layout", "tensors", "metadata"):
            assert getattr(head, name) == getattr(whole, name), name
        assert head.layers.keys() == whole.layers.keys() and head.embeddings.keys() == whole.embeddings.keys()
        net = copy.deepcopy(Net())
        assert read_adapter_info(path, {"unet": net}).matched == attach_file(whole, {"unet": net}).report.matched


def test_row_reads_no_tensor(tmp_path, monkeypatch):
    path = dora_file(tmp_path)[0]
    monkeypatch.setattr("studio.adapters.files._read_tensors", lambda *_: pytest.fail("its tensors were read"))
    assert read_adapter_info(path, {"unet": Net()}).matched == 10


@pytest.mark.parametrize("part", ["lora_B.bias", "diff_b"])
def test_a_bias_of_another_size_is_reported_and_a_flat_one_acts(tmp_path, part):
    """A layer whose bias has more numbers than it has outputs is left out; PEFT writes (out,), others (out, 1)."""
    path = next(path for path, layer in Net().named_modules() if isinstance(layer, torch.nn.Linear))
    torch.manual_seed(0)
    whole = {f"unet.{path}.lora_A.weight": torch.randn(2, 8), f"unet.{path}.lora_B.weight": torch.randn(8, 2)}
    for bias, fits in ((torch.randn(8, 2), False), (torch.randn(8), True), (torch.randn(8, 1), True)):
        safetensors.torch.save_file(whole | {f"unet.{path}.{part}": bias}, tmp_path / "a.safetensors")
        net = Net()
        placed, unused = place_layers(read_adapter(tmp_path / "a.safetensors"), {"unet": net})
        assert (len(placed), len(unused)) == (fits, not fits)
        if not fits:
            assert "its bias has 16 numbers, the layer 8 outputs" in unused[0][1]
            continue
        layer = net.get_submodule(path)
        up, down = whole[f"unet.{path}.lora_B.weight"], whole[f"unet.{path}.lora_A.weight"]
        with torch.no_grad():
            wanted = layer(X) + X @ (up @ down).T + bias.flatten()
            attach_file(read_adapter(tmp_path / "a.safetensors"), {"unet": net})
            assert torch.allclose(net.get_submodule(path)(X), wanted, atol=1e-5)
