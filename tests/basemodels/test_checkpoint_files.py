"""Adapters into checkpoint files, and a LoRA out of one: what is drawn is the oracle, and diffusers' fuse_lora."""

import hashlib
import json
import shutil
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_flux_transformer_checkpoint_to_diffusers
from PIL import ImageChops
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from studio.adapters import AdapterSpec, attach, attach_file, place_layers, read_adapter, write_adapter
from studio.adapters.streaming import StreamedFile
from studio.adapters.update import Update
from studio.basemodels import load_base
from studio.basemodels.checkpoint import Checkpoint
from studio.basemodels.extraction import extract
from studio.basemodels.merging import merge_into
from studio.errors import AdapterError, BaseModelError
from studio.generation import draw
from tests import tiers
from tests.basemodels.original import write_flux, write_sd3
from tests.basemodels.test_drawing import without
from tests.basemodels.test_single_file import checkpoint, narrow  # noqa: F401
from tests.basemodels.test_training import RECIPE


@pytest.fixture
def alone(folders, tmp_path, monkeypatch):
    """alone(name): the denoiser as one file, the rest in a folder of its name beside it."""

    def made(name):
        pipeline = diffusers.DiffusionPipeline.from_pretrained(folders(name))
        (write_sd3 if name == "sd3" else write_flux)(pipeline, tmp_path / "alone.safetensors")
        narrow(monkeypatch, convert_flux_transformer_checkpoint_to_diffusers, {3072: 32})
        shutil.copytree(folders(name), tmp_path / "alone", ignore=shutil.ignore_patterns("diffusion_pytorch_model*"))
        shutil.copytree(folders(name) / "vae", tmp_path / "alone" / "vae", dirs_exist_ok=True)
        return tmp_path / "alone.safetensors"

    return made


def some_adapter(base, path: Path, kind: str = "lora", layout=None, **spec) -> Path:
    """A file with an update on every layer of every part of the base."""
    torch.manual_seed(5)
    layers = {}
    for component, module in base.modules().items():
        adapter = attach(module, AdapterSpec(kind=kind, rank=2, targets="all", **spec))
        for (_, place), layer, _ in adapter.items():
            for name, parameter in layer.named_parameters():
                if name in ("B", "lokr_w2", "lokr_w2_a", "hada_w2_a"):
                    torch.nn.init.normal_(parameter, std=0.2)
            layers[component, place] = layer.update
        adapter.detach()
    write_adapter(path, layers, layout)
    return path


def drawn_with(base, file: Path, strength: float = 1.0):
    adapter = attach_file(read_adapter(file), base.modules(), strength)
    try:
        return draw(base, RECIPE)
    finally:
        adapter.detach()


def merged(line, file: Path, out: Path, strength: float = 1.0, **more):
    base = Checkpoint(str(line))
    placed, unused = place_layers(read_adapter(file), base.modules)
    assert placed and not unused
    return merge_into(base, [(placed, lambda *_: strength)], out, **more)


def close(one, other, most=2):
    """Whether two images differ by no more than the rounding of their pixels."""
    return max(high for _, high in ImageChops.difference(one, other).getextrema()) <= most


@pytest.mark.parametrize("kind", tiers.default(["lora", "dora", "lokr"], "dora"))
def test_a_merged_folder_draws_what_base_and_adapter_draw(bases, folders, tmp_path, kind):
    base = bases("sd1")
    file = some_adapter(base, tmp_path / "a.safetensors", kind)
    done = merged(folders("sd1"), file, tmp_path / "merged", 0.7)
    assert not done.missing
    with_adapter = drawn_with(base, file, 0.7)
    assert not close(draw(base, RECIPE), with_adapter, 20)
    assert close(draw(load_base(str(tmp_path / "merged"), shared=False), RECIPE), with_adapter)


@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl"], "sdxl"))
def test_a_merged_file_stays_in_its_authors_layout_and_draws_the_same(bases, checkpoint, tmp_path, name):  # noqa: F811
    """SDXL's second text encoder lies in OpenCLIP's layout, query, key and value as one tensor."""
    old = checkpoint(name)
    file = some_adapter(bases(name), tmp_path / "a.safetensors")
    done = merged(old, file, tmp_path / "new.safetensors", metadata={"modelspec.title": "new"})
    (tmp_path / "old").rename(tmp_path / "new")  # its settings
    assert not done.missing and done.size == (tmp_path / "new.safetensors").stat().st_size
    before, after = load_file(old), load_file(tmp_path / "new.safetensors")
    assert before.keys() == after.keys()
    assert all(before[key].equal(after[key]) for key in before if key.startswith("first_stage_model."))
    with safe_open(tmp_path / "new.safetensors", "pt") as found:
        assert found.metadata()["modelspec.title"] == "new"
    base = load_base(str(tmp_path / "new.safetensors"), shared=False)
    assert close(draw(base, RECIPE), drawn_with(bases(name), file))


@pytest.mark.full
@pytest.mark.parametrize("name", ["sd3", "flux-dev"])
def test_fused_and_swapped_layers_of_a_denoiser_alone_are_merged(bases, alone, tmp_path, name):
    """FLUX keeps query, key, value and half the feed-forward as one; both swap the halves of the last modulation."""
    old = alone(name)
    base = bases(name)
    file = some_adapter(base, tmp_path / "a.safetensors")
    only = {place: update for place, update in read_adapter(file).layers.items() if place[0] == "transformer"}
    write_adapter(file, only)
    done = merged(old, file, tmp_path / "new.safetensors")
    assert not [line for line in done.missing if "norm_out" in line]
    adapter = attach_file(read_adapter(file), base.modules())
    try:
        wanted = {
            path: base.modules()["transformer"].get_submodule(path).weight + layer.delta(module.weight)
            for (_, path), layer, module in adapter.items()
        }
    finally:
        adapter.detach()
    (old.parent / old.stem).rename(tmp_path / "new")
    new = load_base(str(tmp_path / "new.safetensors"), shared=False).modules()["transformer"]
    for path, weight in wanted.items():
        if f"transformer.{path}" not in done.missing:
            assert torch.allclose(new.get_submodule(path).weight, weight, atol=1e-5), path


def test_a_merged_folder_has_the_weights_that_diffusers_fuses(bases, folders, tmp_path):
    file = some_adapter(bases("sd1"), tmp_path / "a.safetensors", layout="diffusers")
    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folders("sd1"), **without(folders("sd1")))
    pipeline.load_lora_weights(str(tmp_path), weight_name="a.safetensors")
    pipeline.fuse_lora(lora_scale=0.5)
    pipeline.unload_lora_weights()
    merged(folders("sd1"), file, tmp_path / "merged", 0.5)
    ours = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "merged" / "unet").state_dict()
    theirs = pipeline.unet.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-6) for key in ours)


def test_half_precision_rounds_once_and_what_does_not_fit_is_said(bases, folders, tmp_path):
    file = some_adapter(bases("sd1"), tmp_path / "a.safetensors")
    merged(folders("sd1"), file, tmp_path / "full")
    merged(folders("sd1"), file, tmp_path / "half", precision="fp16")
    full, half = (load_file(next((tmp_path / one / "unet").glob("*.safetensors"))) for one in ("full", "half"))
    assert all(half[key].equal(full[key].half()) for key in full)
    huge = read_adapter(file).layers
    huge = {place: Update("lora", {k: 1e4 * v for k, v in one.parts.items()}, one.alpha) for place, one in huge.items()}
    write_adapter(file, huge)
    with pytest.raises(AdapterError, match="don't fit into torch.float16: choose bf16"):
        merged(folders("sd1"), file, tmp_path / "never", precision="fp16")
    assert not [path for path in tmp_path.iterdir() if "never" in path.name or path.name.endswith(".tmp")]


def test_stopping_leaves_nothing(bases, folders, tmp_path):
    file = some_adapter(bases("sd1"), tmp_path / "a.safetensors")

    def stop(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merged(folders("sd1"), file, tmp_path / "never", progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("name", tiers.default(["sd1", "sdxl", "sd3", "flux-dev", "z-image"], "sd1"))
def test_extracted_at_full_rank_it_draws_like_the_tuned_checkpoint(bases, folders, tmp_path, name):
    file = some_adapter(bases(name), tmp_path / "a.safetensors")
    merged(folders(name), file, tmp_path / "tuned")
    found = extract(Checkpoint(str(tmp_path / "tuned")), Checkpoint(str(folders(name))), 4, dtype=torch.float32)
    assert found.error < 1e-4 and max(found.errors.values()) < 1e-3, "the differences have rank 2"
    write_adapter(tmp_path / "out.safetensors", found.layers)
    base, tuned = bases(name), load_base(str(tmp_path / "tuned"), shared=False)
    assert not close(draw(base, RECIPE), draw(tuned, RECIPE), 10)
    if not found.left_out:  # an embedding has no place in a LoRA
        assert close(drawn_with(base, tmp_path / "out.safetensors"), draw(tuned, RECIPE))


def test_a_lower_rank_keeps_the_largest_singular_values(bases, folders, tmp_path):
    """The error of each layer is what its other singular values hold (Eckart-Young), and it is reported."""
    file = some_adapter(bases("sd1"), tmp_path / "a.safetensors")
    merged(folders("sd1"), file, tmp_path / "tuned")
    tuned, base = Checkpoint(str(tmp_path / "tuned")), Checkpoint(str(folders("sd1")))
    found = extract(tuned, base, 1, conv_rank=0, dtype=torch.float32)
    path = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
    S = torch.linalg.svdvals(tuned.read("unet", path) - base.read("unet", path))
    assert found.errors[f"unet.{path}"] == pytest.approx(
        (S[1:].square().sum() / S.square().sum()).sqrt().item(), rel=1e-3
    )
    assert not any(len(update.shape) > 2 and update.shape[2] > 1 for update in found.layers.values())
    assert any("conv" in label for label in found.left_out), "what has no place is counted"
    kept = extract(tuned, base, 2, keep=0.5, dtype=torch.float32)
    ranks = {update.rank for update in kept.layers.values()}
    assert ranks == {1} or ranks == {1, 2}
    assert all(error**2 <= 0.5 + 1e-6 for error in kept.errors.values())


def test_what_is_rounded_only_counts_as_alike(bases, folders, tmp_path):
    """A checkpoint in bf16 of a base in fp32 differs everywhere; what was not trained is no change of it."""
    file = some_adapter(bases("sd1"), tmp_path / "a.safetensors")
    unet = {place: update for place, update in read_adapter(file).layers.items() if place[0] == "unet"}
    write_adapter(file, unet)
    merged(folders("sd1"), file, tmp_path / "tuned", precision="bf16")
    found = extract(Checkpoint(str(tmp_path / "tuned")), Checkpoint(str(folders("sd1"))), 2)
    assert {component for component, _ in found.layers} == {"unet"} and found.same > 10


def test_two_alike_and_two_of_different_architecture_are_refused(folders):
    one = Checkpoint(str(folders("sd1")))
    with pytest.raises(AdapterError, match="nothing to extract"):
        extract(one, Checkpoint(str(folders("sd1"))), 4)
    with pytest.raises(BaseModelError, match="different architectures"):
        extract(one, Checkpoint(str(folders("sdxl"))), 4)


def test_a_large_layer_is_cut_by_random_projection_as_well(monkeypatch):
    from studio.basemodels import extraction

    torch.manual_seed(0)
    delta = torch.randn(300, 6) @ torch.randn(6, 400) + 1e-3 * torch.randn(300, 400)
    exact = extraction._cut(delta, 6, 1.0, torch.float32, 6.0)
    monkeypatch.setattr(extraction, "EXACT", 10)
    found = extraction._cut(delta, 6, 1.0, torch.float32, 6.0)
    products = [one.parts["B"] @ one.parts["A"] for one in (exact, found)]
    assert torch.allclose(*products, atol=2e-3)


def test_a_streamed_file_is_read_by_safetensors_and_knows_its_hash(tmp_path):
    tensors = {
        "a": torch.arange(3, dtype=torch.int8),
        "b": torch.randn(2, 3),
        "c": torch.randn(5).bfloat16(),
        "d": torch.tensor(2.5),
        "e": torch.zeros(0, 4),
    }
    path = tmp_path / "x.safetensors"
    with StreamedFile(path, [(k, v.dtype, tuple(v.shape)) for k, v in tensors.items()], {"t": "ü"}) as out:
        for name, _, _ in out.order:
            out.add(tensors[name])
    found = load_file(path)
    assert all(found[name].equal(tensor) and found[name].dtype == tensor.dtype for name, tensor in tensors.items())
    data = path.read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert head == {"t": "ü", "modelspec.hash_sha256": f"0x{hashlib.sha256(body).hexdigest()}"}
    save_file(found, tmp_path / "y.safetensors")
