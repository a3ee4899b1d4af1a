"""A base by its name on the hub: what comes, what does not, and what is said when it can't."""

import json
import logging
import threading

import pytest
import torch
from PIL import ImageChops
from safetensors.torch import save

from studio.basemodels import base_folder, load_base
from studio.basemodels.hub import fetch_base, wanted_files
from studio.basemodels.hub_cache import variant_of
from studio.errors import BaseModelError
from studio.generation import draw
from studio.hub import DownloadStopped
from tests import hubs, tiers
from tests.basemodels.test_training import RECIPE


@pytest.fixture
def cache(tmp_path, monkeypatch):
    with hubs.no_network(tmp_path / "cache", monkeypatch) as folder:
        yield folder


@pytest.fixture
def hub(cache, monkeypatch, folders):
    plain = {
        file.relative_to(folders("sd1")).as_posix(): file.read_bytes()
        for file in folders("sd1").rglob("*")
        if file.is_file()
    }
    more = {
        "README.md": b"#",
        "v1-5-pruned.ckpt": b"x" * 99,
        "v1-5-pruned.safetensors": b"x" * 99,
        ".gitattributes": b"",
        "unet/diffusion_pytorch_model.bin": b"x" * 99,
        "safety_checker/model.safetensors": b"x" * 99,
        "unet/diffusion_pytorch_model.non_ema.safetensors": b"x" * 99,
        "unet/model.onnx": b"x",
    }
    halved = {
        name.replace(".safetensors", ".fp16.safetensors"): data
        for name, data in plain.items()
        if name.endswith(".safetensors")
    }
    rest = {name: data for name, data in plain.items() if not name.endswith(".safetensors")}
    models = {
        "art/good": plain | more,
        "art/both": plain | halved,
        "art/half": rest | halved,
        "art/gated": plain,
        "art/single": {"anime.safetensors": b"x" * 99},
        "art/refiner": {"model_index.json": b'{"_class_name": "StableDiffusionXLImg2ImgPipeline"}'},
        "art/pickle": rest | {name.replace(".safetensors", ".bin"): b"x" for name in plain if "safetensors" in name},
    }
    with hubs.serve(models, monkeypatch, ("main", "v2")) as server:
        server.folder = cache
        yield server


def said(name, **options):
    with pytest.raises(BaseModelError) as error:
        fetch_base(name, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_only_the_pipelines_own_parts_come_and_then_it_loads_without_a_network(hub, bases, monkeypatch):
    told = []
    folder = fetch_base("art/good", progress=lambda done, total: told.append((done, total)))
    wanted = {name for name in hub.models["art/good"] if name == "model_index.json" or "/" in name}
    wanted -= {name for name in wanted if "safety" in name or name.endswith((".bin", ".onnx")) or "ema" in name}
    assert set(hub.got) == wanted
    total = sum(len(hub.models["art/good"][name]) for name in wanted - {"model_index.json"})
    assert told[-1] == (total, total) and told == sorted(told)
    hubs.unplug(monkeypatch)
    assert base_folder("art/good") == folder
    base = load_base("art/good", shared=False)
    assert ImageChops.difference(draw(base, RECIPE), draw(bases("sd1"), RECIPE)).getbbox() is None


def test_what_is_here_does_not_come_again(hub):
    fetch_base("art/good")
    hub.got.clear()
    fetch_base("art/good")
    assert not hub.got


@pytest.mark.parametrize(
    "name, variant", tiers.default([("art/half", "fp16"), ("art/both?variant=fp16", "fp16"), ("art/both", "")])
)
def test_one_copy_of_the_weights_comes_and_is_loaded(hub, name, variant):
    folder = fetch_base(name)
    weights = [file for file in hub.got if file.endswith(".safetensors")]
    assert weights and {variant_of(file) for file in weights} == {variant}
    assert load_base(name, shared=False).folder == folder


@pytest.mark.full
def test_a_revision_is_asked_for_and_kept_apart(hub):
    fetch_base("art/good@v2")
    assert base_folder("art/good@v2").name == hubs.SHA
    with pytest.raises(BaseModelError, match="not on this machine"):
        base_folder("art/good")
    assert "no revision 'v9'" in said("art/good@v9")


def test_a_stopped_download_goes_on_with_the_files_that_are_missing(hub):
    big, stop = "unet/diffusion_pytorch_model.safetensors", threading.Event()
    hub.models["art/good"][big] = save({"x": torch.arange(3e6)})
    with pytest.raises(DownloadStopped):
        fetch_base("art/good", progress=lambda done, _: done > 3_000_000 and stop.set(), stop=stop)
    with pytest.raises(BaseModelError, match="python -m studio base art/good --download"):
        base_folder("art/good")
    here = {file.relative_to(file.parents[1]).as_posix() for file in hub.folder.rglob("snapshots/*/*/*")}
    hub.got.clear()
    fetch_base("art/good")
    assert here and big in hub.got and not here & set(hub.got)
    assert (base_folder("art/good") / big).read_bytes() == hub.models["art/good"][big]


def test_a_token_is_sent_and_is_nowhere_else(hub, cache, caplog):
    caplog.set_level(logging.DEBUG)
    fetch_base("art/good", token="hf_verysecret")
    assert set(hub.tokens) == {"Bearer hf_verysecret"}
    assert "verysecret" not in caplog.text
    assert not any(b"verysecret" in file.read_bytes() for file in cache.rglob("*") if file.is_file())
    hub.tokens.clear()
    assert "consent" in said("art/gated", token="hf_verysecret") and "verysecret" not in said("art/gated")


def test_what_can_not_be_fetched_is_said_with_what_to_do(hub, monkeypatch):
    assert "accept its terms on" in said("art/gated") and "HF_TOKEN" in said("art/gated")
    assert "no model art/nothing" in said("art/nothing")
    assert "anime.safetensors" in said("art/single")
    assert "pickle" in said("art/pickle")
    hub.got.clear()
    assert "refiner" in said("art/refiner")
    assert set(hub.got) <= {"model_index.json"}
    hubs.unplug(monkeypatch)
    assert "connect to the network" in said("art/good")


def test_large_models_come_in_their_shards():
    names = [
        "model_index.json",
        "transformer/config.json",
        "transformer/diffusion_pytorch_model.safetensors.index.json",
        *(f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors" for n in (1, 2)),
        "transformer/diffusion_pytorch_model.safetensors.index.fp16.json",
        *(f"transformer/diffusion_pytorch_model.fp16-0000{n}-of-00002.safetensors" for n in (1, 2)),
    ]
    assert set(wanted_files("x/y", names, ["transformer"])) == set(names[:5])
    assert set(wanted_files("x/y", names, ["transformer"], "fp16")) == {*names[:2], *names[5:]}


@pytest.mark.full
def test_a_lost_shard_is_missed(hub):
    folder = fetch_base("art/good")
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00001.safetensors"}}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BaseModelError, match="not on this machine"):
        base_folder("art/good")
