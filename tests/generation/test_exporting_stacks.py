"""The rows as one file: the same image here and in diffusers with peft, and what a file can't hold is said."""

import base64
import copy
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from studio.adapters import AdapterSpec, attach, place_layers, read_adapter, write_adapter
from studio.adapters.baking import bake
from studio.basemodels import BaseChoice, load_base
from studio.errors import AdapterError, GenerationError
from studio.generation import AppliedAdapter, Recipe, generate
from studio.generation.cover import read_cover
from studio.generation.exporting import cannot_bake, export_merged
from tests import tiers
from tests.generation.plain import apart, pipeline, theirs

QUICK = {"prompt": "red apple, on a blue background", "steps": 4, "seed": 7}


def loud(path, seed=0, targets="attention", words="", **spec):
    """An adapter for the starter's denoiser and text encoder, loud enough to change the image."""
    base = load_base(shared=False)
    torch.manual_seed(seed)
    chance = torch.Generator().manual_seed(seed)
    updates = {}
    for component, module in base.modules().items():
        adapter = attach(module, AdapterSpec(rank=4, alpha=4, targets=targets, **spec))
        for parameter in adapter.parameters():
            parameter.data = parameter.data + torch.randn(parameter.shape, generator=chance) * 0.05
        updates |= {(component, key): update for (_, key), update in adapter.updates.items()}
    write_adapter(path, updates, metadata={"studio.trigger": words} if words else None)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")
    return {
        "one": loud(folder / "one.safetensors", targets=("to_", "conv", "ff", "proj", "fc"), words="inkling"),
        "two": loud(folder / "two.safetensors", 1, words="mossy"),  # no convolutions
        "kron": loud(folder / "kron.safetensors", 2, kind="lokr"),
        "dora": loud(folder / "dora.safetensors", 3, kind="dora"),
    }


@pytest.fixture(scope="module")
def pipe():
    return pipeline()


def image(*uses):
    return generate(Recipe(**QUICK, adapters=uses))


def in_diffusers(pipe, path):
    pipe.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="it")
    try:
        return theirs(pipe, Recipe(**QUICK))
    finally:
        pipe.unload_lora_weights()


def lokr(parts):
    """Its two factors, w1 (a, b) and w2 (c, d)."""
    w2 = parts["lokr_w2"] if "lokr_w2" in parts else parts["lokr_w2_a"] @ parts["lokr_w2_b"]
    return parts["lokr_w1"], w2


def stack(files):
    return (
        AppliedAdapter(file=files["one"], strength=0.8, text_strength=0.3, blocks={"unet.up_blocks": 0.5}),
        AppliedAdapter(file=files["two"], strength=-0.6),
        AppliedAdapter(file=files["one"], strength=0.2),
    )


@pytest.mark.parametrize("layout", tiers.default(["diffusers", "kohya"]))
def test_loras_are_put_together_exactly_and_load_in_diffusers_with_peft(files, pipe, tmp_path, layout):
    uses, path = stack(files), tmp_path / "all.safetensors"
    made = export_merged(uses, load_base(), path, layout=layout)
    wanted = image(*uses)
    assert made.lost == 0 and made.rank == 12 and "Exact" in made.notes[0]
    assert apart(wanted, generate(Recipe(**QUICK))) > 3, "the stack changes nothing, so nothing is shown"
    assert apart(image(AppliedAdapter(file=path)), wanted) < 0.1
    assert apart(in_diffusers(pipe, path), wanted) < 0.1


@pytest.mark.full
def test_other_kinds_take_their_dense_change_whole_when_the_rank_allows(files, pipe, tmp_path):
    uses = (
        AppliedAdapter(file=files["kron"], strength=0.7),
        AppliedAdapter(file=files["dora"], strength=0.5),
        AppliedAdapter(file=files["two"], strength=0.4),
    )
    wanted, path = image(*uses), tmp_path / "whole.safetensors"
    made = export_merged(uses, load_base(), path, rank=1024)
    assert made.lost < 1e-9 and "Exact" in made.notes[0]
    assert apart(image(AppliedAdapter(file=path)), wanted) < 1
    assert apart(in_diffusers(pipe, path), wanted) < 0.1


def test_the_energy_that_a_cut_loses_is_that_of_the_directions_left_out(files):
    base, rank = load_base(shared=False), 3
    layers, _ = place_layers(read_adapter(files["kron"]), base.modules())
    baked = bake([(layers, lambda *place: 0.5)], base.modules(), rank)
    lost = whole = 0.0
    for update in layers.values():
        a, b = (part.numpy() for part in lokr(update.parts))
        values = np.linalg.svd(0.5 * update.sigma * np.kron(a, b), compute_uv=False) ** 2
        lost, whole = lost + values[rank:].sum(), whole + values.sum()
    assert 0.05 < baked.lost == pytest.approx(lost / whole, rel=1e-3)
    assert {update.rank for update in baked.layers.values()} == {rank} and baked.cut == len(layers)


def test_the_loss_is_told(files, tmp_path):
    made = export_merged([AppliedAdapter(file=files["dora"])], load_base(), tmp_path / "cut.safetensors", rank=2)
    assert made.lost > 0 and f"{100 * made.lost:.2g} % of the change's energy is lost" in made.notes[0]


def test_layers_that_diffusers_passes_over_are_told(tmp_path):
    file = loud(tmp_path / "words.safetensors", targets="all")
    made = export_merged([AppliedAdapter(file=file)], load_base(), tmp_path / "all.safetensors")
    assert any("2 of its layers are embeddings" in line for line in made.notes)


def test_the_file_says_what_it_was_made_of_and_carries_its_image(files, tmp_path):
    path = tmp_path / "all.safetensors"
    export_merged(stack(files), load_base(), path, cover=Image.new("RGB", (640, 320), "#c02040"))
    with safe_open(path, "pt") as file:
        said = file.metadata()
    assert said["modelspec.merged_from"] == "one:0.8, two:-0.6, one:0.2"
    assert said["modelspec.trigger_phrase"] == "inkling, mossy"
    assert json.loads(said["studio.merged_from"])[0]["blocks"] == {"unet.up_blocks": 0.5}
    assert str(tmp_path) not in json.dumps(said) and str(files["one"].parent) not in json.dumps(said)
    head, _, body = said["modelspec.thumbnail"].partition(",")
    cover = Image.open(io.BytesIO(base64.b64decode(body)))
    assert head == "data:image/jpeg;base64" and cover.format == "JPEG" and cover.size == (256, 128)
    assert read_cover(said).size == (256, 128)


@pytest.mark.parametrize("name", ["starter", "black-forest-labs/FLUX.1-dev"])
def test_the_file_names_its_base_whole_and_without_a_path(files, tmp_path, name):
    base = copy.copy(load_base())
    base.choice = BaseChoice(name=name)
    export_merged(stack(files)[:1], base, tmp_path / "all.safetensors")
    with safe_open(tmp_path / "all.safetensors", "pt") as file:
        assert file.metadata()["studio.base"] == name


def test_steps_of_an_adapter_are_said_to_be_lost(files, tmp_path):
    some = AppliedAdapter(file=files["one"], start=0.2)
    assert "one will act from the first step" in cannot_bake([some, AppliedAdapter(file=files["two"])])
    assert cannot_bake([AppliedAdapter(file=files["two"])]) == ""
    made = export_merged([some], load_base(), tmp_path / "a.safetensors")
    assert made.notes[-1] == cannot_bake([some])


@pytest.mark.parametrize(
    "use, part",
    [
        (None, "nothing to export"),
        ({"strength": 0.0}, "Nothing would be left"),
        ({"start": 0.5, "end": 0.5}, "nothing"),
        ({"live": True}, "is still training"),
    ],
)
def test_what_can_not_be_exported_is_said_and_nothing_is_written(files, tmp_path, use, part):
    uses = [] if use is None else [AppliedAdapter(file=files["one"], **use)]
    with pytest.raises(AdapterError, match=part):
        export_merged(uses, load_base(), tmp_path / "no.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_adapter_of_another_family_is_named(files, tmp_path):
    from studio.adapters import Update

    other = tmp_path / "other.safetensors"
    update = Update("lora", {"A": torch.ones(2, 640), "B": torch.ones(640, 2)}, 2.0)
    write_adapter(other, {("unet", "nowhere.attn2.to_q"): update})
    with pytest.raises(AdapterError, match="other was made for another base"):
        export_merged(
            [AppliedAdapter(file=files["one"]), AppliedAdapter(file=other)], load_base(), tmp_path / "no.safetensors"
        )


def test_it_stops_between_two_layers(files, tmp_path):
    def stop(done, total):
        if done == 3:
            raise GenerationError("Stopped.")

    with pytest.raises(GenerationError):
        export_merged(stack(files), load_base(), tmp_path / "no.safetensors", progress=stop)
    assert not (tmp_path / "no.safetensors").exists()


def uri(data: bytes, kind="png") -> dict[str, str]:
    return {"modelspec.thumbnail": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}


def png(size, mode="L") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"modelspec.thumbnail": "https://elsewhere.example/a.jpg"},
        {"modelspec.thumbnail": "data:image/png;base64,"},
        {"modelspec.thumbnail": "data:image/png;base64,%%%"},
        uri(b"GIF89a" + b"\0" * 20),
        uri(png((9000, 9000), "1")),
        uri(png((64, 64))[:60]),
        uri(b"\0" * 5_000_000),
    ],
)
def test_a_strangers_cover_that_is_no_small_image_is_none(said):
    assert read_cover(said) is None


def test_a_strangers_cover_becomes_a_small_image():
    assert read_cover(uri(png((2000, 1000)))).size == (256, 128)
